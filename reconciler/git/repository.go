package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

// Repository is a local repository, open for reading. It is safe for concurrent use.
type Repository struct {
	objects *objects
}

// Open opens the repository that dir is or lies in: a worktree (linked ones too), a bare
// repository, or a .git folder.
func Open(dir string) (*Repository, error) {
	l, err := locate(dir, true)
	if err != nil {
		return nil, err
	}
	return openAt(l, Limits{})
}

func openAt(l layout, lim Limits) (*Repository, error) {
	r := &Repository{objects: newObjects(l, lim)}
	if err := r.objects.supported(); err != nil {
		return nil, err
	}
	return r, nil
}

// Root is the folder of the worktree, or "" if the repository is bare.
func (r *Repository) Root() string { return r.objects.layout.workTree }

// supported refuses repositories whose refs or hashes are kept in ways that would be misread.
func (o *objects) supported() (err error) {
	defer guard("open", o.layout.commonDir, &err)
	o.mu.Lock()
	cfg, err := o.stores[0].Config()
	o.mu.Unlock()
	if err != nil { // Git's own parser accepts more; refs and objects show by themselves what is wrong
		return nil
	}
	ext := cfg.Raw.Section("extensions")
	if f := strings.ToLower(ext.Option("refStorage")); f != "" && f != "files" {
		return &Error{Op: "open", What: o.layout.commonDir, Kind: ErrUnsupported, Why: "it keeps its refs as " + f,
			Hint: "migrate it with git refs migrate --ref-format=files"}
	}
	if f := strings.ToLower(ext.Option("objectFormat")); f != "" && f != "sha1" {
		return &Error{Op: "open", What: o.layout.commonDir, Kind: ErrUnsupported, Why: "it names its objects by " + f,
			Hint: "use a repository with SHA-1 names"}
	}
	return nil
}

// branchRef is the full name of a branch, HEAD for "".
func branchRef(branch string) plumbing.ReferenceName {
	switch {
	case branch == "":
		return plumbing.HEAD
	case strings.HasPrefix(branch, "refs/"):
		return plumbing.ReferenceName(branch)
	}
	return plumbing.NewBranchReferenceName(branch)
}

// tip follows a branch, or HEAD, to its commit. It returns the ref that it ended at:
// refs/heads/main, or "" for a detached HEAD.
func (o *objects) tip(branch string) (h plumbing.Hash, ref string, err error) {
	defer guard("read", "the refs", &err)
	name := branchRef(branch)
	where := o.layout.gitDir
	for range 6 {
		found, err := o.reference(name)
		switch {
		case errors.Is(err, plumbing.ErrReferenceNotFound):
			return plumbing.ZeroHash, name.String(), o.noBranch(name)
		case err != nil:
			return plumbing.ZeroHash, name.String(), corrupt("read "+name.String()+" of", where, err)
		case found.Type() == plumbing.SymbolicReference:
			name = found.Target()
		case found.Hash().IsZero():
			return plumbing.ZeroHash, name.String(), corrupt("read "+name.String()+" of", where, errors.New("it names no commit"))
		case name == plumbing.HEAD:
			return found.Hash(), "", nil
		default:
			return found.Hash(), name.String(), nil
		}
	}
	return plumbing.ZeroHash, name.String(), corrupt("read "+name.String()+" of", where, errors.New("refs point to each other"))
}

// reference reads one ref, loose or packed.
func (o *objects) reference(name plumbing.ReferenceName) (ref *plumbing.Reference, err error) {
	defer guard("read", name.String(), &err)
	if !name.IsSafe() {
		return nil, plumbing.ErrReferenceNotFound
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if ref, err = o.stores[0].Reference(name); err == nil {
		return ref, nil
	}
	// a folder, or a file where a folder should be: no ref of that name is there
	at := filepath.Join(o.layout.commonDir, filepath.FromSlash(name.String()))
	if st, serr := os.Stat(at); serr == nil && st.IsDir() || errors.Is(err, plumbing.ErrReferenceNotFound) ||
		errors.Is(err, dotgit.ErrReferenceNameEscape) || notDir(err) {
		return nil, plumbing.ErrReferenceNotFound
	}
	return nil, err
}

// noBranch tells an empty repository from one that lacks the branch, and from none at all.
func (o *objects) noBranch(name plumbing.ReferenceName) error {
	where := o.layout.gitDir
	if _, err := gitDirAt(where); err != nil {
		return &Error{Op: "open", What: where, Kind: ErrNotRepository, Why: "it is gone", Hint: "put it back; " + hintStays}
	}
	have, err := o.branches()
	if err != nil {
		return err
	}
	if len(have) == 0 {
		return &Error{Op: "read", What: where, Kind: ErrEmpty, Hint: "push a first commit to " + name.Short()}
	}
	return noBranch(where, name.Short(), have)
}

func noBranch(where, branch string, have []string) error {
	const most = 10
	more := ""
	slices.Sort(have)
	if len(have) > most {
		more = fmt.Sprintf(" and %d more", len(have)-most)
		have = have[:most]
	}
	return &Error{Op: "read", What: where, Kind: ErrNoBranch,
		Why:  fmt.Sprintf("%q is not there, but %s%s", branch, strings.Join(have, ", "), more),
		Hint: "push the branch or choose another; " + hintStays}
}

func (o *objects) branches() (names []string, err error) {
	defer guard("list the branches of", o.layout.gitDir, &err)
	o.mu.Lock()
	defer o.mu.Unlock()
	refs, err := o.stores[0].IterReferences()
	if err != nil {
		return nil, corrupt("list the branches of", o.layout.gitDir, err)
	}
	defer refs.Close()
	err = refs.ForEach(func(ref *plumbing.Reference) error {
		if ref.Name().IsBranch() {
			names = append(names, ref.Name().Short())
		}
		return nil
	})
	return names, err
}

// shallow lists the commits whose parents were left out of the clone.
func (o *objects) shallow() map[plumbing.Hash]bool {
	data, err := readBounded(filepath.Join(o.layout.commonDir, "shallow"), maxMetaBytes)
	if err != nil {
		return nil
	}
	cut := make(map[plumbing.Hash]bool)
	for line := range strings.Lines(string(data)) {
		cut[plumbing.NewHash(strings.TrimSpace(line))] = true
	}
	return cut
}

// Shallow reports whether part of the history was left out of the repository.
func (r *Repository) Shallow() bool { return len(r.objects.shallow()) > 0 }

// Head returns the newest commit of a branch, of HEAD for "".
func (r *Repository) Head(ctx context.Context, branch string) (*Commit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h, ref, err := r.objects.tip(branch)
	if err != nil {
		return nil, err
	}
	c, err := r.objects.readCommit(h)
	if err != nil {
		return nil, err
	}
	c.Ref = ref
	return c, nil
}
