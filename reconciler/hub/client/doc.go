// Package client calls a hub's API.
//
// It takes the hub's URL, a token and what to trust; it gives the shapes of schema/hubapi.
// Answers are bounded; questions that change nothing are asked again, a few times, when the
// hub is away for a moment; a followed log or a watch goes on where it was after the
// connection broke. The token is sent to that hub only: redirects are not followed.
//
// It keeps nothing on disk and prints nothing.
package client
