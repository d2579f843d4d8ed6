package wire

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/openbuildkit/buildkit/solver/key"
)

// keysHandler shows what the daemon remembers of results: which keys there are, what each consists of
// and which records have it.
type keysHandler struct{ keys *key.Store }

func (h *keysHandler) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/cache/all", h.all)
	mux.HandleFunc("GET /debug/cache/lookup", h.lookup)
}

// shownKey is a key as one line of JSON. Op and Links are those by which it is found, empty for a
// root; Results are ids of records, newest first.
type shownKey struct {
	Key      string        `json:"key"`
	Op       string        `json:"op,omitempty"`
	Output   int           `json:"output,omitempty"`
	Links    []shownLink   `json:"links,omitempty"`
	Children int           `json:"children,omitempty"`
	Results  []shownResult `json:"results,omitempty"`
}

type shownLink struct {
	Input    int    `json:"input"`
	Key      string `json:"key"`
	Selector string `json:"selector,omitempty"`
}

type shownResult struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
}

func show(e key.Entry) shownKey {
	k := shownKey{Key: e.ID.String(), Op: string(e.Parts.Op.Digest), Output: e.Parts.Op.Output, Children: e.Children}
	for _, l := range e.Parts.Links {
		k.Links = append(k.Links, shownLink{Input: l.Input, Key: l.Alt.Key.String(), Selector: l.Alt.Selector})
	}
	for _, r := range e.Results {
		k.Results = append(k.Results, shownResult{ID: r.ID, CreatedAt: r.CreatedAt})
	}
	return k
}

// all writes a line for every key.
func (h *keysHandler) all(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	// What fails is the connection, or what has been written says so by its end.
	_ = h.keys.Walk(r.Context(), func(e key.Entry) error { return out.Encode(show(e)) })
}

// lookup writes the key that the query names, or those that the record has that it names.
func (h *keysHandler) lookup(w http.ResponseWriter, r *http.Request) {
	ids := h.keys.Owners(r.FormValue("result"))
	if text := r.FormValue("key"); text != "" {
		id, err := key.ParseID(text)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ids = []key.ID{id}
	}
	var found []shownKey
	for _, id := range ids {
		if e, ok := h.keys.Entry(id); ok {
			found = append(found, show(e))
		}
	}
	if len(found) == 0 {
		http.Error(w, "no such key: name one by ?key=, or a record by ?result=", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	for _, k := range found {
		_ = out.Encode(k) // only the connection can fail
	}
}
