package api

import (
	"net/http"
	"strconv"

	"selvedge/schema/hubapi"
)

// headers are those of answers that the document tells of.
var headers = object{
	"X-Request-Id":      header("Names the request in the hub's log and audit log."),
	"ETag":              header("Names this answer: If-None-Match asks whether it still holds."),
	"WWW-Authenticate":  header("Bearer, with error=\"invalid_token\" where a token was sent that is none, or none any more (RFC 6750)."),
	"Retry-After":       object{"description": "Seconds after which to ask again, where time alone may help.", "schema": object{"type": "integer", "minimum": 0}},
	"Upgrade":           header("websocket, over HTTP/1.1."),
	hubapi.TrailerError: header("A trailer, behind the stream, if that did not end well: a Problem as JSON."),
}

func header(doc string) object {
	return object{"description": doc, "schema": object{"type": "string"}}
}

// withHeaders makes the headers of an answer; each has the request's ID.
func withHeaders(names ...string) object {
	o := object{}
	for _, n := range append(names, "X-Request-Id") {
		o[n] = object{"$ref": "#/components/headers/" + n}
	}
	return o
}

// refusal is an answer that routes share.
type refusal struct {
	status  int // 0: any other
	name    string
	doc     string
	headers []string
	of      func(route) bool // nil: all
}

func (r refusal) key() string {
	if r.status == 0 {
		return "default"
	}
	return strconv.Itoa(r.status)
}

func named(rt route) bool { // something that there may not be
	for _, p := range rt.params {
		if p.path {
			return true
		}
	}
	return rt.body != nil
}

var (
	signedIn = func(rt route) bool { return !rt.public }
	sent     = func(rt route) bool { return rt.body != nil }
	upgraded = func(rt route) bool { return rt.media == mediaSocket }
)

var refusals = []refusal{
	{http.StatusBadRequest, "invalid", "A parameter or the body makes no sense.", nil, nil},
	{http.StatusUnauthorized, "unauthorized", "There is no token, or it is none or none any more.", []string{"WWW-Authenticate"}, signedIn},
	{http.StatusForbidden, "forbidden", "The caller has no role that allows it, or the node's state does not grant it.", nil, signedIn},
	{http.StatusNotFound, "notFound", "There is no such thing, or none that the caller may see.", nil, named},
	{http.StatusRequestEntityTooLarge, "tooLarge", "The body is too large.", nil, sent},
	{http.StatusUnsupportedMediaType, "unsupported", "The body is not said to be JSON.", nil, sent},
	{http.StatusUpgradeRequired, "upgradeRequired", "The request is no WebSocket.", []string{"Upgrade"}, upgraded},
	{http.StatusTooManyRequests, "busy", "Too much is asked for or open at once.", []string{"Retry-After"}, signedIn},
	{http.StatusServiceUnavailable, "unavailable", "The hub cannot do it now, or the node is offline.", []string{"Retry-After"}, signedIn},
	{0, "problem", "Why it was not done.", []string{"Retry-After"}, nil},
}

// refusalResponses are the components that refused refers to.
func refusalResponses() object {
	all := object{}
	for _, r := range refusals {
		all[r.name] = object{"description": r.doc + " A problem (RFC 9457).", "headers": withHeaders(r.headers...),
			"content": object{hubapi.MediaTypeProblem: object{"schema": object{"$ref": "#/components/schemas/Problem"}}}}
	}
	return all
}

// refused adds what a route may refuse to its responses.
func refused(rt route, responses object) {
	for _, r := range refusals {
		if r.of == nil || r.of(rt) {
			responses[r.key()] = object{"$ref": "#/components/responses/" + r.name}
		}
	}
}
