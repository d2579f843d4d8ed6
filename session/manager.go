package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/status"
)

// lookupTimeout is how long a session may take to appear after a request that names it.
const lookupTimeout = 5 * time.Second

// Manager holds the sessions of a daemon's clients. All methods may be called concurrently.
type Manager struct {
	mu       sync.Mutex
	sessions map[string]*Caller
	added    chan struct{} // closed and replaced when a session is added
}

// NewManager returns a Manager without sessions.
func NewManager() *Manager {
	return &Manager{sessions: map[string]*Caller{}, added: make(chan struct{})}
}

// HandleStream serves a call of Control.Session: it blocks until the session ends. A session
// that its client ended returns nil.
func (m *Manager) HandleStream(stream controlpb.Control_SessionServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	return m.HandleConn(stream.Context(), NewStreamConn(stream, nil), md)
}

// HandleConn serves a session over conn, which it closes, and blocks until ctx or the session
// ends. Names of headers may be in any case. A session that its client ended returns nil; one
// that stalled returns an error that matches ErrLost; an id in use is an error.
func (m *Manager) HandleConn(ctx context.Context, conn net.Conn, headers map[string][]string) error {
	defer conn.Close()
	h, err := parseHeaders(headers)
	if err != nil {
		return err
	}
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	lose := func(err error) { end(&LostError{ID: h.id, Cause: err}) }
	defer lose(errClosed)
	stop := context.AfterFunc(ctx, func() { lose(plainEnd(context.Cause(ctx))) })
	defer stop()

	cc, err := dialTunnel(&watchedConn{Conn: conn, lost: lose})
	if err != nil {
		return err
	}
	// Closing may wait for a write to a stalled peer, which ends only when the handler returns.
	defer func() { go cc.Close() }()
	c := &Caller{
		id: h.id, name: h.name, sharedKey: h.sharedKey, methods: h.methods,
		conn: &callerConn{id: h.id, cc: cc, life: life}, slots: semaphore.NewWeighted(maxOpen),
	}
	c.life = c.conn.life
	if err := m.add(c); err != nil {
		return err
	}
	defer m.remove(c)

	go monitor(life, cc, h.health, lose)
	<-life.Done()
	if cause := c.Err(); !errors.Is(cause, errClosed) && ctx.Err() == nil {
		return cause
	}
	return nil
}

func (m *Manager) add(c *Caller) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.sessions[c.id]; ok {
		return status.New(codes.AlreadyExists, fmt.Sprintf("session %s already exists", c.id))
	}
	m.sessions[c.id] = c
	close(m.added)
	m.added = make(chan struct{})
	return nil
}

func (m *Manager) remove(c *Caller) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, c.id)
}

// Get returns the session with an id, of which a prefix up to a colon is ignored. It waits a
// little for a session that is about to appear; the error then matches ErrNoSession.
func (m *Manager) Get(ctx context.Context, id string) (*Caller, error) {
	if i := strings.IndexByte(id, ':'); i >= 0 {
		id = id[i+1:]
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	for {
		c, added := m.lookup(id)
		if c != nil {
			return c, nil
		}
		select {
		case <-added:
		case <-ctx.Done():
			return nil, &NotActiveError{ID: id, Err: context.Cause(ctx)}
		}
	}
}

// lookup returns the session, or nil and what is closed when another one is added.
func (m *Manager) lookup(id string) (*Caller, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.sessions[id]; c != nil && c.life.Err() == nil {
		return c, nil
	}
	return nil, m.added
}

// headers is what a client says of its session.
type headers struct {
	id, name, sharedKey string
	methods             map[string]bool
	health              healthConfig
}

func parseHeaders(in map[string][]string) (headers, error) {
	canonical := make(map[string][]string, len(in))
	for k, v := range in {
		k = textproto.CanonicalMIMEHeaderKey(k)
		canonical[k] = append(canonical[k], v...)
	}
	first := func(key string) string {
		if v := canonical[key]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	h := headers{
		id:        first(headerID),
		name:      first(headerName),
		sharedKey: first(headerSharedKey),
		methods:   map[string]bool{},
		health:    defaultHealth(),
	}
	if h.id == "" {
		return headers{}, status.New(codes.InvalidArgument, "invalid session: "+strings.ToLower(headerID)+" is missing")
	}
	for _, m := range canonical[headerMethod] {
		h.methods[strings.ToLower(m)] = true
	}
	if text := first(headerHealthTimeout); text != "" {
		ms, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return headers{}, status.New(codes.InvalidArgument, fmt.Sprintf("invalid %s: %q is no number of milliseconds", strings.ToLower(headerHealthTimeout), text))
		}
		h.health = customHealth(time.Duration(ms) * time.Millisecond)
	}
	return h, nil
}
