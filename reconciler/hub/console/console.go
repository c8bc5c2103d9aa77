package console

import (
	"bytes"
	"compress/gzip"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
)

// Config says what a console is made of.
type Config struct {
	Ops *ops.Ops
	Key []byte           // seals sessions: 32 secret bytes, the same on every hub of a cluster
	Log *slog.Logger     // nil: slog.Default()
	Now func() time.Time // nil: time.Now
}

// Console serves the pages.
type Console struct {
	c      Config
	seal   cipher.AEAD
	render *renderer
	files  *files
	mux    *http.ServeMux
	routes []route
}

// New returns the handler of all paths that nothing else serves.
func New(c Config) (*Console, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	seal, err := chacha20poly1305.NewX(c.Key)
	if err != nil {
		return nil, fmt.Errorf("key of the console's sessions: %w", err)
	}
	files, err := loadAssets()
	if err != nil {
		return nil, err
	}
	render, err := newRenderer(files, c.Now)
	if err != nil {
		return nil, err
	}
	s := &Console{c: c, seal: seal, render: render, files: files, mux: http.NewServeMux(), routes: routes()}
	for i := range s.routes {
		rt := &s.routes[i]
		s.mux.HandleFunc(rt.method+" "+rt.pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(rt, w, r) })
		if rt.page != nil {
			s.mux.HandleFunc("GET "+livePath(strings.TrimSuffix(rt.pattern, "{$}")), func(w http.ResponseWriter, r *http.Request) { s.serve(&route{page: rt.page, live: true}, w, r) })
		}
	}
	return s, nil
}

// route is one path. Those that are not public need a session or a bearer.
type route struct {
	method  string
	pattern string // as http.ServeMux has it
	public  bool

	page pageFunc                                       // shown whole, and live below /live
	do   func(x *exchange, w http.ResponseWriter) error // anything else
	live bool                                           // page as a stream
}

func routes() []route {
	return []route{
		{method: "GET", pattern: "/login", public: true, do: loginPage},
		{method: "POST", pattern: "/login", public: true, do: login},
		{method: "POST", pattern: "/logout", public: true, do: logout},
		{method: "GET", pattern: "/assets/{hash}/{file}", public: true, do: asset},
		{method: "GET", pattern: "/favicon.ico", public: true, do: favicon},

		{method: "GET", pattern: "/{$}", page: fleetPage},
		{method: "GET", pattern: "/nodes", page: nodesPage},
		{method: "GET", pattern: "/nodes/{node}", page: nodePage},
		{method: "GET", pattern: "/changes", page: changesPage},
		{method: "GET", pattern: "/changes/{commit}", page: changePage},
		{method: "GET", pattern: "/pending", page: pendingPage},
		{method: "GET", pattern: "/events", page: eventsPage},

		{method: "GET", pattern: "/ping", do: ping},
		{method: "GET", pattern: "/nodes/{node}/log", do: logStream},
		{method: "POST", pattern: "/nodes/{node}/restart", do: restart},
		{method: "POST", pattern: "/pending/{code}/reject", do: reject},
	}
}

// exchange is a request on its way through.
type exchange struct {
	*Console
	r      *http.Request
	id     string
	caller ops.Caller
	who    hubapi.Whoami
	bearer bool // not signed in by a cookie
}

const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP answers a request.
func (s *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var raw [8]byte
	_, _ = rand.Read(raw[:]) // never fails
	id := hex.EncodeToString(raw[:])
	h := w.Header()
	h.Set("X-Request-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", csp)
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Cookie, Authorization, Hx-Request")
	r.Header.Set("X-Request-Id", id) // in place of what a stranger may have sent
	x := &exchange{Console: s, r: r, id: id}
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		x.fail(w, &hubapi.Problem{Title: "Request from another site", Status: http.StatusForbidden, Reason: hubapi.ReasonForbidden,
			Detail: "another site asked your browser to do this, and nothing was done"})
		return
	}
	if _, pattern := s.mux.Handler(r); pattern == "" {
		x.nowhere(w)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// nowhere answers for paths that there are not, to who is signed in; others are asked to sign
// in first, so that they learn nothing of what there is.
func (x *exchange) nowhere(w http.ResponseWriter) {
	if err := x.enter(); err != nil {
		x.refuse(w, err)
		return
	}
	x.fail(w, &hubapi.Problem{Title: "Not found", Status: http.StatusNotFound, Reason: hubapi.ReasonNotFound, Detail: "there is no such page; the links above lead to those that there are"})
}

// serve lets somebody in, and only then runs the route.
func (s *Console) serve(rt *route, w http.ResponseWriter, r *http.Request) {
	x := &exchange{Console: s, r: r, id: r.Header.Get("X-Request-Id")}
	if !rt.public {
		if err := x.enter(); err != nil {
			x.refuse(w, err)
			return
		}
	}
	var err error
	switch {
	case rt.live:
		err = x.stream(w, rt.page)
	case rt.page != nil:
		err = x.whole(w, rt.page)
	default:
		err = rt.do(x, w)
	}
	if err != nil {
		x.fail(w, err)
	}
}

// enter finds out who asks: by a bearer if there is one, else by the session.
func (x *exchange) enter() (err error) {
	token := ""
	if got := x.r.Header.Values("Authorization"); len(got) > 0 {
		x.bearer = true
		scheme, rest, _ := strings.Cut(got[0], " ")
		if !strings.EqualFold(scheme, "Bearer") || len(got) > 1 {
			return &hubapi.Problem{Title: "Not signed in", Status: http.StatusUnauthorized, Reason: hubapi.ReasonUnauthorized, Detail: "send Authorization: Bearer TOKEN, once, or sign in"}
		}
		token = strings.TrimSpace(rest)
	} else if token, err = x.session(); err != nil {
		return err
	}
	if x.caller, err = x.c.Ops.Authenticate(token, x.r.RemoteAddr); err != nil {
		if p := asProblem(err); p.Reason == hubapi.ReasonBusy && !x.bearer {
			return ended() // this hub sealed it: the token was right once, and nobody guesses
		}
		return err
	}
	x.caller.Request = x.id
	x.who, err = x.c.Ops.Whoami(x.r.Context(), x.caller)
	return err
}

// refuse answers who is not let in: people are sent to sign in, and come back after it.
func (x *exchange) refuse(w http.ResponseWriter, err error) {
	p, ok := errors.AsType[*hubapi.Problem](err)
	if !ok || p.Status != http.StatusUnauthorized {
		x.fail(w, err)
		return
	}
	page := x.r.Method == http.MethodGet && !strings.HasPrefix(x.r.URL.Path, livePath("/")) && x.r.Header.Get("Hx-Request") == "" &&
		!strings.Contains(x.r.Header.Get("Accept"), "event-stream") && x.r.URL.Path != "/ping"
	switch {
	case x.bearer:
		w.Header().Set("WWW-Authenticate", `Bearer realm="selvedge"`)
		http.Error(w, p.Detail, http.StatusUnauthorized)
	case !page:
		here, err := url.Parse(x.r.Header.Get("Hx-Current-Url"))
		if err != nil {
			here = &url.URL{Path: "/"}
		}
		w.Header().Set("Hx-Redirect", x.loginFrom(here.RequestURI()))
		http.Error(w, "sign in first", http.StatusUnauthorized)
	case x.arrived():
		x.again(w)
	default:
		http.Redirect(w, x.r, x.loginFrom(x.r.URL.RequestURI()), http.StatusSeeOther)
	}
}

// loginFrom is where to sign in and come back from.
func (x *exchange) loginFrom(page string) string {
	q := url.Values{}
	if to := next(page); to != "/" {
		q.Set("next", to)
	}
	if _, err := x.r.Cookie(cookie); err == nil {
		q.Set("ended", "1")
	}
	if len(q) == 0 {
		return "/login"
	}
	return "/login?" + q.Encode()
}

// arrived reports whether a link on another site led here. The browser then leaves the cookie
// out, as SameSite=Strict asks.
func (x *exchange) arrived() bool {
	h := x.r.Header
	return h.Get("Sec-Fetch-Site") == "cross-site" && h.Get("Sec-Fetch-Mode") == "navigate" && h.Get("Sec-Fetch-Dest") == "document"
}

// again has the browser ask once more, now from here: with the cookie if it has one.
func (x *exchange) again(w http.ResponseWriter) {
	x.show(w, http.StatusOK, "again", &pageData{Title: "One moment", Refresh: 0, Reload: true}, nil)
}

// fail shows a problem. What is not one is the hub's own fault: people learn an ID, the log
// learns the rest.
func (x *exchange) fail(w http.ResponseWriter, err error) {
	p, ok := errors.AsType[*hubapi.Problem](err)
	switch {
	case !ok && x.r.Context().Err() != nil: // nobody reads it, or the hub stops and they must not take silence for success
		p = &hubapi.Problem{Title: "The hub is stopping", Status: http.StatusServiceUnavailable, Reason: hubapi.ReasonUnavailable,
			Detail: "the hub stops and did not finish this"}
	case !ok:
		x.c.Log.Error("a page failed", "id", x.id, "method", x.r.Method, "path", x.r.URL.Path, "error", err)
		p = &hubapi.Problem{Title: "Internal error", Status: http.StatusInternalServerError, Reason: hubapi.ReasonUnavailable,
			Detail: "the hub could not do it; its log has the cause under request " + x.id}
	}
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	if x.r.Header.Get("Hx-Request") != "" { // the page stays as it is, whatever part of it was asked for
		h := w.Header()
		h.Set("Hx-Retarget", "#notices")
		h.Set("Hx-Reswap", "beforeend")
		h.Set("Hx-Reselect", "[data-notice]")
		h.Set("Hx-Push-Url", "false")
		x.notice(w, p.Status, notice{Bad: true, Title: p.Title, Text: p.Detail})
		return
	}
	d := &pageData{Title: p.Title}
	if p.Status == http.StatusServiceUnavailable && x.r.Method == http.MethodGet {
		d.Reload, d.Refresh = true, 3 // it starts, or is being restarted
	}
	x.show(w, p.Status, "problem", d, p)
}

// show writes a page around a part that is not live.
func (x *exchange) show(w http.ResponseWriter, code int, name string, d *pageData, data any) {
	var b bytes.Buffer
	err := x.render.part(&b, name, data)
	if err == nil {
		x.dress(d)
		d.Body = html(b.String())
		b.Reset()
		err = x.render.part(&b, "page", d)
	}
	if err != nil {
		x.c.Log.Error("a page cannot be shown", "id", x.id, "name", name, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	x.write(w, code, b.Bytes())
}

// write sends HTML, packed where the reader takes it. Nothing in a page is secret to its
// reader and chosen by somebody else at once, so its length tells nothing.
func (x *exchange) write(w http.ResponseWriter, code int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Add("Vary", "Accept-Encoding")
	if len(body) > 2048 && packs(x.r) {
		body = packed(body, gzip.BestSpeed)
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body) // the reader left
}

// ping tells the page's script whether the hub is there and the session holds.
func ping(_ *exchange, w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}
