package verify_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"selvedge/edge/verify"
	"selvedge/edge/verify/verifytest"
	"selvedge/schema/nodestate"
)

// pieces are what a signed manifest is put together from; an attack changes one.
type pieces struct {
	cloud    *verifytest.Cloud
	state    nodestate.State
	verifier verify.Verifier

	content     []byte
	layer       []byte
	manifest    func(m *nodestate.Manifest)
	manifestRaw func(b []byte) []byte // after it was signed
	statement   func(st map[string]any)
	payload     func(b []byte) []byte // signed
	payloadType string
	bundle      func(b map[string]any)
	bundleRaw   func(b []byte) []byte
	outer       func(m *nodestate.Manifest)
	outerRaw    func(b []byte) []byte
	generation  int64
	floor       verify.Floor
	rejected    func(string) bool
}

func newPieces(t testing.TB) *pieces {
	t.Helper()
	p := &pieces{cloud: verifytest.NewCloud(t), generation: 7, payloadType: nodestate.PayloadTypeInToto}
	p.state = sample(verifytest.NewKey(t).Public())
	p.verifier = p.cloud.Verifier(p.state)
	content, err := p.state.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	p.content = content
	return p
}

// build signs and puts together what there is.
func (p *pieces) build(t testing.TB) []byte {
	t.Helper()
	layer := p.layer
	if layer == nil {
		layer = verifytest.Compress(t, p.content)
	}
	m := verifytest.Manifest(p.state.Node, p.generation, layer)
	if p.manifest != nil {
		p.manifest(&m)
	}
	manifest := verifytest.Marshal(t, m)
	st := verifytest.Statement(nodestate.Digest(manifest), p.state.Node, p.generation)
	if p.statement != nil {
		p.statement(st)
	}
	payload := verifytest.Marshal(t, st)
	if p.payload != nil {
		payload = p.payload(payload)
	}
	b := verifytest.Bundle(t, p.cloud.Key, p.payloadType, payload)
	if p.bundle != nil {
		p.bundle(b)
	}
	bundle := verifytest.Marshal(t, b)
	if p.bundleRaw != nil {
		bundle = p.bundleRaw(bundle)
	}
	if p.manifestRaw != nil {
		manifest = p.manifestRaw(manifest)
	}
	o := verifytest.Signed(bundle, manifest)
	if p.outer != nil {
		p.outer(&o)
	}
	outer := verifytest.Marshal(t, o)
	if p.outerRaw != nil {
		outer = p.outerRaw(outer)
	}
	return outer
}

func (p *pieces) verify(t testing.TB) (verify.State, error) {
	t.Helper()
	return p.verifier.Verify(p.build(t), p.floor, p.rejected)
}

func envelope(b map[string]any) map[string]any { return b["dsseEnvelope"].(map[string]any) }
func subject(st map[string]any) map[string]any { return st["subject"].([]any)[0].(map[string]any) }
func replace(old, new string) func([]byte) []byte {
	return func(b []byte) []byte {
		if !bytes.Contains(b, []byte(old)) {
			panic("nothing to replace: " + old)
		}
		return bytes.Replace(b, []byte(old), []byte(new), 1)
	}
}

// modify changes the state's content, keeping it canonical.
func (p *pieces) modify(t *testing.T, change func(s *nodestate.State)) {
	t.Helper()
	s := p.state
	change(&s)
	content, err := s.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	p.content = content
}

func TestAttacks(t *testing.T) {
	for _, c := range []struct {
		name   string
		want   verify.Reason
		attack func(t *testing.T, p *pieces)
	}{
		// keys
		{"wrong key", verify.WrongKey, func(t *testing.T, p *pieces) { p.cloud.Key = verifytest.NewSigningKey(t) }},
		{"wrong key under a listed key's hint", verify.Tampered, func(t *testing.T, p *pieces) {
			hint := verifytest.Hint(t, p.cloud.Key)
			p.cloud.Key = verifytest.NewSigningKey(t)
			p.bundle = func(b map[string]any) {
				b["verificationMaterial"] = map[string]any{"publicKey": map[string]any{"hint": hint}}
			}
		}},
		{"revoked key", verify.WrongKey, func(t *testing.T, p *pieces) {
			old := p.cloud.Key
			p.cloud.Rotate(t)
			p.cloud.Key, p.verifier.Root = old, p.cloud.Root
		}},
		{"a root key signs a state", verify.WrongKey, func(t *testing.T, p *pieces) {
			p.bundle = func(b map[string]any) {
				b["verificationMaterial"] = map[string]any{"publicKey": map[string]any{"hint": p.cloud.Root.RootKeys()[0].Hint}}
			}
		}},
		{"no hint", verify.WrongKey, func(t *testing.T, p *pieces) {
			p.bundle = func(b map[string]any) {
				b["verificationMaterial"] = map[string]any{"publicKey": map[string]any{"hint": ""}}
			}
		}},
		{"no root of trust", verify.NoRoot, func(t *testing.T, p *pieces) { p.verifier.Root = nil }},

		// signature
		{"no signature", verify.Malformed, func(t *testing.T, p *pieces) {
			p.bundle = func(b map[string]any) { envelope(b)["signatures"] = []any{} }
		}},
		{"empty signature", verify.Tampered, func(t *testing.T, p *pieces) {
			p.bundle = func(b map[string]any) { envelope(b)["signatures"] = []any{map[string]any{"sig": ""}} }
		}},
		{"two signatures", verify.Malformed, func(t *testing.T, p *pieces) {
			p.bundle = func(b map[string]any) {
				e := envelope(b)
				e["signatures"] = append(e["signatures"].([]any), map[string]any{"sig": []byte("x")})
			}
		}},
		{"statement changed after signing", verify.Tampered, func(t *testing.T, p *pieces) {
			p.bundle = func(b map[string]any) {
				e := envelope(b)
				e["payload"] = replace(`"generation":"7"`, `"generation":"8"`)(e["payload"].([]byte))
			}
		}},
		{"signature over another payload type", verify.Malformed, func(t *testing.T, p *pieces) { p.payloadType = "application/json" }},
		{"signature of another payload type, relabelled", verify.Tampered, func(t *testing.T, p *pieces) {
			p.payloadType = "application/json"
			p.bundle = func(b map[string]any) { envelope(b)["payloadType"] = nodestate.PayloadTypeInToto }
		}},
		{"extra field in the bundle", verify.Malformed, func(t *testing.T, p *pieces) { p.bundle = func(b map[string]any) { b["certificate"] = "x" } }},
		{"extra field in the envelope", verify.Malformed, func(t *testing.T, p *pieces) { p.bundle = func(b map[string]any) { envelope(b)["x"] = 1 } }},
		{"certificate in place of a key", verify.Malformed, func(t *testing.T, p *pieces) {
			p.bundle = func(b map[string]any) {
				b["verificationMaterial"] = map[string]any{"certificate": map[string]any{"rawBytes": "AA=="}}
			}
		}},
		{"duplicate key in the bundle", verify.Malformed, func(t *testing.T, p *pieces) {
			p.bundleRaw = replace(`{"dsseEnvelope":`, `{"dsseEnvelope":{},"dsseEnvelope":`)
		}},
		{"duplicate key in another case", verify.Malformed, func(t *testing.T, p *pieces) {
			p.bundleRaw = replace(`"payloadType":`, `"PayloadType":"application/json","payloadType":`)
		}},
		{"duplicate key, escaped", verify.Malformed, func(t *testing.T, p *pieces) {
			p.bundleRaw = replace(`"payloadType":`, `"payload\u0054ype":"application/json","payloadType":`)
		}},
		{"duplicate key, in letters that fold", verify.Malformed, func(t *testing.T, p *pieces) {
			p.bundleRaw = replace(`"signatures":`, `"ſignatures":[],"signatures":`)
		}},
		{"duplicate key in the signed manifest, in another case", verify.Malformed, func(t *testing.T, p *pieces) { p.outerRaw = replace(`"subject":`, `"Subject":null,"subject":`) }},
		{"bundle of another version", verify.Malformed, func(t *testing.T, p *pieces) {
			p.bundle = func(b map[string]any) { b["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2" }
		}},
		{"huge bundle", verify.Malformed, func(t *testing.T, p *pieces) {
			p.bundle = func(b map[string]any) { b["pad"] = strings.Repeat("x", 1<<20) }
		}},
		{"deep bundle", verify.Malformed, func(t *testing.T, p *pieces) {
			p.bundleRaw = func([]byte) []byte { return []byte(strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)) }
		}},
		{"more after the bundle", verify.Malformed, func(t *testing.T, p *pieces) { p.bundleRaw = func(b []byte) []byte { return append(b, "{}"...) } }},

		// statement
		{"an image's signature", verify.Malformed, func(t *testing.T, p *pieces) {
			p.statement = func(st map[string]any) { delete(subject(st), "annotations") }
		}},
		{"another predicate", verify.Malformed, func(t *testing.T, p *pieces) {
			p.statement = func(st map[string]any) { st["predicateType"] = "https://slsa.dev/provenance/v1" }
		}},
		{"two subjects", verify.Malformed, func(t *testing.T, p *pieces) {
			p.statement = func(st map[string]any) { st["subject"] = append(st["subject"].([]any), subject(st)) }
		}},
		{"no subject", verify.Malformed, func(t *testing.T, p *pieces) { p.statement = func(st map[string]any) { st["subject"] = []any{} } }},
		{"two digests of the subject", verify.Malformed, func(t *testing.T, p *pieces) {
			p.statement = func(st map[string]any) {
				d := subject(st)["digest"].(map[string]string)
				d["sha512"] = strings.Repeat("0", 128)
			}
		}},
		{"duplicate key in the statement", verify.Malformed, func(t *testing.T, p *pieces) {
			p.payload = replace(`{"_type":`, `{"_type":"x","_type":`)
		}},
		{"generation in another spelling", verify.Malformed, func(t *testing.T, p *pieces) {
			p.statement = func(st map[string]any) { subject(st)["annotations"].(map[string]string)["generation"] = "007" }
		}},

		// pieces that do not belong together
		{"manifest of another signature", verify.Tampered, func(t *testing.T, p *pieces) {
			other := verifytest.Marshal(t, verifytest.Manifest(p.state.Node, 6, verifytest.Compress(t, p.content)))
			p.manifestRaw = func([]byte) []byte { return other }
		}},
		{"newer manifest under an older signature", verify.Tampered, func(t *testing.T, p *pieces) {
			p.statement = func(st map[string]any) { subject(st)["annotations"].(map[string]string)["generation"] = "6" }
		}},
		{"manifest annotated for another node", verify.Tampered, func(t *testing.T, p *pieces) {
			p.manifest = func(m *nodestate.Manifest) { m.Annotations[nodestate.AnnotationNode] = "gw-2" }
		}},
		{"manifest without a generation", verify.Malformed, func(t *testing.T, p *pieces) {
			p.manifest = func(m *nodestate.Manifest) { delete(m.Annotations, nodestate.AnnotationGeneration) }
		}},
		{"tampered manifest", verify.Tampered, func(t *testing.T, p *pieces) { p.manifestRaw = replace(`"2026-`, `"2027-`) }},
		{"tampered layer", verify.Tampered, func(t *testing.T, p *pieces) {
			good := base64.StdEncoding.EncodeToString(verifytest.Compress(t, p.content))
			p.modify(t, func(s *nodestate.State) { s.Remote.Exec = true })
			bad := base64.StdEncoding.EncodeToString(verifytest.Compress(t, p.content))
			p.content, _ = p.state.Canonical()
			p.manifestRaw = replace(good, bad)
		}},
		{"tampered layer with its digest", verify.Tampered, func(t *testing.T, p *pieces) {
			p.modify(t, func(s *nodestate.State) { s.Remote.Exec = true })
			forged := verifytest.Marshal(t, verifytest.Manifest(p.state.Node, 7, verifytest.Compress(t, p.content)))
			p.content, _ = p.state.Canonical()
			p.manifestRaw = func([]byte) []byte { return forged }
		}},
		{"lie about the bundle's digest", verify.Tampered, func(t *testing.T, p *pieces) {
			p.outer = func(m *nodestate.Manifest) { m.Layers[0].Digest = nodestate.Digest(nil) }
		}},
		{"lie about the subject's size", verify.Tampered, func(t *testing.T, p *pieces) { p.outer = func(m *nodestate.Manifest) { m.Subject.Size++ } }},
		{"signed lie about the layer", verify.Tampered, func(t *testing.T, p *pieces) {
			p.manifest = func(m *nodestate.Manifest) { m.Layers[0].Digest = nodestate.Digest(nil) }
		}},

		// whose state
		{"another node's state", verify.OtherNode, func(t *testing.T, p *pieces) { p.verifier.Node = "gw-2" }},
		{"another node's content under this node's signature", verify.OtherNode, func(t *testing.T, p *pieces) {
			p.modify(t, func(s *nodestate.State) { s.Node = "gw-2" })
		}},
		{"another identity", verify.OtherNode, func(t *testing.T, p *pieces) { p.verifier.PublicKey = verifytest.NewKey(t).Public() }},

		// time
		{"older generation", verify.Rollback, func(t *testing.T, p *pieces) { p.floor = verify.Floor{Generation: 8, Digest: nodestate.Digest(nil)} }},
		{"same generation, another digest", verify.Rollback, func(t *testing.T, p *pieces) { p.floor = verify.Floor{Generation: 7, Digest: nodestate.Digest(nil)} }},
		{"rejected", verify.Rejected, func(t *testing.T, p *pieces) { p.rejected = func(string) bool { return true } }},

		// bounds and schema
		{"zstd bomb", verify.Malformed, func(t *testing.T, p *pieces) { p.layer = verifytest.Compress(t, make([]byte, 256<<20)) }},
		{"zstd bomb in many frames", verify.Malformed, func(t *testing.T, p *pieces) {
			p.layer = bytes.Repeat(verifytest.Compress(t, make([]byte, 3<<20)), 64)
		}},
		{"zstd bomb of unknown size", verify.Malformed, func(t *testing.T, p *pieces) {
			var b bytes.Buffer
			w, _ := zstd.NewWriter(&b)
			for range 64 {
				w.Write(make([]byte, 1<<20))
			}
			w.Close()
			p.layer = b.Bytes()
		}},
		{"zstd window of 512 MB", verify.Malformed, func(t *testing.T, p *pieces) {
			// magic, no single segment, window descriptor, then a last raw block of no bytes
			p.layer = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 19 << 3, 0x01, 0x00, 0x00}
		}},
		{"not zstd", verify.Malformed, func(t *testing.T, p *pieces) { p.layer = p.content }},
		{"content above the bound", verify.Malformed, func(t *testing.T, p *pieces) {
			p.content = bytes.Repeat([]byte("x"), nodestate.MaxStateSize+1)
		}},
		{"content at the bound, no JSON", verify.Unknown, func(t *testing.T, p *pieces) {
			p.content = bytes.Repeat([]byte("x"), nodestate.MaxStateSize)
		}},
		{"deep content", verify.Unknown, func(t *testing.T, p *pieces) { p.content = bytes.Repeat([]byte(`{"a":`), 1<<18) }},
		{"duplicate key in the content", verify.Unknown, func(t *testing.T, p *pieces) {
			p.content = replace(`"node":"gw-1"`, `"node":"gw-2","node":"gw-1"`)(p.content)
		}},
		{"unknown field in the content", verify.Unknown, func(t *testing.T, p *pieces) { p.content = replace(`"engine":1`, `"engine":1,"exec":true`)(p.content) }},
		{"another API version", verify.Unknown, func(t *testing.T, p *pieces) { p.content = replace("node-state/v1", "node-state/v2")(p.content) }},
		{"empty content", verify.Unknown, func(t *testing.T, p *pieces) { p.content = []byte{} }},
		{"a manifest too large", verify.Malformed, func(t *testing.T, p *pieces) {
			p.outer = func(m *nodestate.Manifest) {
				m.Annotations = map[string]string{"x": strings.Repeat("x", nodestate.MaxManifestSize)}
			}
		}},
		{"a deep manifest", verify.Malformed, func(t *testing.T, p *pieces) {
			p.outerRaw = func([]byte) []byte { return bytes.Repeat([]byte("["), 1<<20) }
		}},
		{"duplicate key in the signed manifest", verify.Malformed, func(t *testing.T, p *pieces) { p.outerRaw = replace(`"subject":`, `"subject":null,"subject":`) }},
		{"no subject in the manifest", verify.Malformed, func(t *testing.T, p *pieces) { p.outer = func(m *nodestate.Manifest) { m.Subject = nil } }},
		{"state not inlined", verify.Malformed, func(t *testing.T, p *pieces) { p.manifest = func(m *nodestate.Manifest) { m.Layers[0].Data = nil } }},
		{"two layers", verify.Malformed, func(t *testing.T, p *pieces) {
			p.manifest = func(m *nodestate.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }
		}},
		{"another artifact", verify.Malformed, func(t *testing.T, p *pieces) { p.manifest = func(m *nodestate.Manifest) { m.ArtifactType = "x" } }},
		{"invalid UTF-8", verify.Malformed, func(t *testing.T, p *pieces) {
			p.outerRaw = replace(`"schemaVersion"`, "\"a\xff\":1,\"schemaVersion\"")
		}},
		{"a name as long as the manifest", verify.Malformed, func(t *testing.T, p *pieces) {
			p.outerRaw = replace(`"schemaVersion"`, `"`+strings.Repeat("é", 1<<20)+`":1,"schemaVersion"`)
		}},
		{"nothing", verify.Malformed, func(t *testing.T, p *pieces) { p.outerRaw = func([]byte) []byte { return nil } }},
		{"an error page", verify.Malformed, func(t *testing.T, p *pieces) { p.outerRaw = func([]byte) []byte { return []byte("<html>") } }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPieces(t)
			if _, err := p.verify(t); err != nil {
				t.Fatalf("before the attack: %v", err)
			}
			c.attack(t, p)
			s, err := p.verify(t)
			var e *verify.Error
			if !errors.As(err, &e) || !errors.Is(err, verify.ErrUntrusted) || !s.IsZero() {
				t.Fatalf("accepted: generation %d, error %v", s.Generation(), err)
			}
			if e.Reason != c.want {
				t.Errorf("reason %s, want %s: %v", e.Reason, c.want, err)
			}
			if msg := err.Error(); len(msg) > 1000 || !strings.Contains(msg, string(c.want)) || !utf8.ValidString(msg) {
				t.Errorf("message %q", msg)
			}
		})
	}
}

// Every bit of a signed manifest that matters is covered: flipping any byte is refused, or
// changes nothing of what is accepted.
func TestAnyFlippedByte(t *testing.T) {
	p := newPieces(t)
	raw := p.build(t)
	want, err := p.verifier.Verify(raw, verify.Floor{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() || raceEnabled {
		step = 13
	}
	for i := 0; i < len(raw); i += step {
		b := bytes.Clone(raw)
		b[i] ^= 1 << (i % 7)
		got, err := p.verifier.Verify(b, verify.Floor{}, nil)
		if err == nil && (got.Digest() != want.Digest() || got.ContentDigest() != want.ContentDigest() || got.Generation() != want.Generation()) {
			t.Fatalf("byte %d: another state was accepted", i)
		}
	}
}

func TestASignatureMayBeAddedToWithoutAKeyID(t *testing.T) {
	p := newPieces(t)
	p.bundle = func(b map[string]any) {
		envelope(b)["signatures"].([]any)[0].(map[string]any)["keyid"] = ""
	}
	if _, err := p.verify(t); err != nil {
		t.Errorf("as other signers write it: %v", err)
	}
}

func TestARotatedKeyIsFollowed(t *testing.T) {
	p := newPieces(t)
	p.cloud.Rotate(t)
	p.cloud.Rotate(t)
	if _, err := p.verify(t); !errors.Is(err, verify.ErrUntrusted) {
		t.Fatalf("by the old root: %v", err)
	}
	p.verifier.Root = p.cloud.Root
	if _, err := p.verify(t); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsTellPlaceCauseAndNextStep(t *testing.T) {
	p := newPieces(t)
	p.floor = verify.Floor{Generation: 9, Digest: nodestate.Digest(nil)}
	_, err := p.verify(t)
	want := "state of generation 7 refused (rollback): generation 9 was seen here already; a registry restored from a backup"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v", err)
	}
	var e *verify.Error
	if !errors.As(err, &e) || e.Generation != 7 || !strings.HasPrefix(e.Digest, "sha256:") {
		t.Errorf("%+v", e)
	}
}

func TestTheZeroStateIsNone(t *testing.T) {
	var s verify.State
	if !s.IsZero() || s.Generation() != 0 || s.Digest() != "" || s.Desired().Node != "" || s.Raw() != nil {
		t.Error("it holds something")
	}
	if _, err := s.Record(verifytest.NewKey(t)); err == nil {
		t.Error("it was recorded")
	}
}

func TestRecords(t *testing.T) {
	cloud, key := verifytest.NewCloud(t), verifytest.NewKey(t)
	desired := sample(key.Public())
	st, err := cloud.Verifier(desired).Verify(cloud.Sign(t, desired, 7), verify.Floor{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := st.Record(key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := verify.FromRecord(rec, "gw-1", key.Public())
	if err != nil || got.Digest() != st.Digest() || got.ContentDigest() != st.ContentDigest() || got.Generation() != 7 ||
		got.Signer() != st.Signer() || string(got.Raw()) != string(st.Raw()) {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := st.Record(verifytest.NewKey(t)); err == nil {
		t.Error("recorded with another node's key")
	}
	another, err := cloud.Verifier(desired).Verify(cloud.Sign(t, desired, 6), verify.Floor{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(name string, want verify.Reason, rec []byte, node, public string) {
		t.Helper()
		_, err := verify.FromRecord(rec, node, public)
		var e *verify.Error
		if !errors.As(err, &e) || e.Reason != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	refuse("another node", verify.OtherNode, rec, "gw-2", key.Public())
	refuse("another key", verify.Forged, rec, "gw-1", verifytest.NewKey(t).Public())
	refuse("empty", verify.Forged, nil, "gw-1", key.Public())
	refuse("cut in the record", verify.Forged, rec[:120], "gw-1", key.Public())
	refuse("cut in the state", verify.Tampered, rec[:len(rec)-1], "gw-1", key.Public())
	head, _, _ := bytes.Cut(rec, []byte("\n{\"schemaVersion\""))
	refuse("an older state under the record", verify.Tampered, append(append(bytes.Clone(head), '\n'), another.Raw()...), "gw-1", key.Public())
	refuse("a generation changed", verify.Forged, bytes.Replace(rec, []byte(`"generation":7`), []byte(`"generation":8`), 1), "gw-1", key.Public())
	for i := 0; i < len(rec); i += 3 {
		b := bytes.Clone(rec)
		b[i] ^= 2
		if s, err := verify.FromRecord(b, "gw-1", key.Public()); err == nil {
			t.Fatalf("byte %d changed: accepted %d", i, s.Generation())
		}
	}
}

func FuzzVerify(f *testing.F) {
	p := newPieces(f)
	f.Add(p.build(f))
	f.Add([]byte(`{"schemaVersion":2}`))
	want := nodestate.Digest(p.content)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if s, err := p.verifier.Verify(raw, verify.Floor{}, nil); err == nil && s.ContentDigest() != want {
			t.Fatal("another state was accepted")
		}
	})
}

// FuzzBundle changes what nobody signed: the bundle around a signature.
func FuzzBundle(f *testing.F) {
	p := newPieces(f)
	var bundle []byte
	p.bundleRaw = func(b []byte) []byte { bundle = bytes.Clone(b); return b }
	p.build(f)
	f.Add(bundle)
	f.Add([]byte(`{"mediaType":"` + nodestate.MediaTypeBundle + `"}`))
	want := nodestate.Digest(p.content)
	f.Fuzz(func(t *testing.T, b []byte) {
		p.bundleRaw = func([]byte) []byte { return b }
		s, err := p.verify(t)
		if err == nil && (s.ContentDigest() != want || !json.Valid(b)) {
			t.Fatalf("accepted with %q", b)
		}
	})
}

func FuzzFromRecord(f *testing.F) {
	cloud, key := verifytest.NewCloud(f), verifytest.NewKey(f)
	desired := sample(key.Public())
	st, err := cloud.Verifier(desired).Verify(cloud.Sign(f, desired, 7), verify.Floor{}, nil)
	if err != nil {
		f.Fatal(err)
	}
	rec, err := st.Record(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rec)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := verify.FromRecord(b, "gw-1", key.Public()); err == nil && s.Digest() != st.Digest() {
			t.Fatal("another state was accepted")
		}
	})
}
