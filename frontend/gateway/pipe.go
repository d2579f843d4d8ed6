package gateway

import (
	"io"
	"sync"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
)

// bufferedInput is how much input, in bytes, may wait for a process before its stream is read no
// further: messages that come after it, such as signals, do not wait for a process that does not
// read.
const bufferedInput = 1 << 20

// inputPipe is the standard input of a process: it is written by whoever reads the stream.
type inputPipe struct {
	mu   sync.Mutex
	cond sync.Cond
	data []byte
	eof  bool
	// gone is set once nobody reads.
	gone bool
}

func newInputPipe() *inputPipe {
	p := &inputPipe{}
	p.cond.L = &p.mu
	return p
}

// write waits until there is room for all of data. What is written after the end is dropped.
func (p *inputPipe) write(data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(data) > 0 {
		for len(p.data) >= bufferedInput && !p.eof && !p.gone {
			p.cond.Wait()
		}
		if p.eof || p.gone {
			return
		}
		n := min(len(data), bufferedInput-len(p.data))
		p.data = append(p.data, data[:n]...)
		data = data[n:]
		p.cond.Broadcast()
	}
}

// end tells that nothing more will be written.
func (p *inputPipe) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.eof = true
	p.cond.Broadcast()
}

// Read implements io.Reader.
func (p *inputPipe) Read(buf []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.data) == 0 && !p.eof && !p.gone {
		p.cond.Wait()
	}
	if p.gone || len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(buf, p.data)
	p.data = p.data[n:]
	p.cond.Broadcast()
	return n, nil
}

// Close tells that nobody reads any more.
func (p *inputPipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone, p.data = true, nil
	p.cond.Broadcast()
	return nil
}

// outputPipe sends what a process writes to one of its outputs.
type outputPipe struct {
	p      *serverProcess
	fd     uint32
	closed sync.Once
}

// Write implements io.Writer. It waits for a frontend that reads slowly, and fails when the
// stream or the container has ended.
func (o *outputPipe) Write(data []byte) (int, error) {
	o.p.announce()
	msg := &gatewaypb.FdMessage{Fd: o.fd, Data: append([]byte(nil), data...)}
	if err := o.p.put(o.p.life, &gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_File{File: msg}}); err != nil {
		return 0, err
	}
	return len(data), nil
}

// Close tells the frontend that the output has ended.
func (o *outputPipe) Close() error {
	o.closed.Do(func() {
		msg := &gatewaypb.FdMessage{Fd: o.fd, EOF: true}
		_ = o.p.put(o.p.life, &gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_File{File: msg}})
	})
	return nil
}
