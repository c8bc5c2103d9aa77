// Package fleet holds the Go values of a validated config repo.
//
// A Unit is what one workspace directory evaluates to: everything that is
// declared in it and inherited from the folders and the platform above. The
// JSON names are those of the CUE schema in schema/v1, and a test holds the two
// against each other, field by field.
//
// Values here are plain data: they are decoded from JSON that the schema has
// accepted, with all defaults filled in. The package reads no file, and the only
// decisions it takes are those that the evaluator and the resolver must take
// alike: which nodes a selector matches and what an override changes.
package fleet
