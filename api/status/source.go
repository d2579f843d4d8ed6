package status

import (
	"bytes"
	"fmt"
	"io"
	"math"

	errdefspb "github.com/openbuildkit/buildkit/api/errdefs"
	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Sources returns the places in source files that err is about, innermost first.
func Sources(err error) []*errdefspb.Source {
	var out []*errdefspb.Source
	walk(err, func(node error) {
		if e, ok := node.(*SourceError); ok {
			out = append(out, &errdefspb.Source{Info: e.Info, Ranges: e.Ranges})
		}
	})
	return out
}

// PrintSources writes a snippet of the source file for each place that err is about. Places
// without usable lines are left out. The error is that of w.
func PrintSources(w io.Writer, err error) error {
	for _, src := range Sources(err) {
		if perr := PrintSource(w, src); perr != nil {
			return perr
		}
	}
	return nil
}

const snippetRule = "--------------------"

// maxContext is how many lines are shown before and after a place.
const maxContext = 2

// PrintSource writes the lines of one place, marked, between two lines of context on each side;
// one line of context if the place spans several lines. Users and passwords in urls are not shown:
// what is printed ends in logs.
func PrintSource(w io.Writer, src *errdefspb.Source) error {
	info := src.GetInfo()
	if info == nil {
		return nil
	}
	lines := bytes.Split(info.GetData(), []byte("\n"))
	first, last, ok := span(src.GetRanges(), len(lines))
	if !ok {
		return nil
	}
	context := 1
	if first == last {
		context = maxContext
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s:%d\n%s\n", info.GetFilename(), first, snippetRule)
	for n := max(1, first-context); n <= min(len(lines), last+context); n++ {
		mark := "   "
		if contains(src.GetRanges(), n) {
			mark = ">>>"
		}
		fmt.Fprintf(&out, " %3d | %s %s\n", n, mark, giturl.Redact(string(lines[n-1])))
	}
	fmt.Fprintln(&out, snippetRule)
	_, err := w.Write(out.Bytes())
	return err
}

// excerpt returns a file or, if it has more than room bytes, what PrintSource shows of it: the lines
// before that are empty, and those after it are missing. If even that is too much, no line is left.
func excerpt(info *pb.SourceInfo, ranges []*pb.Range, room int) *pb.SourceInfo {
	if len(info.GetData()) <= room {
		return info
	}
	out := &pb.SourceInfo{Filename: info.Filename, Language: info.Language, Definition: info.Definition}
	first, last, ok := span(ranges, math.MaxInt)
	if !ok {
		return out
	}
	n := 0
	for line := range bytes.Lines(info.Data) {
		if n++; n > last+maxContext {
			break
		}
		if n < first-maxContext {
			line = line[len(line)-1:]
		}
		if len(out.Data)+len(line) > room {
			out.Data = nil
			break
		}
		out.Data = append(out.Data, line...)
	}
	return out
}

// span returns the first and last line of all ranges; false if they are not lines of the file.
func span(ranges []*pb.Range, lines int) (first, last int, ok bool) {
	for i, r := range ranges {
		start, end := rangeLines(r)
		if i == 0 || start < first {
			first = start
		}
		last = max(last, end)
	}
	return first, last, first >= 1 && last <= lines
}

func contains(ranges []*pb.Range, line int) bool {
	for _, r := range ranges {
		if start, end := rangeLines(r); start <= line && line <= end {
			return true
		}
	}
	return false
}

// rangeLines returns the lines of r. A range that ends before it starts is its first line.
func rangeLines(r *pb.Range) (start, end int) {
	start = int(r.GetStart().GetLine())
	return start, max(start, int(r.GetEnd().GetLine()))
}
