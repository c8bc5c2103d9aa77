// Package console is the web face of ops: pages for people, over HTML, htmx and server-sent
// events, with nothing fetched from elsewhere.
//
// In: an ops.Ops and a key for sessions. Out: a handler for "/" and what lies below it.
// People sign in with an API token; it is kept, sealed, in a cookie that no script can read.
// Programs may send the token as a bearer instead.
//
// Every page is whole without JavaScript. With it, the parts of a page that change are sent
// again as they change, over one stream a page: a part is rendered by the same code both times.
//
// The package decides nothing: what may be seen and done is decided by ops. It shows texts of
// nodes and of Git as text, whatever they hold.
package console
