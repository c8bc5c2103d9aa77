package pull

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
)

// Config says where and how to pull.
type Config struct {
	Registry string // https://host[:port]
	Prefix   string // of all repositories; may be empty
	Node     string

	// Access, unless nil, tells where and with which token to pull, in place of Registry, Prefix and
	// CredentialsFile. refused is a token that the registry did not take, or "": give another one.
	Access func(ctx context.Context, refused string) (Access, error)
	// TLS, unless nil, is in place of CAFile and CA; the client keeps it for itself.
	TLS func() *tls.Config
	// Hold reports whether requests may be held until something changes; nil: always. It is
	// false while something else tells of changes.
	Hold func() bool

	CAFile          string // PEM; together with CA in place of the system's certificates
	CA              []byte // PEM, as root documents carry it
	CredentialsFile string // mode 0600, one line: user:password, or Bearer and a token; read for each request
	AllowHTTP       bool   // plain HTTP beyond loopback
	UserAgent       string // "" means selvedge-edge

	Wait      time.Duration // how long the registry may hold a poll until something changes; 0 means 30 s, below 0 not at all
	FirstByte time.Duration // until an answer begins, beyond Wait; 0 means 15 s
	Timeout   time.Duration // for a body; 0 means 2 min
	MinRate   int           // bytes a second of a body, over stretches of 5 s; 0 means 512

	// Now is the clock for the validity of certificates; nil means time.Now. Give the later of
	// the clock and the last time seen where a machine may start in 1970.
	Now func() time.Time

	stretch time.Duration // tests shorten it
}

// Access is where a registry is and what opens it.
type Access struct {
	Registry string // https://host[:port]
	Prefix   string
	Bearer   string
}

// Client pulls for one node. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base string
	mu   sync.Mutex
	http *http.Client
}

var (
	prefixRE = regexp.MustCompile(`^([a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)?$`)
	digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// New checks the configuration. It reads no file and dials nothing.
func New(cfg Config) (*Client, error) {
	b := ""
	if cfg.Access == nil {
		var err error
		if b, err = base(cfg.Registry, cfg.AllowHTTP); err != nil {
			return nil, fmt.Errorf("pull: %w", err)
		}
	}
	if !nodestate.ValidNode(cfg.Node) {
		return nil, fmt.Errorf("pull: node %q: want lower-case letters, digits and dashes, at most 63", cfg.Node)
	}
	if len(cfg.Prefix) > 128 || !prefixRE.MatchString(cfg.Prefix) {
		return nil, fmt.Errorf("pull: prefix %q: want lower-case path elements without leading or trailing slash", cfg.Prefix)
	}
	for _, d := range []struct {
		field *time.Duration
		usual time.Duration
	}{{&cfg.Wait, 30 * time.Second}, {&cfg.FirstByte, 15 * time.Second}, {&cfg.Timeout, 2 * time.Minute}, {&cfg.stretch, 5 * time.Second}} {
		if *d.field == 0 {
			*d.field = d.usual
		}
	}
	cfg.Wait = max(cfg.Wait, 0).Truncate(time.Second)
	if cfg.MinRate == 0 {
		cfg.MinRate = 512
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "selvedge-edge"
	}
	return &Client{cfg: cfg, base: b}, nil
}

// Close closes idle connections. The client may be used again.
func (c *Client) Close() { c.forget() }

// Result is what the registry has for the node.
type Result struct {
	// NotModified: what the validator stands for is the newest still; the rest but Validator and Waited is empty.
	NotModified bool
	// Signed is a signed manifest with everything inlined.
	Signed []byte
	// More holds others about the same state, where a plain registry has several
	// signatures of it: take the first that verifies.
	More [][]byte
	// Validator is for the next call. Keep it in memory only, and drop it to see the state anew
	// (after the root of trust changed, or a retry by hand).
	Validator string
	// Waited: the registry held the request until something changed or the time was over,
	// so ask again at once; otherwise sleep for the poll interval first.
	Waited bool
}

// State asks for the newest state. validator is that of the last result, or "".
func (c *Client) State(ctx context.Context, validator string) (Result, error) {
	return with(ctx, c, func(s *session) (Result, error) { return s.state(ctx, validator) })
}

// Trust returns all root documents, oldest first.
func (c *Client) Trust(ctx context.Context) ([][]byte, error) {
	return with(ctx, c, func(s *session) ([][]byte, error) { return s.trust(ctx) })
}

func (c *session) state(ctx context.Context, validator string) (Result, error) {
	repo := nodestate.NodeRepository(c.prefix, c.cfg.Node)
	etag, plain := strings.CutPrefix(validator, plainValidator)
	if !plain {
		r, err := c.signed(ctx, repo, validator)
		if !errors.Is(err, ErrNotFound) {
			return r, err
		}
		etag = ""
	}
	// no tag "signed": a registry to which only the state and its signature were copied
	r, err := c.desired(ctx, repo, etag)
	if plain && errors.Is(err, ErrNotFound) {
		return c.signed(ctx, repo, "")
	}
	return r, err
}

// signed asks for the tag with everything inlined: the one request of a poll.
func (c *session) signed(ctx context.Context, repo, etag string) (Result, error) {
	header := http.Header{"Accept": {nodestate.MediaTypeManifest}}
	wait := time.Duration(0)
	if etag != "" {
		header.Set("If-None-Match", etag)
		if c.cfg.Hold == nil || c.cfg.Hold() {
			wait = c.cfg.Wait
		}
		if wait > 0 {
			header.Set("Prefer", fmt.Sprintf("wait=%d", int(wait.Seconds())))
		}
	}
	url := c.manifestURL(repo, nodestate.TagSigned)
	a, err := c.get(ctx, url, header, nodestate.MaxManifestSize, wait)
	if err != nil {
		return Result{}, err
	}
	r := Result{Validator: etag, Waited: waited(a, wait)}
	if a.status == http.StatusNotModified {
		if etag == "" {
			return Result{}, broken(url, "304 to a request without a condition")
		}
		r.NotModified = true
		return r, nil
	}
	if err := saysDigest(url, a); err != nil {
		return Result{}, err
	}
	r.Validator = validator(a)
	if r.Signed, err = c.complete(ctx, repo, url, a.body); err != nil {
		return Result{}, err
	}
	return r, nil
}

// waited reports whether the server did hold the request (RFC 7240): it may have shortened
// the time, but an answer at once must not make us ask again at once for ever.
func waited(a *answer, wait time.Duration) bool {
	if wait <= 0 {
		return false
	}
	if a.status == http.StatusOK {
		return a.header.Get("Preference-Applied") != ""
	}
	for _, p := range strings.Split(a.header.Get("Preference-Applied"), ",") {
		if s, ok := strings.CutPrefix(strings.TrimSpace(p), "wait="); ok {
			if n, err := strconv.Atoi(s); err == nil && n > 0 {
				wait = min(wait, time.Duration(n)*time.Second)
			}
		}
	}
	return a.took >= wait/2
}

// validator returns what a conditional request is made with: the ETag, or the digest, which
// is what registries use as one.
func validator(a *answer) string {
	if e := a.header.Get("Etag"); e != "" && len(e) < 256 && printable(e) {
		return e
	}
	return `"` + nodestate.Digest(a.body) + `"`
}

// saysDigest refuses an answer whose header names another digest than its body has.
func saysDigest(url string, a *answer) error {
	if d := a.header.Get("Docker-Content-Digest"); strings.HasPrefix(d, "sha256:") && d != nodestate.Digest(a.body) {
		return broken(url, "the registry calls it %.80s, and its digest is %s", d, nodestate.Digest(a.body))
	}
	return nil
}

func (c *session) trust(ctx context.Context) ([][]byte, error) {
	repo := nodestate.TrustRepository(c.prefix)
	url := c.manifestURL(repo, nodestate.TagTrust)
	a, err := c.get(ctx, url, http.Header{"Accept": {nodestate.MediaTypeManifest}}, nodestate.MaxTrustSize, 0)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, statusError(url, a)
	}
	if err := saysDigest(url, a); err != nil {
		return nil, err
	}
	var m nodestate.Manifest
	if err := json.Unmarshal(a.body, &m); err != nil {
		return nil, broken(url, "manifest: %w", err)
	}
	if m.ArtifactType != nodestate.ArtifactTypeTrust || len(m.Layers) == 0 || len(m.Layers) > trust.MaxDocuments {
		return nil, broken(url, "artifact type %.80q, %d layers: not root documents", m.ArtifactType, len(m.Layers))
	}
	var docs [][]byte
	total := 0
	for i, l := range m.Layers {
		if l.MediaType != nodestate.MediaTypeRoot {
			return nil, broken(url, "layer %d: media type %.80q, want %q", i, l.MediaType, nodestate.MediaTypeRoot)
		}
		doc, err := c.content(ctx, repo, url, l, trust.MaxSize)
		if err != nil {
			return nil, err
		}
		if total += len(doc); total > nodestate.MaxManifestSize {
			return nil, broken(url, "root documents of more than %d bytes", nodestate.MaxManifestSize)
		}
		docs = append(docs, doc)
	}
	return docs, nil
}

func (c *session) manifestURL(repo, reference string) string {
	return c.base + "/v2/" + repo + "/manifests/" + reference
}

// content returns what a descriptor names: inlined, or from the registry. Its size and
// digest are as the descriptor says.
func (c *session) content(ctx context.Context, repo, from string, d nodestate.Descriptor, limit int64) ([]byte, error) {
	if !digestRE.MatchString(d.Digest) {
		return nil, broken(from, "digest %.80q is not a SHA-256", d.Digest)
	}
	if d.Size < 0 || d.Size > limit {
		return nil, broken(from, "%s has %d bytes, more than %d", d.Digest, d.Size, limit)
	}
	data, where := d.Data, from
	if len(data) == 0 {
		kind := "/blobs/"
		header := http.Header{}
		if d.MediaType == nodestate.MediaTypeManifest {
			kind = "/manifests/"
			header.Set("Accept", nodestate.MediaTypeManifest)
		}
		where = c.base + "/v2/" + repo + kind + d.Digest
		a, err := c.get(ctx, where, header, d.Size, 0)
		if err != nil {
			return nil, err
		}
		if a.status != http.StatusOK {
			return nil, statusError(where, a)
		}
		data = a.body
	}
	if got := nodestate.Digest(data); got != d.Digest || int64(len(data)) != d.Size {
		return nil, broken(where, "%d bytes with digest %s; %d bytes with digest %s were named", len(data), got, d.Size, d.Digest)
	}
	return data, nil
}
