// Package console looks at the hub's console with a real browser, headless Chromium, as
// people would: signing in, reading, restarting, losing the hub.
//
// The hub is a process of its own, so that it can be killed; the roster comes from a real
// feed, nodes are the agent's own uplink over TLS with statuses made up. Each test fails on an
// error in the browser's console, a request to another host, or a breach of the policy that
// forbids foreign scripts and styles. With -artifacts, screenshots are kept.
package console
