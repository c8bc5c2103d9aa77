package ops_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/audit"
	"selvedge/reconciler/hub/ops"
	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
)

func problemOf(t testing.TB, err error) *hubapi.Problem {
	t.Helper()
	p, ok := errors.AsType[*hubapi.Problem](err)
	if !ok {
		t.Fatalf("%v is no problem", err)
	}
	return p
}

// operations are the methods of Ops that take a Caller, with arguments that root may use.
// Each ends what it opened.
func operations(t testing.TB) map[string][]any {
	known := map[string][]any{
		"Whoami": {}, "Summary": {}, "Nodes": {ops.Query{}}, "Instances": {ops.Query{}}, "Apps": {ops.Query{}},
		"Node": {"mu-1"}, "NodeEvents": {"mu-1", ops.EventQuery{}}, "Events": {ops.EventQuery{}}, "Metrics": {"mu-1", time.Time{}},
		"Changes": {10, ""}, "Change": {strings.Repeat("1", 40)}, "Watch": {ops.Query{Initial: true}}, "Guides": {},
		"Logs": {"mu-1", ops.LogOptions{App: "web"}}, "Exec": {"mu-1", ops.ExecOptions{App: "web", Command: []string{"id"}}},
		"Restart":    {"mu-1", hubapi.RestartRequest{App: "web"}},
		"JoinTokens": {hubapi.JoinTokenRequest{Guide: "folders/munich/line-1/box"}},
		"Pending":    {}, "DropPending": {"AAAA-BBBB"}, "Audit": {ops.AuditQuery{}},
	}
	found := map[string][]any{}
	for m := range reflect.TypeFor[*ops.Ops]().Methods() {
		takes := false
		for p := range m.Type.Ins() {
			takes = takes || p == reflect.TypeFor[ops.Caller]()
		}
		if !takes {
			if m.Name != "Authenticate" && m.Name != "Collectors" {
				t.Errorf("Ops.%s takes no Caller: nobody is asked whether it may be done", m.Name)
			}
			continue
		}
		args, ok := known[m.Name]
		if !ok {
			t.Errorf("Ops.%s is not in this test: add it", m.Name)
			continue
		}
		found[m.Name] = args
	}
	return found
}

// call calls an operation and returns what it gives, as JSON where it can be, and its error.
func call(t testing.TB, o *ops.Ops, name string, c ops.Caller, args []any) (answer string, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in := []reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(c)}
	for _, a := range args {
		in = append(in, reflect.ValueOf(a))
	}
	out := reflect.ValueOf(o).MethodByName(name).Call(in)
	err, _ = out[len(out)-1].Interface().(error)
	var given []any
	for _, v := range out[:len(out)-1] {
		switch v := v.Interface().(type) {
		case *ops.Stream:
			if v != nil {
				_, data, err := v.Next(ctx)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				given = append(given, string(data))
				v.Close()
			}
		case <-chan hubapi.Update:
			for more := v != nil; more; { // up to the summary, which comes after the nodes
				u, ok := <-v
				given, more = append(given, u), ok && u.Summary == nil
			}
		case func() error:
		default:
			if err == nil || !reflect.ValueOf(v).IsZero() {
				given = append(given, v)
			}
		}
	}
	b, merr := json.Marshal(given)
	if merr != nil {
		t.Fatal(merr)
	}
	return string(b), err
}

// TestNobody calls every operation with callers who have no right to it, and with one who has.
func TestNobody(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	revoked := w.Caller(t, "admin")
	w.ChangeFleet(t, func(f *roster.Fleet) {
		f.Identities["admin"].Tokens["other"] = roster.Token{Hash: access.Hash(opstest.Token("second")), Expires: time.Now().Add(time.Hour)}
		delete(f.Identities["admin"].Tokens, "laptop")
	})
	forged := ops.Caller{Subject: access.Subject{Kind: "user", Name: "root"}, Token: "laptop", Expires: time.Now().Add(time.Hour)}
	callers := map[string]ops.Caller{"the zero caller": {}, "one made by hand": forged, "one whose token was revoked": revoked, "one without a role": w.Caller(t, "nobody")}
	for name, args := range operations(t) {
		for who, c := range callers {
			answer, err := call(t, w.Ops, name, c, args)
			if name == "Whoami" && who == "one without a role" {
				if err != nil || !strings.Contains(answer, `"roles":[]`) {
					t.Errorf("Whoami for %s: %s, %v", who, answer, err)
				}
				continue
			}
			if err == nil || answer != "[]" && answer != "null" {
				t.Errorf("%s for %s: %s, %v", name, who, answer, err)
				continue
			}
			p := problemOf(t, err)
			if want := map[bool]int{true: http.StatusForbidden, false: http.StatusUnauthorized}[who == "one without a role"]; p.Status != want {
				t.Errorf("%s for %s: %d, want %d", name, who, p.Status, want)
			}
			for _, leak := range []string{"mu-1", "munich", "secret words"} {
				if strings.Contains(p.Detail, leak) {
					t.Errorf("%s for %s tells of %q: %s", name, who, leak, p.Detail)
				}
			}
		}
	}
	if asked := node.Requests(); len(asked) > 0 {
		t.Errorf("the node was asked: %q", asked)
	}
	for name, args := range operations(t) {
		answer, err := call(t, w.Ops, name, w.Caller(t, "root"), args)
		if name == "DropPending" { // nobody waits
			if p := problemOf(t, err); p.Status != http.StatusNotFound {
				t.Error(err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s for root: %s, %v", name, answer, err)
		}
	}
	if asked := node.Requests(); len(asked) != 3 {
		t.Errorf("the node was asked: %q", asked)
	}
}

// TestElsewhere calls every operation as a viewer of another folder: nothing of Munich
// exists for them, and no answer tells of it.
func TestElsewhere(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	w.Join(t, "mu-1")
	w.Join(t, "be-1")
	for name, args := range operations(t) {
		answer, err := call(t, w.Ops, name, w.Caller(t, "berlin"), args)
		if err != nil {
			p := problemOf(t, err)
			answer += strings.ReplaceAll(p.Detail+p.Scope, `"mu-1"`, "") // what was asked for may be named
			if len(args) > 0 && args[0] == "mu-1" && (p.Status != http.StatusNotFound || p.Needs != "") {
				t.Errorf("%s: %+v", name, p)
			}
		} else if len(args) > 0 && args[0] == "mu-1" {
			t.Errorf("%s succeeds", name)
		}
		for _, leak := range []string{"mu-", "munich", "secret words"} {
			if strings.Contains(answer, leak) && !strings.Contains(answer, "accessGuide") {
				t.Errorf("%s tells of %q: %s", name, leak, answer)
			}
		}
	}
	// the same words as for what does not exist
	_, no := w.Node(t.Context(), w.Caller(t, "berlin"), "mu-9")
	_, hidden := w.Node(t.Context(), w.Caller(t, "berlin"), "mu-1")
	if a, b := no.Error(), hidden.Error(); strings.ReplaceAll(a, "mu-9", "") != strings.ReplaceAll(b, "mu-1", "") {
		t.Errorf("%q differs from %q", a, b)
	}
	l, err := w.Nodes(t.Context(), w.Caller(t, "berlin"), ops.Query{Visible: func(string) bool { return true }})
	if err != nil || len(l.Items) != 1 || l.Items[0].Name != "be-1" {
		t.Errorf("%+v, %v", l, err)
	}
	s, err := w.Summary(t.Context(), w.Caller(t, "viewer"))
	if err != nil || s.Nodes != 3 || len(s.Problems) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestMayNot tries what is seen and not allowed.
func TestMayNot(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	ctx := t.Context()
	exec := ops.ExecOptions{App: "web", Command: []string{"id"}}
	do := map[string]func(who, node string) error{
		"exec": func(who, node string) error { _, err := w.Exec(ctx, w.Caller(t, who), node, exec); return err },
		"logs": func(who, node string) error {
			_, err := w.Logs(ctx, w.Caller(t, who), node, ops.LogOptions{App: "web"})
			return err
		},
		"restart": func(who, node string) error {
			return w.Restart(ctx, w.Caller(t, who), node, hubapi.RestartRequest{App: "web"})
		},
		"token": func(who, guide string) error {
			_, err := w.JoinTokens(ctx, w.Caller(t, who), hubapi.JoinTokenRequest{Guide: guide})
			return err
		},
	}
	for _, c := range []struct {
		op, who, what string
		reason, needs string
		says          string
	}{
		{"exec", "viewer", "mu-1", hubapi.ReasonForbidden, "editor", "user:viewer is viewer at folders/munich; exec needs editor at folders/munich/line-1, by roleBinding at folders/munich/line-1 or above"},
		{"exec", "narrow", "mu-1", hubapi.ReasonForbidden, "editor", "bound to role viewer"},
		{"exec", "narrow", "be-1", hubapi.ReasonNotFound, "", "no node"},
		{"restart", "viewer", "mu-1", hubapi.ReasonForbidden, "editor", ""},
		{"token", "viewer", "box", hubapi.ReasonForbidden, "editor", ""},
		{"token", "root", "box", hubapi.ReasonInvalid, "", "folders/berlin/line-2/box, folders/munich/line-1/box"},
		{"token", "editor", "folders/berlin/line-2/box", hubapi.ReasonNotFound, "", ""},
		{"exec", "editor", "mu-2", hubapi.ReasonDenied, "", "write `remote: exec: true` into node: \"mu-2\" in workspace folders/munich/line-1"},
		{"logs", "viewer", "mu-2", hubapi.ReasonDenied, "", "remote: logs: true"},
		{"restart", "editor", "mu-2", hubapi.ReasonDenied, "", "remote: restart: true"},
		{"exec", "editor", "mu-3", hubapi.ReasonOffline, "", "no identity"},
		{"exec", "root", "be-1", hubapi.ReasonOffline, "", "not connected"},
		{"restart", "root", "be-1", hubapi.ReasonOffline, "", "not connected"},
	} {
		p := problemOf(t, do[c.op](c.who, c.what))
		if p.Reason != c.reason || p.Needs != c.needs || !strings.Contains(p.Detail, c.says) {
			t.Errorf("%s %s by %s: %+v", c.op, c.what, c.who, p)
		}
	}
	if asked := node.Requests(); len(asked) > 0 {
		t.Errorf("the node was asked: %q", asked)
	}
	for what, x := range map[string]ops.ExecOptions{
		"no command": {App: "web"}, "no app": {Command: []string{"id"}}, "an unknown app": {App: "db", Command: []string{"id"}}, "a zero byte": {App: "web", Command: []string{"a\x00b"}},
		"a long command": {App: "web", Command: []string{strings.Repeat("x", 1<<20)}}, "an odd container": {App: "web", Container: "../x", Command: []string{"id"}},
	} {
		if _, err := w.Exec(ctx, w.Caller(t, "root"), "mu-1", x); err == nil || problemOf(t, err).Status >= 500 {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, r := range map[string]hubapi.JoinTokenRequest{"too long": {Guide: "x", TTL: "25h"}, "no duration": {Guide: "x", TTL: "soon"}, "too many": {Guide: "x", Count: 1001}, "negative": {Guide: "x", Count: -1}} {
		if _, err := w.JoinTokens(ctx, w.Caller(t, "root"), r); problemOf(t, err).Reason != hubapi.ReasonInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAudited does something of everything and reads what was written down.
func TestAudited(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	ctx := t.Context()
	c := w.Caller(t, "editor")
	c.Request = "req-1"
	s, err := w.Exec(ctx, c, "mu-1", ops.ExecOptions{App: "web", Command: []string{"id", "-u"}})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, _, err = s.Next(ctx)
	}
	if s.ExitCode() != 3 {
		t.Errorf("exit code %d, %v", s.ExitCode(), err)
	}
	s.Close()
	if err := w.Restart(ctx, c, "mu-1", hubapi.RestartRequest{App: "web", Container: "nginx"}); err != nil {
		t.Fatal(err)
	}
	j, err := w.JoinTokens(ctx, c, hubapi.JoinTokenRequest{Guide: "box", Count: 3, TTL: "10m"})
	if err != nil || len(j.Tokens) != 3 || j.Hub != opstest.Hub || j.CA == "" || j.Fingerprint == "" {
		t.Fatalf("%+v, %v", j, err)
	}
	if _, err := w.Exec(ctx, w.Caller(t, "viewer"), "mu-1", ops.ExecOptions{App: "web", Command: []string{"id"}}); err == nil {
		t.Fatal("a viewer runs a command")
	}
	var told []string
	entries, next, err := w.Ops.Audit(ctx, w.Caller(t, "admin"), ops.AuditQuery{})
	if err != nil || next != 0 {
		t.Fatal(err)
	}
	for _, e := range slices.Backward(entries) {
		told = append(told, e.Subject+" "+e.Operation+" "+e.Outcome+" "+e.Scope+" "+e.Node+" "+strings.Join(e.Command, " "))
		if e.Remote != "192.0.2.7:4711" || e.Token != "laptop" {
			t.Errorf("%+v", e)
		}
		if strings.Contains(e.Detail, j.Tokens[0]) {
			t.Error("the audit log has a join token")
		}
	}
	const at = " folders/munich/line-1 "
	want := []string{
		"user:editor exec begun" + at + "mu-1 id -u", "user:editor exec done" + at + "mu-1 ",
		"user:editor restart begun" + at + "mu-1 ", "user:editor restart done" + at + "mu-1 ",
		"user:editor joinTokens begun" + at + " ", "user:editor joinTokens done" + at + " ",
		"user:viewer exec refused" + at + "mu-1 id",
	}
	if !slices.Equal(told, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
	if asked := node.Requests(); len(asked) != 2 || !strings.Contains(asked[0], `"by":"user:editor"`) {
		t.Errorf("%q", asked)
	}
	if _, _, err := w.Ops.Audit(ctx, w.Caller(t, "editor"), ops.AuditQuery{}); problemOf(t, err).Needs != "admin" {
		t.Error("an editor reads the audit log")
	}
	if r, err := audit.Verify(w.AuditPath); err != nil || r.Broken != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestNotAudited holds that nothing is done that cannot be written down.
func TestNotAudited(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	w.Audit.Close()
	c, ctx := w.Caller(t, "root"), t.Context()
	_, exec := w.Exec(ctx, c, "mu-1", ops.ExecOptions{App: "web", Command: []string{"id"}})
	_, logs := w.Logs(ctx, c, "mu-1", ops.LogOptions{Agent: true})
	_, token := w.JoinTokens(ctx, c, hubapi.JoinTokenRequest{Guide: "folders/munich/line-1/box"})
	for what, err := range map[string]error{"exec": exec, "logs": logs, "token": token, "restart": w.Restart(ctx, c, "mu-1", hubapi.RestartRequest{App: "web"})} {
		if p := problemOf(t, err); p.Status != http.StatusServiceUnavailable || !strings.Contains(p.Detail, "cannot be written into the audit log") {
			t.Errorf("%s: %+v", what, p)
		}
	}
	if asked := node.Requests(); len(asked) > 0 {
		t.Errorf("the node was asked: %q", asked)
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(w.Collectors()...)
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.GetName() == "selvedge_hub_audit_failures_total" && m.GetMetric()[0].GetCounter().GetValue() != 4 {
			t.Errorf("%v", m)
		}
	}
	if _, err := w.Nodes(ctx, c, ops.Query{}); err != nil {
		t.Error("looking at the fleet needs no audit:", err)
	}
}

func TestAuthenticate(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	for range 50 {
		_, err := w.Authenticate(opstest.Token("wrong"), "198.51.100.1:1")
		if p := problemOf(t, err); p.Status != http.StatusUnauthorized && p.Status != http.StatusTooManyRequests {
			t.Fatal(err)
		}
	}
	_, err := w.Authenticate(opstest.Token("wrong"), "198.51.100.1:2")
	if p := problemOf(t, err); p.Status != http.StatusTooManyRequests {
		t.Error("guessing is not slowed:", err)
	}
	if _, err := w.Authenticate(opstest.Token("wrong"), "198.51.100.2:2"); problemOf(t, err).Status != http.StatusUnauthorized {
		t.Error("another address pays for it:", err)
	}
	if _, err := w.Authenticate(opstest.Token("root"), "198.51.100.1:3"); err != nil {
		t.Error("who has a token is locked out by who guesses from the same address:", err)
	}
	if _, err := w.Authenticate(opstest.Token("expired"), "203.0.113.1:1"); problemOf(t, err).Status != http.StatusUnauthorized || !strings.Contains(err.Error(), "expired") {
		t.Error(err)
	}
}

// TestRestartOfASilentNode needs an answer that tells what may be the case, and where to look.
func TestRestartOfASilentNode(t *testing.T) {
	w := opstest.New(t, opstest.Config{Ops: func(c *ops.Config) { c.RestartTime = 100 * time.Millisecond }})
	n := w.Join(t, "mu-1")
	n.Silent.Store(true)
	app := opstest.Nodes()["mu-1"].Apps[0]
	err := w.Restart(t.Context(), w.Caller(t, "editor"), "mu-1", hubapi.RestartRequest{App: app})
	p, ok := errors.AsType[*hubapi.Problem](err)
	if !ok || p.Reason != hubapi.ReasonTimeout || !strings.Contains(p.Detail, "selvedge node show mu-1") {
		t.Errorf("%v", err)
	}
}
