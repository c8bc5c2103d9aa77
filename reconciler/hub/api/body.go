package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"selvedge/schema/hubapi"
)

const maxBody = 64 << 10 // bytes of a request

// decode reads a JSON object into a pointer to a struct, strictly: its members are those of
// the document, letter by letter, and nothing follows it.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != mediaJSON {
		return &hubapi.Problem{Title: "unsupported media type", Status: http.StatusUnsupportedMediaType, Reason: hubapi.ReasonInvalid,
			Detail: "send the body as Content-Type: " + mediaJSON}
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &hubapi.Problem{Title: "request too large", Status: http.StatusRequestEntityTooLarge, Reason: hubapi.ReasonInvalid,
			Detail: fmt.Sprintf("the body has more than %d bytes", maxBody)}
	}
	if err != nil {
		return invalid("the body cannot be read: %v", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		if _, ok := errors.AsType[*json.SyntaxError](err); ok {
			return invalid("the body is no JSON: %v", err)
		}
		return invalid("the body is no JSON object")
	}
	known := memberNames(reflect.TypeOf(into).Elem())
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !slices.Contains(known, name) { // encoding/json would take "APP" for app
			return invalid("unknown member %.100q; known are: %s", name, strings.Join(known, ", "))
		}
	}
	err = json.Unmarshal(text, into)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return invalid("the member %s: want %s, and not a %s", e.Field, kindName(e.Type), e.Value)
	}
	if err != nil {
		return invalid("the body: %v", err)
	}
	return nil
}

// memberNames are those of a struct in JSON.
func memberNames(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// kindName says in the words of JSON what a Go type takes.
func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	}
	return "a whole number"
}
