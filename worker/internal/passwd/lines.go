package passwd

import (
	"bytes"
	"iter"
)

// maxLine is the longest line in bytes that is given to the parser of either file as it is; what it
// takes of /etc/passwd is less than 64 KiB. Long lines are of groups with thousands of members, and of
// generated comments.
const maxLine = 32 << 10

// shortUsers returns the lines of /etc/passwd without what follows the ids where a line is long. A
// line whose ids are not near its beginning is no account that anybody could name.
func shortUsers(data []byte) []byte {
	const needed = 4 // name, password, uid and gid
	return shorten(data, func(line []byte, add func(...[]byte)) {
		if head, _, ok := cutFields(line, needed); ok {
			add(head)
		}
	})
}

// shortGroups returns the lines of /etc/group, long ones as several groups with the same id and a part
// of the members each.
func shortGroups(data []byte) []byte {
	const needed = 3 // name, password and gid, before the members
	return shorten(data, func(line []byte, add func(...[]byte)) {
		head, members, ok := cutFields(line, needed)
		if !ok {
			return
		}
		for part := range parts(members, maxLine-len(head)-1) {
			add(head, []byte(":"), part)
		}
	})
}

// shorten has long add what is to stand for a line that is longer than maxLine; others stay.
func shorten(data []byte, long func(line []byte, add func(...[]byte))) []byte {
	var out bytes.Buffer
	kept := 0 // how much of data is in out
	at := 0
	for line := range bytes.Lines(data) {
		start := at
		if at += len(line); len(line) <= maxLine {
			continue
		}
		out.Write(data[kept:start])
		kept = at
		long(bytes.TrimSpace(line), func(text ...[]byte) {
			for _, t := range text {
				out.Write(t)
			}
			out.WriteByte('\n')
		})
	}
	if kept == 0 {
		return data
	}
	out.Write(data[kept:])
	return out.Bytes()
}

// cutFields cuts a line after n fields. It is not ok if they take more than half of a line.
func cutFields(line []byte, n int) (head, rest []byte, ok bool) {
	end := 0
	for i := range n {
		length := bytes.IndexByte(line[end:], ':')
		if length < 0 {
			length = len(line) - end
		}
		end += length
		if end > maxLine/2 {
			return nil, nil, false
		}
		if i < n-1 {
			end = min(end+1, len(line))
		}
	}
	return line[:end], bytes.TrimPrefix(line[end:], []byte(":")), true
}

// parts yields the names of a list in pieces of at most size bytes. A name that is longer is left out.
func parts(list []byte, size int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(list) > size {
			end := bytes.LastIndexByte(list[:size+1], ',')
			if end > 0 && !yield(list[:end]) {
				return
			}
			if end < 0 {
				if end = bytes.IndexByte(list, ','); end < 0 {
					return
				}
			}
			list = list[end+1:]
		}
		yield(list)
	}
}
