package fleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"selvedge/schema/hubapi"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
	"selvedge/test/swarm"
)

// lived needs a hub that did not panic, did not grow, and works.
func (b *bed) lived(before int64) {
	b.t.Helper()
	if code, text := b.ask("GET", "/healthz", "", nil); code != 200 {
		b.t.Errorf("the hub afterwards: %d %s", code, text)
	}
	if log := b.log.Tail(64 << 20); strings.Contains(log, "panic") || strings.Contains(log, "goroutine ") {
		b.t.Errorf("the hub's log tells of a panic:\n%.3000s", log[max(0, strings.Index(log, "panic")-200):])
	}
	grown := rss(b.t, b.hub.Process.Pid) - before
	b.t.Logf("the hub grew by %d MB", grown>>20)
	if grown > 150<<20 {
		b.t.Errorf("the hub grew by %d MB", grown>>20)
	}
}

// routes are the API's, as the document that the hub serves has them, and the others.
func (b *bed) routes() (all [][2]string) {
	b.t.Helper()
	code, text := b.ask("GET", "/api/v1/openapi.json", "", nil)
	if code != 200 {
		b.t.Fatal(code, text)
	}
	var doc struct {
		Servers []struct{ URL string }
		Paths   map[string]map[string]any
	}
	must(b.t, json.Unmarshal([]byte(text), &doc))
	base := ""
	if len(doc.Servers) > 0 {
		base = doc.Servers[0].URL
	}
	for path, methods := range doc.Paths {
		if !strings.HasPrefix(path, base) {
			path = base + path
		}
		for method := range methods {
			if m := strings.ToUpper(method); m == "GET" || m == "POST" || m == "DELETE" || m == "PUT" {
				all = append(all, [2]string{m, path})
			}
		}
	}
	if len(all) < 20 {
		b.t.Fatalf("the document has %d routes only: %v", len(all), all)
	}
	for _, r := range []string{"GET " + wire.PathNonce, "POST " + wire.PathToken, "POST " + wire.PathJoin, "GET " + wire.PathTrust, "GET " + wire.PathBus, "GET " + wire.PathV2,
		"GET /v2/{repository}/manifests/{reference}", "GET /v2/{repository}/blobs/{digest}", "GET /v2/{repository}/tags/list", "GET /v2/{repository}/referrers/{digest}",
		"GET /metrics", "GET /healthz", "GET /", "POST /signin", "GET /nodes/{node}", "GET /changes/{commit}", "GET /assets/{name}"} {
		method, path, _ := strings.Cut(r, " ")
		all = append(all, [2]string{method, path})
	}
	return all
}

// TestJunkOnEveryRoute sends what is malformed and what is too large to every route, with and
// without a right to be there.
func TestJunkOnEveryRoute(t *testing.T) {
	b := newBed(t, 2)
	b.swarm(swarm.Config{Members: b.members("node-0"), Granted: nodestate.Remote{Restart: true}})
	routes := b.routes()
	before := rss(t, b.hub.Process.Pid)
	long := strings.Repeat("x", 7<<10)
	segments := []string{"node-0", "%00", "%2e%2e", "..%2f..%2fetc", "%ff%fe", long, "*", ">", "n.node-0", "%F0%9F%92%A9", "%0d%0aX:%20y"}
	queries := []string{"", "limit=-1", "limit=999999999999999999999", "limit=x", "continue=%00%ff", "continue=" + long, "labels=a%3D%3D%3Db,,,(", "since=never", "tail=x", "follow=maybe",
		"unknown=1", "status=Nonsense", "sort=;drop", "q=%ff", "app=" + long, "command=", "rows=-1&columns=99999999", "%zz=%", "a;b", "&&&===", strings.Repeat("limit=1&", 500), "after=-1", "ttl=-1h", "tail=2&tail=3"}
	deep := strings.Repeat("[", 200_000)
	bodies := []string{"", "{", "null", "[]", "7", `"x"`, deep, `{"a":` + deep, "\x00\xff", `{"app":7}`, `{"app":"` + long + `"}`, `{"count":1e99}`, `{"count":-1,"guide":"` + workspace + `/box"}`,
		`{"guide":{}}`, `{"publicKey":[],"nonce":{}}`, strings.Repeat(" ", 3<<20), `{"token":"` + strings.Repeat("A", 2<<20) + `"}`}
	asked, fresh := 0, http.Client{Timeout: patience * 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 4}, // the hub of this test
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer fresh.CloseIdleConnections()
	one := func(method, path, query, token, body string) {
		asked++
		target := b.url + path
		if query != "" {
			target += "?" + query
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience*20*time.Second)
		defer cancel()
		u, err := url.Parse(b.url)
		must(t, err)
		req := (&http.Request{Method: method, URL: u, Header: http.Header{}, Host: u.Host}).WithContext(ctx)
		req.URL.Opaque = "//" + u.Host + path // as it is, not as a library would mend it
		req.URL.RawQuery = query
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		if body != "" {
			req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			req.Header.Set("Content-Type", "application/json")
		}
		res, err := fresh.Do(req)
		if err != nil {
			if strings.Contains(err.Error(), "write:") || strings.Contains(err.Error(), "closed") || strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), "GOAWAY") {
				return // it was turned away in the middle of what it sent
			}
			t.Errorf("%s %.200s: %v", method, target, err)
			return
		}
		defer res.Body.Close()
		if res.Header.Get("Content-Type") == "text/event-stream" || strings.Contains(path, "/logs") && res.StatusCode == 200 {
			return // a stream: there is no end to wait for
		}
		text, _ := io.ReadAll(io.LimitReader(res.Body, 8<<20))
		if res.StatusCode < 500 {
			return
		}
		var p hubapi.Problem
		_ = json.Unmarshal(text, &p)
		if p.Reason == hubapi.ReasonOffline || res.StatusCode == http.StatusServiceUnavailable && path == wire.PathTrust {
			return // not for what was sent: this bed has no root documents
		}
		t.Errorf("%s %.200s with %.60q: %d %.300s", method, target, body, res.StatusCode, text)
	}
	node := b.bearer("node-0")
	for i, r := range routes {
		method, path := r[0], r[1]
		tokens := []string{b.tokens["ana"], ""}
		if strings.HasPrefix(path, wire.PathV2) {
			tokens = []string{node, ""}
		}
		if testing.Short() {
			tokens = tokens[:1]
		}
		for _, token := range tokens {
			for _, s := range segments {
				if p := fill(path, s); p != path {
					one(method, p, "", token, "")
				}
			}
			plain := fill(path, "node-0")
			for _, q := range queries {
				one(method, plain, q, token, "")
			}
			for j, body := range bodies {
				if method != "GET" || (i+j)%6 == 0 { // bodies that nobody asked for are all alike
					one(method, plain, "", token, body)
				}
			}
			for _, m := range []string{"PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD", "CONNECTED", "PRI"} {
				one(m, fill(path, "nobody"), "", token, "")
			}
		}
		one(method, fill(path, "node-0"), "", long+long+long, "") // a token of 21 KB
		one(method, fill(path, "node-0"), "", "\tselvedge_ \u00e9", "")
	}
	t.Logf("%d requests to %d routes", asked, len(routes))
	b.rawHTTP()
	b.lived(before)
}

// fill puts something in place of a path's parameters.
func fill(path, value string) string {
	for {
		i, j := strings.IndexByte(path, '{'), strings.IndexByte(path, '}')
		if i < 0 || j < i {
			return path
		}
		path = path[:i] + value + path[j+1:]
	}
}

// rawHTTP sends what no HTTP client would.
func (b *bed) rawHTTP() {
	for _, text := range []string{
		"", "\x00\x01\x02", "GET", "GET / HTTP/9.9\r\n\r\n", "GET /bus HTTP/1.1\r\n\r\n", "POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{",
		"POST /auth/join HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "POST /auth/join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"POST /auth/join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
		"GET /bus HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 10000) + "\r\n", "GET /" + strings.Repeat("x", 1<<20),
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 1000),
	} {
		for _, proto := range []string{"http/1.1", "h2"} {
			c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience * 5 * time.Second}, "tcp", b.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}}) // the hub of this test
			must(b.t, err)
			_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
			_, _ = io.WriteString(c, text)
			got, _ := io.ReadAll(io.LimitReader(c, 64<<10))
			c.Close()
			if bytes.HasPrefix(got, []byte("HTTP/1.1 5")) && !bytes.HasPrefix(got, []byte("HTTP/1.1 501")) && !bytes.HasPrefix(got, []byte("HTTP/1.1 505")) {
				b.t.Errorf("%.60q: %.200s", text, got)
			}
		}
	}
}

// TestJunkOnEverySubject sends what is malformed and what is too large wherever a node may
// speak, and as far as a stranger gets.
func TestJunkOnEverySubject(t *testing.T) {
	b := newBed(t, 2)
	b.swarm(swarm.Config{Members: b.members("node-1"), Interval: 300 * time.Millisecond})
	before := rss(t, b.hub.Process.Pid)
	deep := bytes.Repeat([]byte("["), wire.MaxMessage-1)
	many, err := json.Marshal(wire.Events{Node: "node-0", Epoch: "raw", Events: make([]wire.Event, 5000)})
	must(t, err)
	apps := wire.Status{Node: "node-0", Epoch: "raw", Seq: 1}
	for i := range 3000 {
		apps.Apps = append(apps.Apps, wire.App{Name: fmt.Sprint("a", i), Containers: []wire.Instance{{Name: "c"}}})
	}
	crowded, err := json.Marshal(apps)
	must(t, err)
	junk := [][]byte{nil, {0}, []byte("null"), []byte("[]"), []byte("7"), []byte("{"), []byte(`{"node":7}`), []byte(`{"node":"node-0","seq":-1}`), []byte(`{"node":"node-0","seq":1e400}`),
		[]byte(`{"node":"node-0","epoch":"` + strings.Repeat("e", 100<<10) + `"}`), []byte(`{"node":"node-0","epoch":"raw","seq":1,"time":"never"}`),
		[]byte(`{"node":"node-0","epoch":"raw","seq":2,"time":"9999-12-31T23:59:59Z","usage":{"cpu":1e308,"memory":-9223372036854775808}}`),
		[]byte(`{"node":"node-0","epoch":"raw","seq":3,"apps":null,"conditions":[{"type":"\u0000","message":"\u001b[2J"}]}`),
		bytes.Repeat([]byte("x"), wire.MaxMessage), deep, many, crowded, {wire.FrameOut}, {wire.FrameEnd, '{'}, {'?'}, append([]byte{wire.FrameOut}, deep...)}
	subjects := []string{wire.StatusSubject("node-0"), wire.EventsSubject("node-0"), wire.StreamSubject("node-0", "x"), wire.StreamSubject("node-0", "x.y.z"), wire.StreamSubject("node-0", strings.Repeat("s", 3000))}
	nc, errs := b.raw("node-0")
	for _, subject := range subjects {
		for _, j := range junk {
			must(t, nc.Publish(subject, j))
			must(t, nc.PublishRequest(subject, wire.InboxPrefix("node-0")+".x", j))
		}
		must(t, nc.FlushTimeout(10*time.Second))
	}
	select {
	case err := <-errs:
		t.Error("the bus minds what a node may say:", err)
	default:
	}
	must(t, nc.Publish(wire.StatusSubject("node-0"), status("node-0", 1<<30, "sensible")))
	b.until(20*time.Second, "a sensible status behind all that", func() bool { return b.hostname("node-0") == "sensible" })

	// words that no library says, over the same WebSocket, before and after it is known who speaks
	for _, text := range []string{"\r\n", "PING\r\n", "CONNECT {}\r\nPING\r\n", "CONNECT {\"jwt\":\"x\",\"sig\":\"y\"}\r\n", "CONNECT " + strings.Repeat("[", 60000), strings.Repeat("A", 100_000),
		"PUB n.node-1.st 99999999999\r\n", "PUB n.node-1.st -1\r\n", "SUB > 1\r\nPING\r\n", "HPUB a 5 1\r\n", "INFO {}\r\n", "\x00\xff\xfe"} {
		conn, _, err := websocket.Dial(t.Context(), b.url+wire.PathBus, &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}}) // the hub of this test
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		conn.SetReadLimit(1 << 20)
		_ = conn.Write(ctx, websocket.MessageBinary, []byte(text))
		for {
			_, got, err := conn.Read(ctx)
			if err != nil {
				break
			}
			if bytes.HasPrefix(got, []byte("PONG")) {
				t.Errorf("%.40q is answered to a stranger", text)
			}
		}
		conn.CloseNow()
		cancel()
	}
	since := time.Now()
	b.until(10*time.Second, "the other node to go on", func() bool { return b.node("node-1").LastSeen.After(since) })
	b.lived(before)
}
