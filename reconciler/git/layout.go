package git

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// layout is where the parts of a repository lie; they differ for a linked worktree.
type layout struct {
	gitDir    string // HEAD
	commonDir string // refs, packed-refs, objects, config
	workTree  string // "" for a bare repository
}

// locate finds the repository at dir, which may be a worktree, a bare repository or a
// .git folder; with up, also the one that dir lies in.
func locate(dir string, up bool) (layout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return layout{}, err
	}
	st, err := os.Stat(abs)
	if err == nil && !st.IsDir() {
		err = errors.New("is not a folder")
	}
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return layout{}, &Error{Op: "open", What: abs, Kind: ErrNotRepository, Why: err.Error(), Hint: "check the path; " + hintStays, cause: err}
	}
	for at := abs; ; at = filepath.Dir(at) {
		l, err := layoutAt(at)
		if err == nil || !errors.Is(err, ErrNotRepository) {
			return l, err
		}
		if !up || filepath.Dir(at) == at {
			return layout{}, &Error{Op: "open", What: abs, Kind: ErrNotRepository,
				Why: "neither it nor a .git in it holds HEAD, objects and refs", Hint: "check the path, or make one with git init"}
		}
	}
}

func layoutAt(dir string) (layout, error) {
	dot := filepath.Join(dir, ".git")
	st, err := os.Stat(dot)
	switch {
	case err == nil && st.IsDir():
		if l, err := gitDirAt(dot); err == nil {
			l.workTree = dir
			return l, nil
		}
	case err == nil && st.Mode().IsRegular():
		to, err := readPointer(dot, "gitdir: ")
		if err != nil {
			return layout{}, err
		}
		l, err := gitDirAt(to)
		if err != nil {
			return layout{}, &Error{Op: "open", What: dot, Kind: ErrCorrupt,
				Why: "it points to " + to + ", which is no Git folder", Hint: "run git worktree repair"}
		}
		l.workTree = dir
		return l, nil
	}
	return gitDirAt(dir)
}

func gitDirAt(dir string) (layout, error) {
	l := layout{gitDir: dir, commonDir: dir}
	if to, err := readPointer(filepath.Join(dir, "commondir"), ""); err == nil {
		l.commonDir = to
	}
	if _, err := os.Lstat(filepath.Join(dir, "HEAD")); err != nil {
		return layout{}, ErrNotRepository
	}
	for _, sub := range []string{"objects", "refs"} {
		if st, err := os.Stat(filepath.Join(l.commonDir, sub)); err != nil || !st.IsDir() {
			return layout{}, ErrNotRepository
		}
	}
	return l, nil
}

// readPointer reads a file that holds one path, relative to the file's own folder.
func readPointer(file, prefix string) (string, error) {
	data, err := readBounded(file, 4096)
	if err != nil {
		return "", err
	}
	to, ok := strings.CutPrefix(strings.TrimRight(string(data), "\r\n"), prefix)
	if !ok || to == "" {
		return "", &Error{Op: "open", What: file, Kind: ErrCorrupt, Why: "it names no folder", Hint: "run git worktree repair"}
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(file), to)
	}
	return filepath.Clean(to), nil
}
