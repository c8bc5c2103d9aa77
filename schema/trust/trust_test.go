package trust_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"

	"selvedge/schema/trust"
)

// key makes a key and the one who signs with it.
func key(t testing.TB) signature.SignerVerifier {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := signature.LoadECDSASignerVerifier(priv, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keys(t testing.TB, n int) []signature.SignerVerifier {
	out := make([]signature.SignerVerifier, n)
	for i := range out {
		out[i] = key(t)
	}
	return out
}

func public(t testing.TB, keys ...signature.SignerVerifier) []crypto.PublicKey {
	t.Helper()
	var out []crypto.PublicKey
	for _, k := range keys {
		p, err := k.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// sign hands the draft from person to person, as bytes.
func sign(t testing.TB, d *trust.Draft, keys ...signature.SignerVerifier) []byte {
	t.Helper()
	for _, k := range keys {
		doc, err := d.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if d, err = trust.ParseDraft(doc); err != nil {
			t.Fatal(err)
		}
		if err := d.Sign(k); err != nil {
			t.Fatal(err)
		}
	}
	doc, err := d.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func first(t testing.TB, threshold int, roots, signers []signature.SignerVerifier) *trust.Draft {
	t.Helper()
	d, err := trust.New(public(t, roots...), threshold, public(t, signers...))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func rotate(t testing.TB, r *trust.Root, c trust.Change) *trust.Draft {
	t.Helper()
	d, err := r.Rotate(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func parse(t testing.TB, doc []byte) *trust.Root {
	t.Helper()
	r, err := trust.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// chain makes five versions: the signer changes, then the root key, then both, then the threshold.
func chain(t testing.TB) (docs [][]byte, last signature.SignerVerifier) {
	r1, r2, r3, r4 := key(t), key(t), key(t), key(t)
	s1, s2, s3 := key(t), key(t), key(t)
	docs = append(docs, sign(t, first(t, 1, []signature.SignerVerifier{r1}, []signature.SignerVerifier{s1}), r1))
	step := func(c trust.Change, by ...signature.SignerVerifier) {
		docs = append(docs, sign(t, rotate(t, parse(t, docs[len(docs)-1]), c), by...))
	}
	step(trust.Change{AddSigners: public(t, s2), RemoveSigners: public(t, s1)}, r1)
	step(trust.Change{AddRoots: public(t, r2), RemoveRoots: public(t, r1)}, r1, r2)
	step(trust.Change{AddRoots: public(t, r3), RemoveRoots: public(t, r2), AddSigners: public(t, s3), RemoveSigners: public(t, s2)}, r2, r3)
	step(trust.Change{AddRoots: public(t, r4), Threshold: 2}, r3, r4)
	return docs, s3
}

func TestWalkThroughRotations(t *testing.T) {
	docs, last := chain(t)
	for start := range docs {
		r, err := trust.Walk(parse(t, docs[start]), docs)
		if err != nil {
			t.Fatal(err)
		}
		if r.Version() != 5 || r.Fingerprint() != parse(t, docs[4]).Fingerprint() {
			t.Fatalf("from %d: reached version %d", start+1, r.Version())
		}
		s := r.Signers()
		if len(s) != 1 || !s[0].Public.Equal(public(t, last)[0]) {
			t.Fatal("the signers are not those of the newest document")
		}
		if len(s[0].Hint) != 44 || len(s[0].ID) != 64 {
			t.Fatalf("signer %+v", s[0])
		}
	}
}

func TestWalkNeverGoesBack(t *testing.T) {
	docs, _ := chain(t)
	r, err := trust.Walk(parse(t, docs[3]), docs[:2])
	if err != nil || r.Version() != 4 {
		t.Fatalf("version %d, error %v", r.Version(), err)
	}
	r, err = trust.Walk(parse(t, docs[3]), nil)
	if err != nil || r.Version() != 4 {
		t.Fatalf("version %d, error %v", r.Version(), err)
	}
}

func TestWalkRefuses(t *testing.T) {
	docs, _ := chain(t)
	other, _ := chain(t)
	for name, tc := range map[string]struct {
		docs [][]byte
		want error
		at   int64
	}{
		"missing link":        {[][]byte{docs[0], docs[1], docs[3]}, trust.ErrVersion, 2},
		"swapped":             {[][]byte{docs[0], docs[2], docs[1]}, trust.ErrVersion, 1},
		"back within":         {[][]byte{docs[0], docs[1], docs[2], docs[1]}, trust.ErrVersion, 3},
		"forged":              {[][]byte{docs[0], other[1]}, trust.ErrUnsigned, 1},
		"another first":       {[][]byte{other[0], docs[1]}, trust.ErrVersion, 1},
		"rubbish":             {[][]byte{docs[0], docs[1], []byte("{}")}, trust.ErrMalformed, 2},
		"later link replaced": {[][]byte{docs[0], docs[1], docs[2], other[3]}, trust.ErrUnsigned, 3},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := trust.Walk(parse(t, docs[0]), tc.docs)
			wantErr(t, err, tc.want)
			if r.Version() != tc.at {
				t.Fatalf("reached version %d, want %d", r.Version(), tc.at)
			}
		})
	}
	if _, err := trust.Walk(parse(t, docs[0]), make([][]byte, trust.MaxDocuments+1)); err == nil {
		t.Fatal("an endless chain was accepted")
	}
}

func TestThreshold(t *testing.T) {
	roots, signer := keys(t, 3), keys(t, 1)
	d := first(t, 2, roots, signer)
	one := sign(t, d, roots[0])
	_, err := trust.Parse(one)
	wantErr(t, err, trust.ErrUnsigned)
	if !strings.Contains(err.Error(), "1 valid, 2 needed") {
		t.Fatal(err)
	}
	d, err = trust.ParseDraft(one)
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, d.Check(nil), trust.ErrUnsigned)
	if err := d.Sign(roots[0]); err == nil {
		t.Fatal("one key signed twice")
	}
	r := parse(t, sign(t, d, roots[2]))
	if r.Threshold() != 2 || len(r.RootKeys()) != 3 {
		t.Fatalf("threshold %d of %d", r.Threshold(), len(r.RootKeys()))
	}

	// a lost key is replaced by the two others; the new one alone is not enough
	fresh := key(t)
	change := trust.Change{AddRoots: public(t, fresh), RemoveRoots: public(t, roots[1])}
	_, err = r.Next(sign(t, rotate(t, r, change), fresh, roots[0]))
	wantErr(t, err, trust.ErrUnsigned)
	next, err := r.Next(sign(t, rotate(t, r, change), roots[0], roots[2]))
	if err != nil {
		t.Fatal(err)
	}
	if next.Version() != 2 {
		t.Fatal(next.Version())
	}
	// the removed key is out
	_, err = next.Next(sign(t, rotate(t, next, trust.Change{AddSigners: public(t, key(t))}), roots[1], roots[0]))
	wantErr(t, err, trust.ErrUnsigned)
}

func TestStolenSigningKeyCannotRotate(t *testing.T) {
	root, stolen, thief := key(t), key(t), key(t)
	r := parse(t, sign(t, first(t, 1, []signature.SignerVerifier{root}, []signature.SignerVerifier{stolen}), root))

	d := rotate(t, r, trust.Change{AddSigners: public(t, thief)})
	if err := d.Sign(stolen); err == nil {
		t.Fatal("a signing key signed trust")
	}
	// without our own tool's help: a document in which the stolen key is a root key
	d = rotate(t, r, trust.Change{RemoveSigners: public(t, stolen), AddSigners: public(t, thief), AddRoots: public(t, stolen), RemoveRoots: public(t, root)})
	if err := d.Sign(stolen); err != nil {
		t.Fatal(err) // it is a valid document of its own …
	}
	doc := sign(t, d)
	parse(t, doc)
	_, err := r.Next(doc) // … and no successor
	wantErr(t, err, trust.ErrUnsigned)
	if _, err := r.Rotate(trust.Change{AddRoots: public(t, stolen)}); err == nil {
		t.Fatal("one key holds both roles")
	}
	// revoked, it does not come back with the old document
	revoked := sign(t, rotate(t, r, trust.Change{RemoveSigners: public(t, stolen), AddSigners: public(t, key(t))}), root)
	r2, err := r.Next(revoked)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := trust.Walk(r2, [][]byte{r.Bytes()}); err != nil || got.Version() != 2 {
		t.Fatalf("version %d, error %v", got.Version(), err)
	}
}

func TestNewRefuses(t *testing.T) {
	root, signer := public(t, key(t)), public(t, key(t))
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		roots     []crypto.PublicKey
		threshold int
		signers   []crypto.PublicKey
	}{
		"no root":        {nil, 1, signer},
		"no signer":      {root, 1, nil},
		"high threshold": {root, 2, signer},
		"negative":       {root, -1, signer},
		"same key twice": {append(root, root...), 1, signer},
		"both roles":     {root, 1, root},
		"another curve":  {root, 1, []crypto.PublicKey{p384.Public()}},
		"not a key":      {[]crypto.PublicKey{"key"}, 1, signer},
	} {
		if _, err := trust.New(tc.roots, tc.threshold, tc.signers); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	root := key(t)
	doc := sign(t, first(t, 1, []signature.SignerVerifier{root}, keys(t, 2)), root)
	parse(t, doc)
	replace := func(old, new string) []byte {
		if !bytes.Contains(doc, []byte(old)) {
			t.Fatalf("no %q", old)
		}
		return bytes.Replace(doc, []byte(old), []byte(new), 1)
	}
	for name, bad := range map[string][]byte{
		"empty":               nil,
		"null":                []byte("null"),
		"list":                []byte("[]"),
		"signed null":         []byte(`{"signed":null,"signatures":[]}`),
		"signed list":         []byte(`{"signed":[],"signatures":[]}`),
		"type a number":       []byte(`{"signed":{"_type":1},"signatures":[]}`),
		"keys null":           []byte(`{"signed":{"_type":"root","keys":{"a":null},"roles":{"root":null}},"signatures":[]}`),
		"another spelling":    replace(`"signatures"`, `"Signatures"`),
		"second signed":       replace(`"signatures"`, `"signed":{"_type":"root"},"signatures"`),
		"cut":                 doc[:len(doc)-3],
		"trailing":            append(bytes.Clone(doc), ' '),
		"no final newline":    doc[:len(doc)-1],
		"version raised":      replace(`"version": 1`, `"version": 2`),
		"version zero":        replace(`"version": 1`, `"version": 0`),
		"another kind":        replace(`"_type": "root"`, `"_type": "targets"`),
		"threshold zero":      replace(`"threshold": 1`, `"threshold": 0`),
		"key renamed":         replace(`"keytype": "ecdsa"`, `"keytype": "ecdsa-sha2-nistp256"`),
		"unknown outer field": replace(`"signed": {`, `"x": 1, "signed": {`),
		"too large":           append(bytes.Clone(doc), bytes.Repeat([]byte("\n"), trust.MaxSize)...),
		"deep":                bytes.Repeat([]byte(`{"signed":`), 20000),
	} {
		if r, err := trust.Parse(bad); err == nil {
			t.Errorf("%s: accepted as version %d", name, r.Version())
		}
	}
	// every single changed byte is noticed
	for i := range doc {
		bad := bytes.Clone(doc)
		bad[i] ^= 1
		if _, err := trust.Parse(bad); err == nil {
			t.Fatalf("byte %d changed to %q: accepted", i, bad[i])
		}
	}
}

func FuzzParse(f *testing.F) {
	docs, _ := chain(f)
	for _, d := range docs {
		f.Add(d)
	}
	f.Add([]byte(`{"signed":{"_type":"root","keys":{"a":null},"roles":{"root":null}},"signatures":[]}`))
	known := map[string]bool{}
	for _, d := range docs {
		known[string(d)] = true
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if d, err := trust.ParseDraft(doc); err == nil {
			if b, err := d.Bytes(); err != nil || !bytes.Equal(b, doc) {
				t.Fatal("a draft changed by reading it")
			}
		}
		if r, err := trust.Parse(doc); err == nil {
			r.Signers()
			if _, err := trust.Walk(r, docs); err == nil && !known[string(doc)] {
				t.Fatal("a foreign document led into the chain")
			}
		}
	})
}
