package nodestate

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestDocument holds docs/node-state.md against the code: its example is a state, and it
// names every field and constant.
func TestDocument(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "node-state.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(doc, []byte("```json\n"))
	example, _, ok := bytes.Cut(rest, []byte("```\n"))
	var b bytes.Buffer
	if err := json.Compact(&b, example); err != nil || !ok {
		t.Fatalf("no example: %v", err)
	}
	if _, err := Decode(b.Bytes()); err != nil {
		t.Errorf("the example is no state: %v", err)
	}
	for _, want := range []string{
		APIVersion, ArtifactType, MediaTypeState, MediaTypeBundle, MediaTypeEmpty, ArtifactTypeTrust, MediaTypeRoot,
		PayloadTypeInToto, StatementType, PredicateType, AnnotationNode, AnnotationGeneration, AnnotationCommit, AnnotationCreated,
		SubjectNode, SubjectGeneration, TagDesired, TagSigned, TagTrust,
	} {
		if !bytes.Contains(doc, []byte("`"+want+"`")) {
			t.Errorf("%s is missing", want)
		}
	}
	seen := map[reflect.Type]bool{}
	var fields func(reflect.Type)
	fields = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice:
			fields(typ.Elem())
		case reflect.Struct:
			if seen[typ] {
				return
			}
			seen[typ] = true
			for f := range typ.Fields() {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				found := false
				for _, form := range []string{"`" + name + "`", "`" + name + "[]`", "." + name + "`", "`" + name + "."} {
					found = found || bytes.Contains(doc, []byte(form))
				}
				if !found {
					t.Errorf("field %q of %s is missing", name, typ.Name())
				}
				fields(f.Type)
			}
		}
	}
	fields(reflect.TypeFor[State]())
}
