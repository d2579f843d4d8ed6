package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Clamp copies the archive of a layer from r to w; times of its entries that are later than latest
// become latest. The bytes that are written depend on the entries alone, not on how they were
// encoded. It reads to the end of the archive, not to that of r. An archive with sparse files is
// refused: a few bytes of it can stand for any number.
func Clamp(w io.Writer, r io.Reader, latest time.Time) error {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	clamp := func(t *time.Time) {
		if t.After(latest) {
			*t = latest
		}
	}
	buf := make([]byte, 256<<10)
	for {
		hdr, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out.Close()
		}
		if err != nil {
			return err
		}
		if sparse(hdr) {
			return fmt.Errorf("%s is a sparse file", hdr.Name)
		}
		clamp(&hdr.ModTime)
		clamp(&hdr.AccessTime)
		clamp(&hdr.ChangeTime)
		if hdr.Format == tar.FormatUnknown || hdr.Format == tar.FormatUSTAR && latest.Unix() < 0 {
			hdr.Format = tar.FormatPAX // the older formats know no time before 1970
		}
		if err := out.WriteHeader(hdr); err != nil {
			return err
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, buf); err != nil {
			return err
		}
	}
}

func sparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}
