package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/clone"
	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/reconciler/validate"
	"selvedge/schema/fleet"
)

// changeFlags are those of commands that commit to a clone of the config repo.
type changeFlags struct {
	dir       string
	yes, push bool
	dryRun    bool
}

func (f *changeFlags) register(c *cobra.Command) {
	c.Flags().StringVarP(&f.dir, "repo", "C", ".", "clone of the config repo, with a working directory")
	c.Flags().BoolVar(&f.push, "push", false, "push the branch after the commit")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "show the change, and write nothing")
}

// workbench is a clone at its HEAD, evaluated: what is committed is that and the change. Files of
// the working tree that are not committed count for nothing.
type workbench struct {
	flags   *changeFlags
	clone   clone.Clone
	release func()
	tree    validate.Tree
	head    string
	v       *validate.Validator
	before  *rendered
}

// open evaluates the HEAD of a clone, and keeps other runs from changing it.
func (f *changeFlags) open(ctx context.Context) (_ *workbench, err error) {
	dir, err := top(f.dir)
	if err != nil {
		return nil, err
	}
	w := &workbench{flags: f, clone: clone.Clone{Dir: dir}, v: validator(), release: func() {}}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if !f.dryRun {
		release, err := w.clone.Hold(ctx)
		if err != nil {
			return nil, said(err)
		}
		w.release = release
	}
	if err := w.clone.Ready(ctx); err != nil {
		return nil, said(err)
	}
	if w.head = w.clone.Head(ctx); w.head == "" {
		return nil, fmt.Errorf("%s has no commit yet; commit what is there first", dir)
	}
	if w.tree, _, err = revision(ctx, dir, w.head); err != nil {
		return nil, err
	}
	if w.before, err = render(ctx, w.v, w.tree, ""); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *workbench) close() {
	_ = w.v.Close()
	w.release()
}

// said makes what Git says fit for a terminal, line by line.
func said(err error) error { return gitError{err} }

type gitError struct{ err error }

func (e gitError) Error() string { return show.Lines(e.err.Error()) }
func (e gitError) Unwrap() error { return e.err }

// origins are where an entity is declared, each place once.
func (w *workbench) origins(entity string) []fleet.Origin {
	var found []fleet.Origin
	for _, sources := range []map[string]*fleet.Source{w.before.fleet.Workspaces, w.before.fleet.Folders} {
		for _, s := range sources {
			if o, ok := s.Entities[entity]; ok && !slices.Contains(found, o) {
				found = append(found, o)
			}
		}
	}
	return found
}

// check evaluates the commit that a change would be. Errors that were there before stay the
// business of others.
func (w *workbench) check(c *cobra.Command, ch clone.Change) (*rendered, error) {
	tree, err := ch.Tree(w.tree)
	if err != nil {
		return nil, err
	}
	if err := w.clone.Fits(c.Context(), ch); err != nil {
		return nil, said(err)
	}
	after, err := render(c.Context(), w.v, tree, "")
	if err != nil {
		return nil, err
	}
	old := onlyErrors(w.before.problems)
	fresh := slices.DeleteFunc(onlyErrors(after.problems), func(p fleet.Problem) bool { return slices.Contains(old, p) })
	if len(fresh) > 0 {
		if err := validate.WriteText(c.ErrOrStderr(), fresh); err != nil {
			return nil, err
		}
		return nil, exit.With(exit.Findings, errors.New("the repo would not be valid with this; nothing was written"))
	}
	return after, nil
}

// finish asks, commits and pushes, as far as is wanted. It reports whether it was committed.
func (w *workbench) finish(c *cobra.Command, ch clone.Change, question string) (bool, error) {
	if w.flags.dryRun {
		for _, name := range slices.Sorted(maps.Keys(ch.Write)) {
			fmt.Fprintf(c.OutOrStdout(), "-- %s --\n%s", name, ch.Write[name])
		}
		for _, name := range ch.Remove {
			text, err := w.tree.ReadFile(name)
			if err != nil {
				return false, err
			}
			fmt.Fprintf(c.OutOrStdout(), "-- %s is removed --\n%s", name, text)
		}
		return false, nil
	}
	if !w.flags.yes {
		if err := confirm(c, question); err != nil {
			return false, err
		}
	}
	ch.Onto = w.head
	hash, err := w.clone.Commit(c.Context(), ch)
	if err != nil {
		return false, fmt.Errorf("nothing was committed: %w", said(err))
	}
	fmt.Fprintf(c.ErrOrStderr(), "committed %.12s: %s\n", hash, ch.Subject)
	if w.flags.push {
		if err := w.clone.Push(c.Context()); err != nil {
			return true, fmt.Errorf("it is committed, and not pushed: %w", said(err))
		}
		return true, nil
	}
	fmt.Fprintln(c.ErrOrStderr(), "next: push it, and let it be merged; only then it counts")
	return true, nil
}

// confirm asks on a terminal; in a script --yes has to be given.
func confirm(c *cobra.Command, question string) error {
	if !show.Terminal(c.InOrStdin()) {
		return exit.Usagef("nobody can be asked here; give --yes if you are sure, or --dry-run to see the change")
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s [y/N] ", question)
	answer, err := ask(c.Context(), func() (string, error) { return bufio.NewReader(c.InOrStdin()).ReadString('\n') })
	if c.Context().Err() != nil {
		return c.Context().Err()
	}
	if err != nil || !slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer))) {
		return exit.With(exit.Findings, errors.New("nothing was written"))
	}
	return nil
}
