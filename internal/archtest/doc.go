// Package archtest holds the floors of the code and tests that they are kept.
//
// A package imports only what Allowed says. The table is the picture of
// docs/architecture.md in a form that fails the build.
package archtest
