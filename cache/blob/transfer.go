package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/event"
)

// TransferPrefix begins the names of ingests: of blobs while they are being fetched.
const TransferPrefix = "fetch-"

// progressInterval is how often a transfer reports.
const progressInterval = 150 * time.Millisecond

// Fallback is a Source with more than one place to read from.
type Fallback interface {
	Source
	// Fallback is told that the bytes that were read last were not those of the digest, or not all. It
	// returns true if Open will now read from elsewhere.
	Fallback(ctx context.Context, dgst digest.Digest) bool
}

// Blamer is a Fallback that knows whose bytes it has read.
type Blamer interface {
	// Blame returns the error of wrong bytes, all places having been tried, as that of whom they are
	// of.
	Blame(dgst digest.Digest, err error) error
}

// ErrWrong says that bytes are not those of the digest.
var ErrWrong = errors.New("bytes do not match the digest")

// Transfer copies a blob from src into a content store, under the lease of ctx, from where an
// earlier attempt has stopped. It records where the blob came from, and shows its progress in the
// scope of src. It tells whether all of the blob came from there, which proves that src has it.
func Transfer(ctx context.Context, store content.Store, desc ocispec.Descriptor, src Source) (whole bool, err error) {
	p := startProgress(src.Scope(), desc)
	defer func() { p.end(err) }()
	for anew := false; ; {
		var resumed bool
		resumed, err = transfer(ctx, store, desc, src, p)
		switch {
		case err == nil:
			return !resumed, nil
		case !errors.Is(err, ErrWrong) && !errors.Is(err, io.ErrUnexpectedEOF):
			return false, err
		case resumed && !anew && errors.Is(err, ErrWrong):
			anew = true
			continue // what was there may have been wrong; it is gone now
		}
		if other, ok := src.(Fallback); ok && other.Fallback(ctx, desc.Digest) {
			continue
		}
		if b, ok := src.(Blamer); ok {
			err = b.Blame(desc.Digest, err)
		}
		return false, err
	}
}

// transfer copies what is missing. It tells whether something was there.
func transfer(ctx context.Context, store content.Store, desc ocispec.Descriptor, src Source, p *progress) (resumed bool, err error) {
	ref := TransferPrefix + desc.Digest.String()
	w, err := content.OpenWriter(ctx, store, content.WithRef(ref), content.WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer w.Close()
	st, err := w.Status()
	if err != nil {
		return false, err
	}
	if st.Offset > desc.Size && desc.Size > 0 {
		if err := w.Truncate(0); err != nil {
			return false, err
		}
		st.Offset = 0
	}
	resumed = st.Offset > 0
	p.current = st.Offset
	if st.Offset < desc.Size || desc.Size <= 0 {
		if err := copyFrom(ctx, w, desc, src, st.Offset, p); err != nil {
			if errors.Is(err, ErrWrong) {
				err = discard(ctx, store, w, ref, err)
			}
			return resumed, err
		}
	}
	err = w.Commit(ctx, desc.Size, desc.Digest, content.WithLabels(labelsOf(src.Repository(), !resumed)))
	if err == nil || errdefs.IsAlreadyExists(err) {
		return resumed, nil
	}
	if errdefs.IsFailedPrecondition(err) {
		err = discard(ctx, store, w, ref, fmt.Errorf("%w: %w", ErrWrong, err))
	}
	return resumed, err
}

// labelsOf returns the labels of a blob that came from a repository.
func labelsOf(repository string, whole bool) map[string]string {
	labels := map[string]string{}
	if key, value := WithOrigin(nil, repository); key != "" {
		labels[key] = value
	}
	if key, value := WithProof(nil, repository); whole && key != "" {
		labels[key] = value
	}
	return labels
}

// discard removes bytes that are wrong: there is nothing to go on with. It returns err.
func discard(ctx context.Context, store content.Store, w content.Writer, ref string, err error) error {
	w.Close()
	if abortErr := store.Abort(ctx, ref); abortErr != nil && !errdefs.IsNotFound(abortErr) {
		return errors.Join(err, abortErr)
	}
	return err
}

func copyFrom(ctx context.Context, w io.Writer, desc ocispec.Descriptor, src Source, offset int64, p *progress) error {
	rc, err := src.Open(ctx, desc, offset)
	if err != nil {
		return err
	}
	defer rc.Close()
	var r io.Reader = rc
	if desc.Size > 0 {
		// One byte more tells a blob that is too long; its digest is wrong then anyway.
		r = io.LimitReader(rc, desc.Size-offset+1)
	}
	n, err := io.CopyBuffer(io.MultiWriter(w, p), struct{ io.Reader }{r}, make([]byte, 256<<10))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if desc.Size > 0 && offset+n < desc.Size {
		return fmt.Errorf("%w: got %d of %d bytes", io.ErrUnexpectedEOF, offset+n, desc.Size)
	}
	return nil
}

// progress reports a transfer as it goes.
type progress struct {
	scope   event.Scope
	id      string
	started time.Time
	last    time.Time
	current int64
	total   int64
}

func startProgress(scope event.Scope, desc ocispec.Descriptor) *progress {
	p := &progress{scope: scope, id: desc.Digest.String(), started: time.Now(), total: desc.Size}
	p.report(nil)
	return p
}

// Write counts.
func (p *progress) Write(b []byte) (int, error) {
	p.current += int64(len(b))
	if time.Since(p.last) >= progressInterval {
		p.report(nil)
	}
	return len(b), nil
}

func (p *progress) report(completed *time.Time) {
	p.last = time.Now()
	p.scope.Status(event.Status{
		ID: p.id, Total: p.total, Current: p.current,
		Timestamp: p.last, Started: &p.started, Completed: completed,
	})
}

func (p *progress) end(err error) {
	if err == nil {
		p.current = p.total
	}
	now := time.Now()
	p.report(&now)
}
