// Package git turns a local path or an HTTPS remote into commits with readable trees.
//
// In: a path, a file:// or an https:// address, a branch, and for a remote the files
// that hold its credentials and CA. Out: a Commit with who, when and why, how it relates
// to the one seen before, and its Tree, an fs.FS that reads straight from Git objects.
//
// Guarantees: every object that is read is checked against its hash; file sizes, directory
// sizes, path depth, and the bytes and the time of a fetch are bounded; a Tree is safe for concurrent
// use and never changes; a local push is signalled from file events and, when these
// fail, by polling; credentials appear neither in errors nor in logs nor on disk; the
// Git library's panics become errors; a clone survives a kill at any moment.
//
// It does not check out files, follow symbolic links, enter submodules, run hooks, read
// the user's Git configuration, or write to a repository that it did not make. It keeps
// no commit in force: whoever calls decides what to do while Head fails.
package git
