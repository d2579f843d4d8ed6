package llb

import "slices"

// envNode is a change to an environment, on top of parent. The nil environment is empty.
type envNode struct {
	parent     *envNode
	key, value string
	removed    bool
	// depth is the number of nodes, compact what it was when there was one for each variable.
	depth, compact int
}

func (n *envNode) add(key, value string) *envNode { return n.push(envNode{key: key, value: value}) }

func (n *envNode) del(key string) *envNode { return n.push(envNode{key: key, removed: true}) }

// spareNodes is how many nodes a list may have besides twice those that count.
const spareNodes = 64

// push adds a change. A list that mostly holds what was changed later is made anew, so that a
// variable costs the same no matter how often all of them were set.
func (n *envNode) push(change envNode) *envNode {
	if n != nil && n.depth > 2*n.compact+spareNodes {
		n = n.compacted()
	}
	change.parent, change.depth = n, 1
	if n != nil {
		change.depth, change.compact = n.depth+1, n.compact
	}
	return &change
}

// compacted returns a list without what was changed later.
func (n *envNode) compacted() *envNode {
	live := n.live()
	var out *envNode
	for i, l := range live {
		out = &envNode{parent: out, key: l.key, value: l.value, depth: i + 1, compact: len(live)}
	}
	return out
}

func (n *envNode) get(key string) (string, bool) {
	for ; n != nil; n = n.parent {
		if n.key == key {
			return n.value, !n.removed
		}
	}
	return "", false
}

// live returns the variables that are set, in the order of the last change of each.
func (n *envNode) live() []*envNode {
	var out []*envNode
	seen := map[string]bool{}
	for ; n != nil; n = n.parent {
		if seen[n.key] {
			continue
		}
		seen[n.key] = true
		if !n.removed {
			out = append(out, n)
		}
	}
	slices.Reverse(out)
	return out
}

// list returns "key=value" in the order of the last change of each key.
func (n *envNode) list() []string {
	var out []string
	for _, l := range n.live() {
		out = append(out, l.key+"="+l.value)
	}
	return out
}
