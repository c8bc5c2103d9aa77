// Package env starts the real peers that tests, the demo and the benchmarks run against.
//
// Each comes in two forms: a function that returns a value to stop and an error, and
// one that takes a testing.TB, skips where the peer cannot run (fails when CI=true)
// and cleans up by itself. Everything lies in temporary folders and listens on
// loopback; nothing of the machine's own services is touched.
package env
