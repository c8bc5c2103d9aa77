package bus

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"selvedge/schema/wire"
)

func TestNodeTalks(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "gw-1")
	if err := n.Publish(wire.StatusSubject("gw-1"), []byte("up")); err != nil {
		t.Fatal(err)
	}
	n.Publish(wire.EventsSubject("gw-1"), []byte("started"))
	h.until(t, "status and event", func() bool { return len(h.statuses["gw-1"]) == 1 && len(h.events["gw-1"]) == 1 })

	n.answer(t, wire.VerbRestart, func(m *nats.Msg) any { return wire.Answer{Message: "heard " + string(m.Data)} })
	var a wire.Answer
	if err := h.Request(t.Context(), "gw-1", wire.VerbRestart, wire.RestartRequest{App: "web"}, &a); err != nil || !strings.Contains(a.Message, `"web"`) {
		t.Fatal(a, err)
	}
	notices := make(chan string, 1)
	n.Subscribe(wire.RequestSubject("gw-1", wire.VerbNotice), func(m *nats.Msg) { notices <- string(m.Data) })
	n.flush(t)
	if err := h.Notify("gw-1", wire.VerbNotice, wire.Notice{Generation: 7}); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, "notice", notices); got != `{"generation":7}` {
		t.Error(got)
	}
	n.Close()
	h.untilThere(t, "gw-1", false)
	err := h.Request(t.Context(), "gw-1", wire.VerbRestart, nil, &a)
	var gone *NotConnected
	if !errors.Is(err, ErrOffline) || !errors.As(err, &gone) || gone.Node != "gw-1" {
		t.Error(err)
	}
}

func TestNodeDoesNotAnswer(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "gw-1")
	n.Subscribe(wire.RequestSubject("gw-1", ">"), func(m *nats.Msg) {
		if strings.HasSuffix(m.Subject, "junk") {
			m.Respond([]byte("junk"))
		}
	})
	n.flush(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var a wire.Answer
	if err := h.Request(ctx, "gw-1", wire.VerbRestart, nil, &a); !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
	if err := h.Request(t.Context(), "gw-1", "junk", nil, &a); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Error(err)
	}
	if err := h.Request(t.Context(), "gw-1", "x", strings.Repeat("x", wire.MaxRequest), &a); err == nil {
		t.Error("a huge request was sent")
	}
	for _, name := range []string{"*", ">", "a.b", "", "A"} {
		if err := h.Request(t.Context(), name, "x", nil, &a); err == nil || errors.Is(err, ErrOffline) {
			t.Errorf("request to %q: %v", name, err)
		}
		if _, err := h.NodeToken(name, n.key, time.Hour); err == nil {
			t.Errorf("a token for %q", name)
		}
	}
}

func TestNotReady(t *testing.T) {
	b, err := New(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Notify("a", "x", nil); err != ErrNotReady {
		t.Error(err)
	}
	if _, err := b.Bucket(t.Context(), "x", 0); err != ErrNotReady {
		t.Error(err)
	}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	one, err := loadKeys(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "keys", keysFile)
	for path, want := range map[string]os.FileMode{filepath.Dir(name): 0o700, name: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	two, err := loadKeys(filepath.Join(dir, "keys"))
	if err != nil || one.accountID != two.accountID || one.signerID != two.signerID || one.routes != two.routes {
		t.Error("other keys at the second start", err)
	}
	good, _ := os.ReadFile(name)
	other, _ := makeKeys()
	otherKeys, _ := parseKeys(other)
	for what, bad := range map[string]string{
		"empty":           "",
		"a user's seed":   strings.Replace(string(good), `"signer": "SA`, `"signer": "SU`, 1),
		"another account": strings.Replace(string(good), one.accountJWT, otherKeys.accountJWT, 1),
		"another system":  strings.Replace(string(good), one.systemJWT, otherKeys.systemJWT, 1),
		"no password":     strings.Replace(string(good), one.routes, "", 1),
	} {
		os.WriteFile(name, []byte(bad), 0o600)
		if _, err := loadKeys(filepath.Dir(name)); err == nil {
			t.Error(what, "was taken")
		}
	}
	os.WriteFile(name, good, 0o600)
	os.Chmod(name, 0o644)
	if _, err := loadKeys(filepath.Dir(name)); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Error(err)
	}
}

func TestBucketSurvives(t *testing.T) {
	c := Config{Dir: t.TempDir()}
	h := start(t, c)
	kv, err := h.Bucket(t.Context(), "nonces", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Create(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Create(t.Context(), "a", []byte("2")); err == nil {
		t.Error("made twice")
	}
	h.stop()
	h = start(t, c)
	if kv, err = h.Bucket(t.Context(), "nonces", time.Hour); err != nil {
		t.Fatal(err)
	}
	e, err := kv.Get(t.Context(), "a")
	if err != nil || string(e.Value()) != "1" {
		t.Error(e, err)
	}
}

func TestSplitServers(t *testing.T) {
	for text, ok := range map[string]bool{
		"": true, "wss://a:1": true, "wss://a:1,tls://a:2": true, "nats://a:1": false, "http://a": false,
		"wss://u:p@a:1": false, "wss://a:1/x": false, "a:1": false,
	} {
		var all []string
		if text != "" {
			all = strings.Split(text, ",")
		}
		if _, _, err := splitServers(all); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestPlainServers: traffic that strangers could read is told of, and only that.
func TestPlainServers(t *testing.T) {
	nodes, own, err := splitServers([]string{"ws://127.0.0.1:8080", "ws://10.0.0.1:8080", "wss://10.0.0.2:8080", "nats://localhost:4222", "nats://nats.example:4222", "tls://10.0.0.2:4222"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := plainServers(slices.Concat(nodes, own)), []string{"10.0.0.1:8080", "nats.example:4222"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := plainServers(append(nodes[1:2:2], nodes[1])); len(got) != 1 {
		t.Errorf("one is told of twice: %v", got)
	}
}
