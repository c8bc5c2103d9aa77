package api

import (
	"encoding/json"
	"reflect"
	"strings"

	"selvedge/schema/hubapi"
)

type object = map[string]any

// OpenAPI returns the API's description, an OpenAPI 3.1 document.
func OpenAPI() ([]byte, error) { return openAPI(comments) }

// openAPI makes the document with these descriptions of types and fields.
func openAPI(comments map[string]string) ([]byte, error) {
	s := &schemas{all: object{}, comments: comments}
	paths := object{}
	for _, rt := range routes() {
		p, ok := paths[rt.pattern].(object)
		if !ok {
			p = object{}
			paths[rt.pattern] = p
		}
		p[strings.ToLower(rt.method)] = s.operation(rt)
	}
	s.of(hubapi.Problem{})
	doc := object{
		"openapi": "3.1.1",
		"info": object{
			"title":   "Selvedge hub",
			"version": "v1",
			"summary": "See and run a fleet of edge nodes.",
			"description": "What nodes run is decided in Git and nowhere here: this API shows the fleet, and does what the nodes' signed states grant. " +
				"Who may see and do what are role bindings in Git. A node that the caller may not see does not exist for them. " +
				"Unknown parameters and members are refused; clients have to ignore members that they do not know.",
		},
		"servers":  []any{object{"url": Base}},
		"security": []any{object{"token": []any{}}},
		"paths":    paths,
		"components": object{
			"schemas":         s.all,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer", "description": "An API token, made by `selvedge token create` and held in Git as a hash."}},
			"parameters":      object{"If-None-Match": ifNoneMatch},
			"headers":         headers,
			"responses":       refusalResponses(),
		},
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

var ifNoneMatch = object{"name": "If-None-Match", "in": "header", "description": "ETags of answers that the caller has; if one still holds, the answer is 304.",
	"schema": object{"type": "string"}}

func (s *schemas) operation(rt route) object {
	op := object{"operationId": rt.id, "summary": rt.summary}
	if rt.doc != "" {
		op["description"] = rt.doc
	}
	var params []any
	for _, p := range rt.params {
		params = append(params, p.openapi())
	}
	if rt.media == mediaEvents {
		params = append(params, object{"name": "Last-Event-ID", "in": "header", "description": "The id of the last event that was taken.", "schema": object{"type": "string"}})
	}
	if rt.tagged() {
		params = append(params, object{"$ref": "#/components/parameters/If-None-Match"})
	}
	if params != nil {
		op["parameters"] = params
	}
	if rt.body != nil {
		op["requestBody"] = object{"required": true, "content": object{mediaJSON: object{"schema": s.of(rt.body)}}}
		// decode refuses what it does not know
		s.all[componentName(reflect.TypeOf(rt.body))].(object)["additionalProperties"] = false
	}
	if rt.public {
		op["security"] = []any{}
	}
	responses := object{}
	refused(rt, responses)
	switch {
	case rt.media == mediaSocket:
		responses["101"] = object{"description": "The connection is a WebSocket from now on."}
		s.of(rt.answer)
	case rt.media != "":
		schema := object{"type": "string"}
		if rt.answer != nil {
			s.of(rt.answer) // what data fields hold
		}
		extra := []string{}
		if rt.media == mediaText {
			extra = []string{hubapi.TrailerError}
		}
		responses["200"] = object{"description": "A stream.", "headers": withHeaders(extra...), "content": object{rt.media: object{"schema": schema}}}
	case rt.answer == nil:
		responses["204"] = object{"description": "Done.", "headers": withHeaders()}
	default:
		ok := object{"description": "The answer.", "headers": withHeaders(), "content": object{mediaJSON: object{"schema": s.of(rt.answer)}}}
		if rt.tagged() {
			ok["headers"] = withHeaders("ETag")
			responses["304"] = object{"description": "What If-None-Match names still holds.", "headers": withHeaders("ETag")}
		}
		responses["200"] = ok
	}
	op["responses"] = responses
	return op
}

// openapi describes a parameter by what its parser accepts.
func (p param) openapi() object {
	schema := object{"type": "string"}
	switch p.kind {
	case text, sinceAgo:
		most := p.max
		if most == 0 {
			most = maxText
		}
		if !p.path {
			schema["maxLength"] = most
		}
	case number:
		schema = object{"type": "integer", "minimum": p.min, "maximum": p.max}
	case boolean:
		schema = object{"type": "boolean"}
	case oneOf:
		schema["enum"] = p.words
	}
	o := object{"name": p.name, "in": "query", "description": p.doc, "schema": schema}
	if p.repeated {
		o["schema"] = object{"type": "array", "items": schema, "maxItems": maxRepeat}
		o["explode"] = true
	}
	if p.path {
		o["in"] = "path"
	}
	if p.path || p.required {
		o["required"] = true
	}
	return o
}
