package registry

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"golang.org/x/sync/singleflight"
)

// grantKey says for whom and for what a grant is. The session is part of it: no grant is used
// for a request of another session. Anonymous grants have an empty one.
type grantKey struct {
	session        string
	host           string
	scheme         auth.AuthenticationScheme
	realm, service string
	// scopes are sorted and separated by blanks.
	scopes string
}

func (k *grantKey) setScopes(scopes []string) { k.scopes = strings.Join(scopes, " ") }

func (k grantKey) scopeList() []string { return strings.Fields(k.scopes) }

// grant is the value of an Authorization header.
type grant struct {
	key     grantKey
	header  string
	expires time.Time
	uses    atomic.Int32
}

// reused reports whether the grant was already there when a request first needed it: a refusal
// may then mean no more than that it has expired.
func (g *grant) reused() bool { return g.uses.Load() > 1 }

// grants keeps what was granted until it expires. The zero value is ready for use.
type grants struct {
	flight singleflight.Group
	mu     sync.Mutex
	m      map[grantKey]*grant
}

// get returns the grant for key, made with fetch if there is none. Callers that want the same
// share one fetch; it ends by itself, not with the first caller.
func (gs *grants) get(ctx context.Context, key grantKey, fetch func(context.Context) (*grant, error)) (*grant, error) {
	if g := gs.lookup(key); g != nil {
		return g, nil
	}
	ch := gs.flight.DoChan(fmt.Sprintf("%q", key), func() (any, error) {
		if g := gs.lookup(key); g != nil {
			return g, nil
		}
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), callTime, errCallTime)
		defer cancel()
		g, err := fetch(ctx)
		if err != nil {
			return nil, err
		}
		gs.store(g)
		return g, nil
	})
	select {
	case res := <-ch:
		if res.Err != nil {
			return nil, res.Err
		}
		g, _ := res.Val.(*grant)
		g.uses.Add(1)
		return g, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (gs *grants) lookup(key grantKey) *grant {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.m[key]
	if g == nil || time.Now().After(g.expires) {
		return nil
	}
	g.uses.Add(1)
	return g
}

// store keeps g and forgets what has expired.
func (gs *grants) store(g *grant) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if gs.m == nil {
		gs.m = map[grantKey]*grant{}
	}
	now := time.Now()
	for k, old := range gs.m {
		if now.After(old.expires) {
			delete(gs.m, k)
		}
	}
	gs.m[g.key] = g
}

// drop forgets g, unless it was replaced already.
func (gs *grants) drop(g *grant) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if gs.m[g.key] == g {
		delete(gs.m, g.key)
	}
}
