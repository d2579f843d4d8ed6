package llb

import "slices"

// envNode is a change to an environment, on top of parent. The nil environment is empty.
type envNode struct {
	parent     *envNode
	key, value string
	removed    bool
}

func (n *envNode) add(key, value string) *envNode {
	return &envNode{parent: n, key: key, value: value}
}

func (n *envNode) del(key string) *envNode { return &envNode{parent: n, key: key, removed: true} }

func (n *envNode) get(key string) (string, bool) {
	for ; n != nil; n = n.parent {
		if n.key == key {
			return n.value, !n.removed
		}
	}
	return "", false
}

// list returns "key=value" in the order of the last change of each key.
func (n *envNode) list() []string {
	var out []string
	seen := map[string]bool{}
	for ; n != nil; n = n.parent {
		if seen[n.key] {
			continue
		}
		seen[n.key] = true
		if !n.removed {
			out = append(out, n.key+"="+n.value)
		}
	}
	slices.Reverse(out)
	return out
}
