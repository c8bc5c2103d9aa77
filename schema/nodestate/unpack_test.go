package nodestate_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"selvedge/schema/nodestate"
)

// signed makes a signed manifest of the right form; edit may spoil its parts. The bundle
// is none: Unpack does not look into it.
func signed(t testing.TB, edit func(outer, inner *nodestate.Manifest)) []byte {
	t.Helper()
	empty := nodestate.Describe(nodestate.MediaTypeEmpty, []byte(nodestate.EmptyContent), true)
	inner := nodestate.Manifest{
		SchemaVersion: 2, MediaType: nodestate.MediaTypeManifest, ArtifactType: nodestate.ArtifactType, Config: empty,
		Layers: []nodestate.Descriptor{nodestate.Describe(nodestate.MediaTypeState, []byte("state"), true)},
		Annotations: map[string]string{
			nodestate.AnnotationNode: "gw-7", nodestate.AnnotationGeneration: "42",
		},
	}
	outer := nodestate.Manifest{
		SchemaVersion: 2, MediaType: nodestate.MediaTypeManifest, ArtifactType: nodestate.MediaTypeBundle, Config: empty,
		Layers: []nodestate.Descriptor{nodestate.Describe(nodestate.MediaTypeBundle, []byte("bundle"), true)},
	}
	for i := range 2 { // first the inner one, then the outer with the inner one in it
		if edit != nil && i == 0 {
			edit(&nodestate.Manifest{Layers: make([]nodestate.Descriptor, 1), Subject: &nodestate.Descriptor{}}, &inner)
		}
		if i == 1 {
			b, err := json.Marshal(inner)
			if err != nil {
				t.Fatal(err)
			}
			d := nodestate.Describe(nodestate.MediaTypeManifest, b, true)
			outer.Subject = &d
			if edit != nil {
				edit(&outer, &nodestate.Manifest{Layers: make([]nodestate.Descriptor, 1), Annotations: map[string]string{}})
			}
		}
	}
	b, err := json.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestUnpack(t *testing.T) {
	u, err := nodestate.Unpack(signed(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if u.Node != "gw-7" || u.Generation != 42 || string(u.Layer) != "state" || string(u.Bundle) != "bundle" {
		t.Fatalf("%+v", u)
	}
	if nodestate.Digest(u.Manifest) != u.ManifestDigest || nodestate.Digest(u.Layer) != u.LayerDigest || nodestate.Digest(u.Bundle) != u.BundleDigest {
		t.Fatal("digests")
	}
}

func TestUnpackRefuses(t *testing.T) {
	type m = nodestate.Manifest
	for name, edit := range map[string]func(outer, inner *m){
		"outer schema":         func(o, _ *m) { o.SchemaVersion = 1 },
		"outer type":           func(o, _ *m) { o.MediaType = "x" },
		"outer artifact type":  func(o, _ *m) { o.ArtifactType = nodestate.ArtifactType },
		"no subject":           func(o, _ *m) { o.Subject = nil },
		"subject not inlined":  func(o, _ *m) { o.Subject.Data = nil },
		"subject digest":       func(o, _ *m) { o.Subject.Digest = nodestate.Digest(nil) },
		"subject size":         func(o, _ *m) { o.Subject.Size++ },
		"subject rubbish":      func(o, _ *m) { *o.Subject = nodestate.Describe(nodestate.MediaTypeManifest, []byte("[]"), true) },
		"two bundles":          func(o, _ *m) { o.Layers = append(o.Layers, o.Layers...) },
		"no bundle":            func(o, _ *m) { o.Layers = nil },
		"bundle type":          func(o, _ *m) { o.Layers[0].MediaType = "x" },
		"bundle digest":        func(o, _ *m) { o.Layers[0].Digest = "sha256:0" },
		"bundle replaced":      func(o, _ *m) { o.Layers[0].Data = []byte("bundlE") },
		"config":               func(o, _ *m) { o.Config = nodestate.Describe(nodestate.MediaTypeEmpty, []byte("[]"), true) },
		"inner artifact type":  func(_, i *m) { i.ArtifactType = "x" },
		"inner subject":        func(_, i *m) { i.Subject = &i.Layers[0] },
		"inner layers":         func(_, i *m) { i.Layers = append(i.Layers, i.Layers...) },
		"inner layer digest":   func(_, i *m) { i.Layers[0].Digest = nodestate.Digest(nil) },
		"no node":              func(_, i *m) { delete(i.Annotations, nodestate.AnnotationNode) },
		"node with a slash":    func(_, i *m) { i.Annotations[nodestate.AnnotationNode] = "../gw-7" },
		"no generation":        func(_, i *m) { delete(i.Annotations, nodestate.AnnotationGeneration) },
		"generation spelled":   func(_, i *m) { i.Annotations[nodestate.AnnotationGeneration] = "042" },
		"generation zero":      func(_, i *m) { i.Annotations[nodestate.AnnotationGeneration] = "0" },
		"generation too large": func(_, i *m) { i.Annotations[nodestate.AnnotationGeneration] = "9007199254740993" },
	} {
		if _, err := nodestate.Unpack(signed(t, edit)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good := signed(t, nil)
	for name, b := range map[string][]byte{
		"empty":         nil,
		"null":          []byte("null"),
		"cut":           good[:len(good)-1],
		"trailing":      append(bytes.Clone(good), []byte("{}")...),
		"unknown field": append([]byte(`{"x":1,`), good[1:]...),
		"deep":          bytes.Repeat([]byte("["), 1<<20),
		"open string":   []byte(`{"a\"`),
		"too large":     bytes.Repeat([]byte(" "), nodestate.MaxManifestSize+1),
	} {
		if _, err := nodestate.Unpack(b); err == nil {
			t.Errorf("%s: accepted", name)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(signed(f, nil))
	f.Add([]byte(`{"subject":{"data":"e30="},"layers":[{}]}`))
	f.Add([]byte(strings.Repeat("[", 100)))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := nodestate.Unpack(b)
		if err != nil {
			return
		}
		if !nodestate.ValidNode(u.Node) || u.Generation < 1 || nodestate.Digest(u.Manifest) != u.ManifestDigest ||
			nodestate.Digest(u.Layer) != u.Inner.Layers[0].Digest || nodestate.Digest(u.Bundle) != u.Outer.Layers[0].Digest {
			t.Fatalf("accepted %q", b)
		}
	})
}
