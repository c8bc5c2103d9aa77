package store

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"selvedge/edge/pull"
	"selvedge/edge/verify"
	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
)

// node pulls, verifies and keeps, as the agent does.
type node struct {
	fleet
	s    *Store
	p    *pull.Client
	root *trust.Root
}

// pass is one pass of the agent: what it pulls it verifies, and what it accepts it keeps.
func (n *node) pass(t *testing.T) (verify.State, error) {
	r, err := n.p.State(t.Context(), "")
	if err != nil {
		return verify.State{}, err
	}
	v := verify.Verifier{Node: "gw-1", PublicKey: n.key.Public(), Root: n.root}
	st, err := v.Verify(r.Signed, n.s.Floor(), n.s.Rejected)
	var e *verify.Error
	if errors.As(err, &e) && e.Reason == verify.WrongKey { // the key may be newer than our root document
		docs, trustErr := n.p.Trust(t.Context())
		if trustErr != nil {
			return verify.State{}, errors.Join(err, trustErr)
		}
		if n.root, trustErr = trust.Walk(n.root, docs); trustErr != nil {
			return verify.State{}, errors.Join(err, trustErr)
		}
		must(t, n.s.SaveRoot(docs))
		v.Root = n.root
		st, err = v.Verify(r.Signed, n.s.Floor(), n.s.Rejected)
	}
	if err != nil {
		return verify.State{}, err
	}
	must(t, n.s.Contact())
	return st, n.s.SetPending(st)
}

// Over the wire, from a registry in the wrong hands: nothing that it serves changes
// what the node keeps, and the next honest answer is taken.
func TestARegistryInTheWrongHands(t *testing.T) {
	f := newFleet(t)
	stranger := newFleet(t)
	stranger.key = f.key
	other := fleet{f.cloud, newFleet(t).key}
	sign := func(f fleet, g int64) []byte { return f.cloud.Sign(t, f.desired(g), g) }

	var body, roots atomic.Value // []byte; [][]byte
	roots.Store(f.cloud.Docs)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/trust/manifests/latest") {
			w.Write(body.Load().([]byte))
			return
		}
		m := nodestate.Manifest{ArtifactType: nodestate.ArtifactTypeTrust}
		for _, d := range roots.Load().([][]byte) {
			m.Layers = append(m.Layers, nodestate.Describe(nodestate.MediaTypeRoot, d, true))
		}
		w.Write(marshal(t, m))
	}))
	defer server.Close()
	p, err := pull.New(pull.Config{Registry: server.URL, Node: "gw-1"})
	must(t, err)
	defer p.Close()
	n := &node{fleet: f, s: f.open(t, filepath.Join(t.TempDir(), "store")), p: p, root: f.cloud.Root}

	body.Store(sign(f, 5))
	if _, err := n.pass(t); err != nil {
		t.Fatal(err)
	}
	must(t, n.s.Activate())
	must(t, n.s.Commit())
	bad := f.state(t, 6)
	must(t, n.s.SetPending(bad))
	must(t, n.s.Reject(bad.Digest(), "probe failed"))

	newer := sign(f, 9)
	u, err := nodestate.Unpack(newer)
	must(t, err)
	older, err := nodestate.Unpack(sign(f, 4))
	must(t, err)
	mixed := u.Outer
	described := nodestate.Describe(nodestate.MediaTypeManifest, older.Manifest, true)
	mixed.Subject = &described
	again := f.desired(66)
	changed := bytes.Clone(newer)
	if i := bytes.LastIndex(changed, []byte(`"data":"`)) + 200; changed[i] == 'A' { // within the state's manifest, in base64
		changed[i] = 'B'
	} else {
		changed[i] = 'A'
	}
	want := statusOf(t, n.s)
	for _, c := range []struct {
		name   string
		reason verify.Reason
		body   []byte
	}{
		{"an older generation", verify.Rollback, sign(f, 4)},
		{"what it runs already, of a generation below the newest seen", verify.Rollback, sign(f, 5)},
		{"what failed", verify.Rejected, bad.Raw()},
		{"the generation that failed, with another content", verify.Rollback, f.cloud.Sign(t, again, 6)},
		{"signed by a stranger", verify.WrongKey, sign(stranger, 9)},
		{"another node's", verify.OtherNode, sign(other, 9)},
		{"an older manifest under a newer signature", verify.Tampered, marshal(t, mixed)},
		{"a changed byte", verify.Tampered, changed},
		{"cut short", verify.Malformed, newer[:len(newer)/2]},
	} {
		body.Store(c.body)
		_, err := n.pass(t)
		var e *verify.Error
		var pe *pull.Error
		switch {
		case errors.As(err, &e):
			if e.Reason != c.reason {
				t.Errorf("%s: %v, want %s", c.name, err, c.reason)
			}
		case !errors.As(err, &pe) || c.reason != verify.Malformed:
			t.Errorf("%s: %v", c.name, err)
		}
		if strings.Contains(c.name, "stranger") {
			want = statusOf(t, n.s) // asked for trust, and kept the documents
		}
		if got := statusOf(t, n.s); got != want {
			t.Fatalf("%s: the store changed from\n%s\nto\n%s", c.name, want, got)
		}
	}
	n.s = f.reopen(t, n.s)
	body.Store(newer)
	if st, err := n.pass(t); err != nil || st.Generation() != 9 {
		t.Fatalf("the next honest answer: %v", err)
	}
	slotsAre(t, n.s, 5, 9, 5, 9)

	// A freeze shows: contact is fresh, and what is newest here stays behind what was published.
	if st := n.s.Status(); st.Floor.Generation != 9 || st.LastContact.IsZero() {
		t.Errorf("status %+v", st)
	}

	// Off through two rotations: the chain is walked; the key revoked on the way signs no more.
	stolen := *f.cloud
	f.cloud.Rotate(t)
	f.cloud.Rotate(t)
	body.Store(sign(f, 10))
	roots.Store(f.cloud.Docs)
	if st, err := n.pass(t); err != nil || st.Generation() != 10 || n.s.Status().TrustVersion != 3 {
		t.Fatalf("after rotations: %v, %+v", err, n.s.Status())
	}
	body.Store(sign(fleet{&stolen, f.key}, 11))
	var e *verify.Error
	if _, err := n.pass(t); !errors.As(err, &e) || e.Reason != verify.WrongKey {
		t.Errorf("by a stolen, revoked key: %v", err)
	}
	// The old chain again: a root document never goes back, neither here nor in the store.
	roots.Store(stolen.Docs)
	if root, err := trust.Walk(n.root, stolen.Docs); err != nil || root.Version() != 3 {
		t.Errorf("walked back: %v", err)
	}
	if err := n.s.SaveRoot(stolen.Docs); !errors.Is(err, ErrFloor) {
		t.Errorf("an older chain was kept: %v", err)
	}
}
