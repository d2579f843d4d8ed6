package filesync

import (
	"io/fs"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// entry takes the description of an entry; nil is the end of them.
func (r *receiver) entry(st *types.Stat) error {
	if r.ended {
		return protocolErrorf("an entry after the last")
	}
	if st == nil {
		return r.endEntries()
	}
	id := r.nextID
	r.nextID++
	if err := r.order.follow(st.Path); err != nil {
		return err
	}
	if err := r.removeBefore(st.Path); err != nil {
		return err
	}
	r.order.leave(st.Path, r.left)
	if err := r.order.enter(st); err != nil {
		return err
	}
	if r.opt.metadata == nil {
		if err := r.state.add(st); err != nil {
			return err
		}
		return r.place(id, st)
	}
	return r.placeWanted(id, st)
}

// endEntries removes what was not described.
func (r *receiver) endEntries() error {
	r.ended = true
	r.want()
	for r.cur != nil {
		if err := r.removeOld(); err != nil {
			return err
		}
	}
	r.order.leave("", r.left)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = true
	r.wake.Broadcast()
	return nil
}

// left takes note of a directory of which all has been described.
func (r *receiver) left(d *openDir) {
	if d.placed && d.touched {
		r.dirTimes = append(r.dirTimes, d.st)
	}
}

// removeBefore removes what the destination has before p.
func (r *receiver) removeBefore(p string) error {
	for r.cur != nil && comparePaths(r.cur.path, p) < 0 {
		if err := r.removeOld(); err != nil {
			return err
		}
	}
	return nil
}

// removeOld removes the current entry of the destination.
func (r *receiver) removeOld() (err error) {
	p := r.cur.path
	if err := r.tree.remove(p); err != nil {
		return err
	}
	r.touch(p)
	if r.opt.notify != nil {
		r.notifyMu.Lock()
		defer r.notifyMu.Unlock()
		if err := r.opt.notify(fsutil.ChangeKindDelete, p, nil, ""); err != nil {
			return err
		}
	}
	r.cur, err = r.old.next(false)
	return err
}

// touch marks the directory of p as changed.
func (r *receiver) touch(p string) {
	if d := r.order.dir(parentOf(p)); d != nil {
		d.touched = true
	}
}

// placeWanted takes an entry of a transfer of metadata.
func (r *receiver) placeWanted(id uint32, st *types.Stat) error {
	if st.Path == MetadataPath {
		return nil // it is ours
	}
	setToken(st, nil) // what is kept must depend on the tree alone
	if err := r.appendMetadata(st); err != nil {
		return err
	}
	ok, err := r.opt.metadata(st.Path)
	if err != nil || !ok {
		return err
	}
	for _, d := range r.order.dirs {
		if !d.placed && d.st != st {
			if err := r.place(0, d.st); err != nil {
				return err
			}
		}
	}
	if st.Linkname != "" && hasContent(st) {
		if ok, err := r.opt.metadata(st.Linkname); err != nil {
			return err
		} else if !ok {
			st = st.Clone()
			st.Linkname = ""
		}
	}
	return r.place(id, st)
}

// place brings one entry of the destination up to date. The content of files and hard links come
// later.
func (r *receiver) place(id uint32, st *types.Stat) error {
	old, err := r.takeOld(st)
	if err != nil {
		return err
	}
	same := old != nil && unchanged(old, st, r.racy, r.opt.strangers)
	again := r.opt.differ == DiffNone && hasContent(st)
	if again && parentOf(st.Path) != "" {
		same = false // writing it would change the time of its directory
	}
	kind := fsutil.ChangeKindAdd
	if old != nil {
		kind = fsutil.ChangeKindModify
	}
	target, ok := r.mapped(st)
	if !ok {
		return r.drop(old, st)
	}
	switch {
	case st.IsDir():
		return r.placeDir(kind, target, old)
	case hasContent(st) && st.Linkname != "":
		if err := r.checkLink(st); err != nil {
			return err
		}
		r.links = append(r.links, linkEntry{st: target, kind: kind, same: same})
	case same && !again:
		return nil
	case hasContent(st):
		r.wanted = append(r.wanted, &inFile{id: id, st: target, kind: kind, same: same})
	default:
		if err := r.placeOther(kind, target); err != nil {
			return err
		}
	}
	if !same {
		r.touch(st.Path)
	}
	return nil
}

// takeOld returns what the destination has at the path of st, nil if that is nothing, and goes on
// to its next entry.
func (r *receiver) takeOld(st *types.Stat) (old *oldEntry, err error) {
	if r.cur == nil || r.cur.path != st.Path {
		return nil, nil
	}
	old = r.cur
	if old.dir && !st.IsDir() {
		if err := r.tree.remove(st.Path); err != nil {
			return nil, err
		}
	}
	r.cur, err = r.old.next(st.IsDir())
	return old, err
}

// mapped returns the description to apply; false if the entry is not wanted.
func (r *receiver) mapped(st *types.Stat) (*types.Stat, bool) {
	if parent := r.order.dir(parentOf(st.Path)); parent != nil && parent.dropped {
		return nil, false
	}
	if r.opt.mapStat == nil {
		return st, true
	}
	st = st.Clone()
	return st, r.opt.mapStat(st.Path, st)
}

// drop leaves an entry, and what is below it, out of the destination.
func (r *receiver) drop(old *oldEntry, st *types.Stat) error {
	if d := r.order.dir(st.Path); d != nil {
		d.dropped = true
	}
	if old == nil {
		return nil
	}
	r.touch(st.Path)
	return r.tree.remove(st.Path)
}

func (r *receiver) placeDir(kind fsutil.ChangeKind, st *types.Stat, old *oldEntry) error {
	d := r.order.dir(st.Path)
	d.placed = true
	original := d.st
	d.st = st
	if old != nil && old.dir && old.st != nil {
		d.touched = old.st.ModTime != original.ModTime
		was := old.st.Clone()
		was.ModTime = original.ModTime
		if sameStat(was, original) {
			return nil
		}
	}
	d.touched = true
	if err := r.tree.makeDir(st); err != nil {
		return err
	}
	if old == nil {
		r.touch(st.Path)
	}
	return r.report(kind, st)
}

func (r *receiver) placeOther(kind fsutil.ChangeKind, st *types.Stat) error {
	if modeOf(st)&(fs.ModeSymlink|fs.ModeNamedPipe|fs.ModeDevice) == 0 {
		return nil // sockets and what other systems may have
	}
	made, err := r.tree.makeEntry(st)
	if err != nil || !made {
		return err
	}
	return r.report(kind, st)
}

// report tells of an entry without content.
func (r *receiver) report(kind fsutil.ChangeKind, st *types.Stat) error {
	if r.opt.notify == nil {
		return nil
	}
	if r.opt.hasher == nil {
		return r.notify(kind, st, nil)
	}
	h, err := r.opt.hasher(st)
	if err != nil {
		return err
	}
	return r.notify(kind, st, h)
}

// checkLink checks that a hard link names an entry that came before.
func (r *receiver) checkLink(st *types.Stat) error {
	if err := checkPath(st.Linkname); err != nil {
		return err
	}
	if comparePaths(st.Linkname, st.Path) >= 0 {
		return protocolErrorf("hard link %q to %q, which was not described before", st.Path, st.Linkname)
	}
	return nil
}
