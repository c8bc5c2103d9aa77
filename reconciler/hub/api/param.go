package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"selvedge/schema/hubapi"
)

// kind is what a parameter's text must be.
type kind int

const (
	text     kind = iota
	number        // an integer from min to max
	boolean       // true or false
	oneOf         // a word of words
	sinceAgo      // a time (RFC 3339), or a duration before now
)

// param is a parameter of a route, for the document and for the parser.
type param struct {
	name     string
	doc      string
	kind     kind
	min, max int      // of a number; max of a text's bytes, 0 means maxText
	words    []string // of oneOf
	repeated bool     // may be given more than once
	required bool
	path     bool // a part of the path
}

const (
	maxText   = 1024 // bytes of a parameter
	maxRepeat = 1024 // of one parameter
)

// values are a request's parameters, checked.
type values map[string][]string

// parse checks the parameters of a request against those that its route knows.
func parse(params []param, r *http.Request) (values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("the query cannot be read: %v", err)
	}
	v := values{}
	var known []string
	for _, p := range params {
		if p.path {
			v[p.name] = []string{r.PathValue(p.name)}
			continue
		}
		known = append(known, p.name)
		got := q[p.name]
		if len(got) == 0 {
			if p.required {
				return nil, invalid("the parameter %s is missing: %s", p.name, p.doc)
			}
			continue
		}
		if len(got) > 1 && !p.repeated || len(got) > maxRepeat {
			return nil, invalid("the parameter %s is given %d times", p.name, len(got))
		}
		for _, s := range got {
			if err := p.check(s); err != nil {
				return nil, err
			}
		}
		v[p.name] = got
	}
	for name := range q {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return nil, invalid("unknown parameter %.100q; this route takes none", name)
			}
			return nil, invalid("unknown parameter %.100q; known are: %s", name, strings.Join(known, ", "))
		}
	}
	return v, nil
}

func (p param) check(s string) error {
	switch p.kind {
	case text:
		most := p.max
		if most == 0 {
			most = maxText
		}
		if len(s) > most {
			return invalid("the parameter %s has %d bytes, more than %d", p.name, len(s), most)
		}
	case number:
		if n, err := strconv.Atoi(s); err != nil || n < p.min || n > p.max {
			return invalid("%s=%.100s: want an integer from %d to %d", p.name, s, p.min, p.max)
		}
	case boolean:
		if s != "true" && s != "false" {
			return invalid("%s=%.100s: want true or false", p.name, s)
		}
	case oneOf:
		if !slices.Contains(p.words, s) {
			return invalid("%s=%.100s: want one of %s", p.name, s, strings.Join(p.words, ", "))
		}
	case sinceAgo:
		if _, err := sinceTime(s, time.Time{}); err != nil {
			return invalid("%s=%.100s: want a duration before now such as 15m, or a time such as 2026-01-31T12:00:00Z", p.name, s)
		}
	}
	return nil
}

// sinceTime reads a time, or a duration before now.
func sinceTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			return time.Time{}, fmt.Errorf("%s lies in the future", s)
		}
		return now.Add(-d), nil
	}
	return time.Parse(time.RFC3339Nano, s)
}

func (v values) text(name string) string {
	if len(v[name]) == 0 {
		return ""
	}
	return v[name][0]
}

func (v values) number(name string) int {
	n, _ := strconv.Atoi(v.text(name)) // checked; 0 if it is absent
	return n
}

func (v values) flag(name string) bool { return v.text(name) == "true" }

func (v values) since(name string) time.Time {
	if s := v.text(name); s != "" {
		t, _ := sinceTime(s, time.Now()) // checked
		return t
	}
	return time.Time{}
}

// sinceOrAgo leaves a duration one: whose clock is meant is for others to say.
func (v values) sinceOrAgo(name string) (time.Time, time.Duration) {
	if d, err := time.ParseDuration(v.text(name)); err == nil {
		return time.Time{}, max(d, 1) // zero would be none
	}
	return v.since(name), 0
}

func invalid(format string, a ...any) *hubapi.Problem {
	return &hubapi.Problem{Title: "invalid request", Status: http.StatusBadRequest, Reason: hubapi.ReasonInvalid, Detail: fmt.Sprintf(format, a...)}
}
