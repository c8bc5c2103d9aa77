package verify_test

import (
	"testing"

	"selvedge/edge/verify"
	"selvedge/edge/verify/verifytest"
	"selvedge/schema/nodestate"
)

// sample is a state of a usual size.
func sample(key string) nodestate.State {
	container := nodestate.Container{
		Name: "web", Image: "registry.example/hmi@sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
		Network: "bridge", Restart: "always", StopSignal: "SIGTERM", StopMS: 10000, LogBytes: 1 << 20, LogFiles: 3,
		Env:   map[string]string{"SITE": "1", "LEVEL": "info"},
		Ports: []nodestate.Port{{Name: "http", Container: 8080, Host: 18080, Protocol: "tcp", Address: "127.0.0.1"}},
		Probe: &nodestate.Probe{HTTP: &nodestate.HTTPProbe{Port: 8080, Path: "/healthz"}, IntervalMS: 5000, TimeoutMS: 1000, Failures: 3},
	}
	s := verifytest.Fill(nodestate.State{Identity: nodestate.Identity{PublicKey: key}})
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
		s.Apps = append(s.Apps, nodestate.App{Name: name, DeadlineMS: 60000, Containers: []nodestate.Container{container}})
	}
	return s
}

func TestASignedStateIsAccepted(t *testing.T) {
	cloud, key := verifytest.NewCloud(t), verifytest.NewKey(t)
	want := sample(key.Public())
	raw := cloud.Sign(t, want, 7)
	got, err := cloud.Verifier(want).Verify(raw, verify.Floor{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	content, _ := want.Canonical()
	if d := got.Desired(); d.Node != "gw-1" || len(d.Apps) != 10 || got.Generation() != 7 || got.ContentDigest() != nodestate.Digest(content) ||
		got.Commit() == "" || got.Created() == "" || string(got.Raw()) != string(raw) || got.Signer() != verifytest.Hint(t, cloud.Key) || got.IsZero() {
		t.Errorf("state %+v", d)
	}
	if _, err := cloud.Verifier(want).Verify(raw, got.Floor(), nil); err != nil {
		t.Errorf("the same again: %v", err)
	}
}

func BenchmarkVerify(b *testing.B) {
	cloud, key := verifytest.NewCloud(b), verifytest.NewKey(b)
	want := sample(key.Public())
	raw, v := cloud.Sign(b, want, 7), cloud.Verifier(want)
	content, _ := want.Canonical()
	b.ReportMetric(float64(len(content)), "content-B")
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(raw, verify.Floor{}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
