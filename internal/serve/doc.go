// Package serve runs an HTTP(S) server with bounds.
//
// Inputs: an address, a handler, a certificate. It bounds what strangers can hold: headers
// and their time, the time of a request's body, idle connections, peers that take nothing,
// the number of connections, and of those from one source.
//
// It suits WebSockets, server-sent events and long polls: what moves is never cut, however
// long it lasts. A write deadline that a handler sets counts in place of the bound for peers
// that take nothing. Handlers may hijack HTTP/1.1 connections; Run waits for them too, and
// their request's context ends with it.
//
// It decides nothing about who may ask what.
package serve
