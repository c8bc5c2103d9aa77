package console

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/url"
	"strings"
	"time"

	"selvedge/schema/hubapi"
)

const (
	// cookie holds the session. The prefix makes browsers refuse one that is not Secure, has
	// another path, or comes from a subdomain.
	cookie    = "__Host-selvedge"
	maxCookie = 512 // characters
	kind      = "selvedge console session 1"
	maxToken  = 256
)

// sealed makes the text of a session: a random nonce, then the sealed expiry and token.
func (s *Console) sealed(token string, expires time.Time) string {
	nonce := make([]byte, s.seal.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	plain := binary.BigEndian.AppendUint64(nil, uint64(expires.Unix()))
	return base64.RawURLEncoding.EncodeToString(s.seal.Seal(nonce, nonce, append(plain, token...), []byte(kind)))
}

// opened returns the token of a session's text.
func (s *Console) opened(text string) (token string, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(text) > maxCookie || len(b) < s.seal.NonceSize() {
		return "", false
	}
	n := s.seal.NonceSize()
	plain, err := s.seal.Open(nil, b[:n], b[n:], []byte(kind))
	if err != nil || len(plain) < 8 || !s.c.Now().Before(time.Unix(int64(binary.BigEndian.Uint64(plain)), 0)) {
		return "", false
	}
	return string(plain[8:]), true
}

func ended() error {
	return &hubapi.Problem{Title: "Not signed in", Status: http.StatusUnauthorized, Reason: hubapi.ReasonUnauthorized, Detail: "sign in first"}
}

// session returns the token of the request's cookie.
func (x *exchange) session() (string, error) {
	c, err := x.r.Cookie(cookie)
	if err != nil {
		return "", ended()
	}
	token, ok := x.opened(c.Value)
	if !ok {
		return "", ended()
	}
	return token, nil
}

// next is where to go after signing in: a page here, and nowhere else.
func next(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\x00\r\n\t") ||
		strings.HasPrefix(u.Path, "/login") || strings.HasPrefix(u.Path, "/live/") || len(to) > 2048 {
		return "/"
	}
	return to
}

// loginData is what the page to sign in shows.
type loginData struct {
	Next    string
	Ended   bool
	Problem *hubapi.Problem
}

func loginPage(x *exchange, w http.ResponseWriter) error {
	to := next(x.r.URL.Query().Get("next"))
	if x.arrived() {
		x.again(w)
		return nil
	}
	if x.enter() == nil && !x.bearer {
		http.Redirect(w, x.r, to, http.StatusSeeOther)
		return nil
	}
	x.caller.Name, x.who = "", hubapi.Whoami{}
	x.show(w, http.StatusOK, "login", &pageData{Title: "Sign in", Bare: true}, loginData{Next: to, Ended: x.r.URL.Query().Get("ended") != ""})
	return nil
}

// login makes a session of a token.
func login(x *exchange, w http.ResponseWriter) error {
	form, err := x.form(w)
	if err != nil {
		return err
	}
	to := next(form.Get("next"))
	token := strings.TrimSpace(form.Get("token"))
	if len(token) > maxToken {
		token = token[:maxToken] // wrong, and counted as such
	}
	c, err := x.c.Ops.Authenticate(token, x.r.RemoteAddr)
	if err != nil {
		p, code := asProblem(err), http.StatusUnauthorized
		if p.Status != 0 {
			code = p.Status
		}
		x.show(w, code, "login", &pageData{Title: "Sign in", Bare: true}, loginData{Next: to, Problem: p})
		return nil
	}
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: x.sealed(token, c.Expires), Path: "/", Expires: c.Expires, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	x.c.Log.Info("signed in to the console", "subject", c.Subject.String(), "token", c.Token, "remote", x.r.RemoteAddr)
	http.Redirect(w, x.r, to, http.StatusSeeOther)
	return nil
}

// logout ends the session of this browser. The token lives on: it is revoked in Git.
func logout(x *exchange, w http.ResponseWriter) error {
	http.SetCookie(w, &http.Cookie{Name: cookie, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	http.Redirect(w, x.r, "/login", http.StatusSeeOther)
	return nil
}
