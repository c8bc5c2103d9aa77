package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"selvedge/internal/exit"
	"selvedge/reconciler/git"
	"selvedge/reconciler/resolve"
	"selvedge/reconciler/validate"
	"selvedge/schema/fleet"
)

// repoFlags say which tree of which repo a command looks at.
type repoFlags struct {
	dir string
	rev string
}

func (f *repoFlags) register(c *cobra.Command) {
	c.Flags().StringVarP(&f.dir, "repo", "C", ".", "config repo: a working directory, a clone or a bare repository")
	c.Flags().StringVar(&f.rev, "rev", "", "look at this revision instead of the files in the working directory")
}

// tree opens what the flags name. The name is for people; close ends its use.
func (f *repoFlags) tree(ctx context.Context) (tree validate.Tree, commit string, closeTree func(), err error) {
	if f.rev != "" {
		tree, hash, err := revision(ctx, f.dir, f.rev)
		return tree, hash, func() {}, err
	}
	dir, err := top(f.dir)
	if err != nil {
		return nil, "", nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, "", nil, err
	}
	return validate.Dir(root), "", func() { root.Close() }, nil
}

// revision opens the config repo in a commit. It may be a folder of a larger Git repository.
func revision(ctx context.Context, dir, rev string) (validate.Tree, string, error) {
	repo, err := git.Open(dir)
	if err != nil {
		return nil, "", err
	}
	c, err := repo.Resolve(ctx, rev)
	if err != nil {
		return nil, "", err
	}
	at, err := top(dir)
	if repo.Root() == "" || err != nil {
		return c.Tree, c.Hash, nil // a bare repository, or one whose files are elsewhere
	}
	root, err := filepath.EvalSymlinks(repo.Root())
	if err != nil {
		return nil, "", err
	}
	if at, err = filepath.EvalSymlinks(at); err != nil {
		return nil, "", err
	}
	below, err := filepath.Rel(root, at)
	if err != nil || below == "." {
		return c.Tree, c.Hash, err
	}
	tree, err := c.Tree.Subtree(filepath.ToSlash(below))
	if err != nil {
		return nil, "", fmt.Errorf("%s in %.12s: %w", below, c.Hash, err)
	}
	return tree, c.Hash, nil
}

// top finds the root of the config repo that dir is or lies in.
func top(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(abs); err != nil {
		return "", fmt.Errorf("config repo: %w", err)
	}
	for at := abs; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "cue.mod", "module.cue")); err == nil {
			return at, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	if _, err := os.Stat(filepath.Join(abs, "HEAD")); err == nil {
		return "", exit.Usagef("%s is a bare repository; say which revision: --rev main", dir)
	}
	return "", exit.Usagef("%s: no config repo here or above (no cue.mod/module.cue); make one with 'selvedge init %s'", dir, dir)
}

// rendered is a tree, validated and resolved.
type rendered struct {
	fleet    *fleet.Fleet
	result   *resolve.Result
	problems []fleet.Problem
}

func (r *rendered) errors() int {
	n := 0
	for _, p := range r.problems {
		if p.Severity == fleet.Error {
			n++
		}
	}
	return n
}

// render runs the steps of the reconciler that need no key: what is reviewed is what is signed.
func render(ctx context.Context, v *validate.Validator, tree validate.Tree, commit string) (*rendered, error) {
	f, problems, err := v.Validate(ctx, tree)
	if err != nil {
		return nil, fmt.Errorf("validate: %w", err)
	}
	f.Commit = commit
	res := resolve.New(resolve.Config{}).Resolve(f, resolve.Accepted{})
	for _, s := range f.Workspaces {
		problems = append(problems, s.Problems...)
	}
	return &rendered{f, res, fleet.SortProblems(append(problems, res.Problems...))}, nil
}

// validator makes one that keeps its results in the user's cache directory, if there is one.
func validator() *validate.Validator {
	cfg := validate.Config{}
	if dir, err := os.UserCacheDir(); err == nil {
		dir = filepath.Join(dir, "selvedge")
		if os.MkdirAll(dir, 0o700) == nil {
			cfg.CacheFile = filepath.Join(dir, "validate.db")
		}
	}
	return validate.New(cfg)
}
