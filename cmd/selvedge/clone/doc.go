// Package clone puts files into a clone of the config repo and commits them.
//
// A change is checked before anything is written: the commit that it will be, by the code that
// the reconciler runs. Files are written whole and never over others; the commit is made by the
// git command as the person who runs it, with their hooks and signature, and holds those files
// only. It refuses when the index holds anything else, or when HEAD has moved since the check.
// It pushes only when asked to.
package clone
