// Package validate turns the tree of a config repo into the values of its workspaces, or into problems.
//
// Inputs: a Tree, which is a commit's files or a working directory, and the
// schema and guardrails that are built in. Outputs: a fleet.Fleet with one source
// for each workspace, and the problems of the repo as a whole.
//
// Guarantees: what a repo says is treated as hostile. The parent process parses
// none of it: CUE, YAML and JSON are read and evaluated in child processes of the
// same executable that have limits on CPU time, memory and output, a wall clock,
// an empty environment and no file of their own. They ask the parent for what
// they read, and the parent answers from the tree and writes down what it gave:
// that record, misses included, decides whether a cached result still holds.
// Whatever CUE would skip in silence is refused by name. A workspace that is
// refused, or whose evaluation had to be killed, does not keep others from going on.
//
// It never touches the network, never writes to the tree, and does not look
// across workspaces: names and references are for the resolver.
package validate
