package auth_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/edge/auth"
	"selvedge/edge/hubtest"
	"selvedge/schema/wire"
)

func newClient(t *testing.T, h *hubtest.Hub, change ...func(*auth.Config)) (*auth.Client, string) {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := key.PublicKey()
	cfg := auth.Config{Hubs: []string{h.URL}, CA: h.CA, PublicKey: public, Sign: key.Sign}
	for _, f := range change {
		f(&cfg)
	}
	c, err := auth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, public
}

func TestToken(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t)
	c, public := newClient(t, h)
	var p *auth.Problem
	if _, err := c.Token(t.Context()); !errors.As(err, &p) || p.Type != wire.ProblemUnknownNode {
		t.Fatalf("%v", err)
	}
	h.Approve(public, "gw-1")
	g, err := c.Token(t.Context())
	if err != nil || g.Node != "gw-1" || g.Hub != h.URL || g.For != time.Hour || g.BusFor < 23*time.Hour || g.BusFor > 25*time.Hour {
		t.Errorf("%+v, %v", g, err)
	}
}

// What a hub may answer by malice or mistake is an error, soon, and fills no memory.
func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t)
	c, public := newClient(t, h, func(c *auth.Config) { c.Timeout = 2 * time.Second })
	h.Approve(public, "gw-1")
	token := func(more string) string {
		return `{"node":"gw-1","bus":"a.b.c","bearer":"b","now":"2026-11-24T00:00:00Z","expires":"2026-11-24T01:00:00Z"` + more + `}`
	}
	say := func(path, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == path {
				io.WriteString(w, body)
			}
			return r.URL.Path == path
		}
	}
	for name, f := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"no JSON":                say(wire.PathNonce, "<html>"),
		"no nonce":               say(wire.PathNonce, "{}"),
		"a nonce of two lines":   say(wire.PathNonce, `{"nonce":"a\nb"}`),
		"a long nonce":           say(wire.PathNonce, `{"nonce":"`+strings.Repeat("a", 600)+`"}`),
		"no token":               say(wire.PathToken, "{}"),
		"a name with a wildcard": say(wire.PathToken, token(`,"node":"*"`)),
		"no name":                say(wire.PathToken, token(`,"node":""`)),
		"over before it begins":  say(wire.PathToken, token(`,"expires":"2020-01-01T00:00:00Z"`)),
		"a bearer of two lines":  say(wire.PathToken, token(`,"bearer":"a\r\nX: y"`)),
		"a bearer without end":   say(wire.PathToken, token(`,"bearer":"`+strings.Repeat("a", 20<<10)+`"`)),
		"a redirect": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "https://other.example/", http.StatusFound)
			return true
		},
		"an error without a reason": func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(500); return true },
		"an endless answer": func(w http.ResponseWriter, r *http.Request) bool {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					break
				}
			}
			return true
		},
		"silence": func(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
		"a cut":   func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
	} {
		h.Lock()
		h.Before = f
		h.Unlock()
		g, err := c.Token(t.Context())
		var p *auth.Problem
		if !errors.As(err, &p) {
			t.Errorf("%s: %+v, %v", name, g.Token, err)
		}
	}
	h.Lock()
	h.Before = say(wire.PathToken, token(""))
	h.Unlock()
	if g, err := c.Token(t.Context()); err != nil || g.For != time.Hour || g.BusFor != time.Hour { // positive control
		t.Errorf("%+v, %v", g, err)
	}
}

// How long a bus token holds is counted from now: one that is newer than a revocation whose clock was
// ahead is issued in the future.
func TestLifeOfBusToken(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t)
	c, public := newClient(t, h)
	h.Approve(public, "gw-1")
	at := time.Now()
	for issued, want := range map[time.Duration]time.Duration{-time.Hour: 24 * time.Hour, 20 * time.Hour: 24 * time.Hour, 1000 * time.Hour: 24 * time.Hour} {
		claims := fmt.Sprintf(`{"iat":%d,"exp":%d}`, at.Add(issued).Unix(), at.Unix()+24*3600)
		body, _ := json.Marshal(wire.Token{Node: "gw-1", Bus: "a." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c", Bearer: "b",
			Now: at.Truncate(time.Second), Expires: at.Add(time.Hour)})
		h.Lock()
		h.Before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == wire.PathToken {
				w.Write(body)
			}
			return r.URL.Path == wire.PathToken
		}
		h.Unlock()
		if g, err := c.Token(t.Context()); err != nil || g.BusFor != want {
			t.Errorf("issued after %v: %v, %v", issued, g.BusFor, err)
		}
	}
}

func TestProblemsAreOneLine(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t)
	c, _ := newClient(t, h)
	h.Before = func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"detail":"one\n\u001b[31mtwo %s"}`, strings.Repeat("x", 2000))
		return true
	}
	_, err := c.Token(t.Context())
	if err == nil || strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 1000 {
		t.Errorf("%q", err)
	}
}

// A hub that does not take what was signed is not the last word: its clock may be wrong, which
// makes each nonce an old one, or its address.
func TestAnotherHubIsAsked(t *testing.T) {
	t.Parallel()
	h, wrong := hubtest.New(t), hubtest.New(t)
	asked := 0
	wrong.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != wire.PathToken {
			return false
		}
		asked++
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"detail":"the nonce is older than a minute"}`)
		return true
	}
	c, public := newClient(t, h, func(c *auth.Config) {
		c.Hubs, c.CA = []string{wrong.URL, h.URL}, append(append([]byte{}, wrong.CA...), h.CA...)
	})
	h.Approve(public, "gw-1")
	for range 2 { // and the one that answered is asked first the next time
		if g, err := c.Token(t.Context()); err != nil || g.Hub != h.URL {
			t.Fatalf("%+v, %v", g, err)
		}
	}
	if asked != 1 {
		t.Errorf("the other was asked %d times", asked)
	}
}

// The certificate counts, whichever way the trust in it is given.
func TestCertificates(t *testing.T) {
	t.Parallel()
	h, other := hubtest.New(t), hubtest.New(t)
	for name, c := range map[string]struct {
		change func(*auth.Config)
		ok     bool
	}{
		"its CA":                {func(c *auth.Config) {}, true},
		"its CA's digest":       {func(c *auth.Config) { c.CA, c.Pin = nil, h.Pin }, true},
		"another CA":            {func(c *auth.Config) { c.CA = other.CA }, false},
		"another digest":        {func(c *auth.Config) { c.CA, c.Pin = nil, other.Pin }, false},
		"the system's":          {func(c *auth.Config) { c.CA = nil }, false},
		"a name it has":         {func(c *auth.Config) { c.Hubs[0] = strings.Replace(h.URL, "127.0.0.1", "localhost", 1) }, true},
		"an address it has not": {func(c *auth.Config) { c.Hubs[0] = strings.Replace(h.URL, "127.0.0.1", "127.0.0.2", 1) }, false},
		"a pinned address it has not": {func(c *auth.Config) {
			c.Hubs[0] = strings.Replace(h.URL, "127.0.0.1", "127.0.0.2", 1)
			c.CA, c.Pin = nil, h.Pin
		}, false},
		"a clock in 1970":        {func(c *auth.Config) { c.Now = func() time.Time { return time.Unix(0, 0) } }, true},
		"a clock in 2100":        {func(c *auth.Config) { c.Now = func() time.Time { return time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) } }, false},
		"1970, and another's CA": {func(c *auth.Config) { c.Now, c.CA = func() time.Time { return time.Unix(0, 0) }, other.CA }, false},
	} {
		client, _ := newClient(t, h, c.change)
		_, err := client.Trust(t.Context())
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// After a failure the hub has peace, however many ask.
func TestKeeperBacksOff(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t)
	c, public := newClient(t, h)
	k := auth.NewKeeper(c, nil)
	for range 100 {
		if _, err := k.Grant(t.Context()); err == nil {
			t.Fatal("a token")
		}
	}
	if n := h.Count(wire.PathToken); n > 2 {
		t.Errorf("asked %d times", n)
	}
	h.Approve(public, "gw-1")
	var g auth.Grant
	for err := error(auth.ErrPin); err != nil; time.Sleep(10 * time.Millisecond) {
		g, err = k.Grant(t.Context())
	}
	before := h.Count(wire.PathToken)
	for range 100 {
		if again, err := k.Grant(t.Context()); err != nil || again.Bearer != g.Bearer {
			t.Fatal(err)
		}
		k.Stale("another")
	}
	if n := h.Count(wire.PathToken); n != before {
		t.Errorf("asked %d times more", n-before)
	}
	for range 100 { // a registry that refuses whatever it is shown
		k.Stale(g.Bearer)
		k.Grant(t.Context())
	}
	if n := h.Count(wire.PathToken); n > before+1 {
		t.Errorf("asked %d times more", n-before)
	}
}

func TestKeeperRefuses(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t)
	c, public := newClient(t, h)
	h.Approve(public, "gw-1")
	errNo := errors.New("no")
	k := auth.NewKeeper(c, func(auth.Grant) error { return errNo })
	if _, err := k.Grant(t.Context()); !errors.Is(err, errNo) {
		t.Error(err)
	}
	if _, ok, _ := k.Last(); ok {
		t.Error("kept all the same")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := auth.NewKeeper(c, nil).Grant(ctx); err == nil {
		t.Error("no error")
	}
}

func TestHub(t *testing.T) {
	for in, want := range map[string]string{
		"https://Hub.Example/": "https://hub.example", "https://h:8443": "https://h:8443", "http://127.0.0.1:1": "http://127.0.0.1:1",
		"http://hub": "", "https://h/path": "", "https://u:p@h": "", "https://h?q": "", "h:1": "", "": "", "https://": "", "\x00": "",
	} {
		if got, err := auth.Hub(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func FuzzHub(f *testing.F) {
	f.Add("https://hub.example:8443")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := auth.Hub(s)
		if err != nil {
			return
		}
		if again, err := auth.Hub(h); err != nil || again != h {
			t.Errorf("%q: %q, %q, %v", s, h, again, err)
		}
	})
}

// Passing tells what is worth asking again, of one hub or of several.
func TestPassing(t *testing.T) {
	h := hubtest.New(t)
	busy := &auth.Problem{Status: http.StatusTooManyRequests, RetryAfter: 3 * time.Second}
	away := &auth.Problem{Status: http.StatusBadGateway}
	no := &auth.Problem{Status: http.StatusForbidden, Type: wire.ProblemJoinToken}
	for name, c := range map[string]struct {
		err   error
		after time.Duration
		ok    bool
	}{
		"none":             {nil, 0, false},
		"busy":             {fmt.Errorf("ask: %w", busy), 3 * time.Second, true},
		"refused":          {fmt.Errorf("%w (%w)", errors.New("token"), no), 0, false},
		"one of two busy":  {errors.Join(no, busy), 3 * time.Second, true},
		"the sooner one":   {errors.Join(busy, away), 0, true},
		"another's hub":    {ask(t, h, func(c *auth.Config) { c.CA = nil }), 0, false},
		"nobody there":     {ask(t, h, func(c *auth.Config) { c.Hubs = []string{"https://127.0.0.1:1"} }), 0, true},
		"not of this kind": {errors.New("disk full"), 0, false},
	} {
		if after, ok := auth.Passing(c.err); after != c.after || ok != c.ok {
			t.Errorf("%s: %v: %v, %v", name, c.err, after, ok)
		}
	}
}

func ask(t *testing.T, h *hubtest.Hub, change func(*auth.Config)) error {
	t.Helper()
	c, _ := newClient(t, h, change)
	_, err := c.Trust(t.Context())
	return err
}
