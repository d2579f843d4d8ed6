package spec

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// separators end a name in /etc/hosts.
const separators = " \t\r\n#\x00"

// Hosts returns the contents of /etc/hosts. An extra host with a name or address that would make
// another line is an error.
func Hosts(hostname string, extra []*pb.HostIP) ([]byte, error) {
	if strings.ContainsAny(hostname, separators) {
		return nil, fmt.Errorf("invalid hostname %q", hostname)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost %s\n", Hostname(hostname))
	b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, h := range extra {
		if strings.ContainsAny(h.GetHost(), separators) || h.GetHost() == "" {
			return nil, fmt.Errorf("invalid extra host %q", h.GetHost())
		}
		ip, err := netip.ParseAddr(h.GetIP())
		if err != nil || ip.Zone() != "" {
			return nil, fmt.Errorf("extra host %s: invalid IP %q", h.GetHost(), h.GetIP())
		}
		fmt.Fprintf(&b, "%s\t%s\n", ip, h.GetHost())
	}
	return b.Bytes(), nil
}

// DNS is what the daemon's configuration says about name resolution. A field that is set replaces
// what the host's file says.
type DNS struct {
	Nameservers, Options, SearchDomains []string
}

// publicNameservers are used when the host has none that a container could reach.
var publicNameservers = []string{"8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"}

// ResolvConf returns the contents of /etc/resolv.conf, made from the host's. On the host's own
// network (hostNetwork) and without a configuration that is the host's text as it is; elsewhere
// nameservers on loopback addresses, which are others in there, are left out.
func ResolvConf(host []byte, dns DNS, hostNetwork bool) []byte {
	overridden := len(dns.Nameservers)+len(dns.Options)+len(dns.SearchDomains) > 0
	if hostNetwork && !overridden {
		return host
	}
	found := parseResolvConf(host)
	if len(dns.Nameservers) > 0 {
		found.Nameservers = dns.Nameservers
	} else if !hostNetwork {
		found.Nameservers = slices.DeleteFunc(found.Nameservers, loopback)
		if len(found.Nameservers) == 0 {
			found.Nameservers = publicNameservers
		}
	}
	if len(dns.SearchDomains) > 0 {
		found.SearchDomains = dns.SearchDomains
	}
	if len(dns.Options) > 0 {
		found.Options = dns.Options
	}
	return found.text()
}

// OnlyResolved tells whether a host's resolv.conf names nothing but the stub of systemd-resolved.
// Its upstream servers are in ResolvedFile then.
func OnlyResolved(host []byte) bool {
	ns := parseResolvConf(host).Nameservers
	return len(ns) == 1 && ns[0] == "127.0.0.53"
}

// Files of the host that name its nameservers.
const (
	ResolvFile   = "/etc/resolv.conf"
	ResolvedFile = "/run/systemd/resolve/resolv.conf"
)

func parseResolvConf(text []byte) DNS {
	var d DNS
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			d.Nameservers = append(d.Nameservers, f[1])
		case "search", "domain": // the last one counts
			d.SearchDomains = f[1:]
		case "options":
			d.Options = append(d.Options, f[1:]...)
		}
	}
	return d
}

func (d DNS) text() []byte {
	var b bytes.Buffer
	for _, ns := range d.Nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", ns)
	}
	if len(d.SearchDomains) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(d.SearchDomains, " "))
	}
	if len(d.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(d.Options, " "))
	}
	return b.Bytes()
}

func loopback(ns string) bool {
	ip, err := netip.ParseAddr(ns)
	return err == nil && ip.Unmap().IsLoopback()
}
