// Package api is the REST and event-stream face of ops, with its OpenAPI 3.1 document.
//
// In: HTTP requests below /api/v1 with an API token. Out: JSON, text or event streams in the
// shapes of hubapi; errors are problems (RFC 9457), also for paths and methods that there are
// none of.
//
// One table of routes makes the mux and the document, so they cannot differ: a parameter that
// is not in the document is refused. Only the Authorization header signs a request in, never a
// cookie, so no page of another origin can act for somebody. Who may do what is for ops to
// say; the package decides nothing, and keeps nothing between requests.
package api

//go:generate go test -run ^TestDocument$ -update .
