package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
)

// maxRequests is how many requests of a node may run at once; containerd fetches the layers
// of an image side by side.
const maxRequests = 64

// quietTime is between lines in the log about what is behind the hub: all nodes ask for it.
const quietTime = 10 * time.Second

// Config configures a Registry.
type Config struct {
	States http.RoundTripper // to the reconciler's store
	Base   *url.URL          // of it, to use with States; /v2/ is below its path
	Prefix func() string     // of the repositories of states and trust
	Images []Upstream
	// Node tells who asks; an error: nobody who may, or ErrUnsure.
	Node func(*http.Request) (name string, n roster.Node, err error)
	// Listed tells whether Git still lists that key for that node: it ends blobs that are under
	// way. nil: it does
	Listed func(node, publicKey string) bool
	// Refused is told of a node that asks for a repository of states which is not its own; may be nil.
	Refused func(q *http.Request, node, repository string)
	Log     *slog.Logger // nil: slog.Default()
}

// ErrUnsure is a Config.Node's answer while nobody can tell: ask again soon.
var ErrUnsure = errors.New("whether Git lists this node is not known now")

// Registry is an http.Handler for /v2/. It is safe for concurrent use.
type Registry struct {
	c         Config
	upstreams map[string]*upstream // by Host
	manifests *manifests
	requests  *prometheus.CounterVec
	seldom    struct{ states, images rate.Sometimes } // what is logged while nodes ask again and again
	again     time.Duration                           // between looks whether a node that pulls is still listed

	mu      sync.Mutex
	running map[string]int // requests, by node
}

// New checks the configuration; it does not dial.
func New(c Config) (*Registry, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Prefix == nil {
		c.Prefix = func() string { return "" }
	}
	if c.Listed == nil {
		c.Listed = func(string, string) bool { return true }
	}
	if c.Refused == nil {
		c.Refused = func(*http.Request, string, string) {}
	}
	if c.States == nil || c.Base == nil || c.Node == nil {
		return nil, fmt.Errorf("registry: where states are, and who nodes are, must be given")
	}
	r := &Registry{c: c, upstreams: map[string]*upstream{}, manifests: newManifests(), requests: newRequests(), again: time.Second, running: map[string]int{}}
	for _, s := range []*rate.Sometimes{&r.seldom.states, &r.seldom.images} {
		s.First, s.Interval = 1, quietTime
	}
	for _, u := range c.Images {
		up, err := newUpstream(u)
		if err != nil {
			return nil, fmt.Errorf("images of registry %q: %w", u.Host, err)
		}
		if r.upstreams[u.Host] != nil {
			return nil, fmt.Errorf("images of registry %q: given twice", u.Host)
		}
		r.upstreams[u.Host] = up
	}
	return r, nil
}

// fault is an answer of the distribution spec's error form.
type fault struct {
	status        int
	code, message string
}

var (
	faultNobody   = fault{http.StatusUnauthorized, "UNAUTHORIZED", "not a node of the fleet, or its token has expired"}
	faultUnsure   = fault{http.StatusServiceUnavailable, "UNKNOWN", "whether this node may pull is not known now; try again soon"}
	faultReadOnly = fault{http.StatusMethodNotAllowed, "UNSUPPORTED", "read only"}
	faultBusy     = fault{http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many requests of this node at once"}
	faultName     = fault{http.StatusNotFound, "NAME_UNKNOWN", "no such repository for this node"}
	faultManifest = fault{http.StatusNotFound, "MANIFEST_UNKNOWN", "no such manifest for this node"}
	faultBlob     = fault{http.StatusNotFound, "BLOB_UNKNOWN", "no such blob for this node"}
	faultRange    = fault{http.StatusRequestedRangeNotSatisfiable, "UNSUPPORTED", "the blob has no such range"}
	faultStates   = fault{http.StatusBadGateway, "UNKNOWN", "the store of states does not answer"}
	faultUpstream = fault{http.StatusBadGateway, "UNKNOWN", "the registry behind the hub does not give it"}
)

func (f *fault) write(w http.ResponseWriter) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	b, err := json.Marshal(map[string][]one{"errors": {{f.code, f.message}}})
	if err != nil {
		b = []byte(`{"errors":[]}`)
	}
	h := w.Header()
	for _, k := range []string{"Content-Length", "Docker-Content-Digest", "Etag"} { // of what was not served after all
		h.Del(k)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	switch f.status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Basic realm="selvedge-hub"`)
	case http.StatusMethodNotAllowed:
		h.Set("Allow", "GET, HEAD")
	case http.StatusTooManyRequests:
		h.Set("Retry-After", "1")
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(f.status)
	w.Write(b)
}

func (r *Registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	kind, outcome := "states", "broken"
	if q.URL.Query().Has("ns") {
		kind = "images"
	}
	defer func() { r.requests.WithLabelValues(kind, outcome).Inc() }()
	f := r.serve(w, q)
	if f == nil {
		outcome = "ok"
		return
	}
	outcome = strings.ToLower(f.code)
	f.write(w)
}

func (r *Registry) serve(w http.ResponseWriter, q *http.Request) *fault {
	name, node, f := r.asks(q)
	if f != nil {
		return f
	}
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		return &faultReadOnly
	}
	if q.URL.EscapedPath() == "/v2/" {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Write([]byte("{}"))
		return nil
	}
	p, ok := parsePath(q.URL)
	if !ok {
		return &faultName
	}
	if !r.begin(name) {
		return &faultBusy
	}
	defer r.end(name)
	if q.URL.Query().Has("ns") {
		return r.image(w, q, p, node, func() bool { return r.c.Listed(name, node.PublicKey) })
	}
	prefix := r.c.Prefix()
	if p.repository != nodestate.NodeRepository(prefix, name) && p.repository != nodestate.TrustRepository(prefix) {
		r.c.Refused(q, name, p.repository)
		return &faultName
	}
	return r.state(w, q, name)
}

// asks tells which node a request is of.
func (r *Registry) asks(q *http.Request) (string, roster.Node, *fault) {
	name, node, err := r.c.Node(q)
	switch {
	case errors.Is(err, ErrUnsure):
		return "", node, &faultUnsure
	case err != nil || !nodestate.ValidNode(name):
		return "", node, &faultNobody
	}
	return name, node, nil
}

func (r *Registry) begin(node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[node] >= maxRequests {
		return false
	}
	r.running[node]++
	return true
}

func (r *Registry) end(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[node]--; r.running[node] == 0 {
		delete(r.running, node)
	}
}

// host is the registry that an image is asked of, "" if it is not clear.
func host(u *url.URL) string {
	ns := u.Query()["ns"]
	if len(ns) != 1 {
		return ""
	}
	return strings.ToLower(ns[0])
}
