// Package runtimetest is the conformance suite that every apply.Runtime passes.
//
// It also holds Fake, a runtime in memory that passes the suite and fails on
// demand, for tests of what cannot be forced on a real one. It is for tests only.
package runtimetest
