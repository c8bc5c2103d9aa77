package validate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"selvedge/schema/fleet"
)

// Bounds of a tree.
const (
	maxEntries = 1_000_000
	maxDepth   = 64

	maxTreeProblems = 100
)

// plainName is that of a directory that CUE takes for a part of an import path.
var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// entry is one name in a directory.
type entry struct {
	Name string    `json:"n"`
	Kind entryKind `json:"k"`
}

type entryKind string

const (
	isFile  entryKind = "f"
	isDir   entryKind = "d"
	isOther entryKind = "o" // symbolic link, submodule, device: never read
)

// index is the listing of a whole tree, read once: what is in it is all that a
// child is told of, so that no link and no odd name leads anywhere else.
type index struct {
	tree  Tree
	dirs  map[string][]entry
	files map[string]struct{}
	// IDs are filled when they are asked for.
	ids    map[string]string // of files and directories
	cueIDs map[string]string // of directories as far as CUE files go
	// problems are those of names and kinds: what CUE would skip without a word.
	problems []treeProblem
}

// treeProblem is a problem of what is in a directory.
type treeProblem struct {
	dir string
	fleet.Problem
}

func readIndex(ctx context.Context, tree Tree) (*index, error) {
	x := &index{tree: tree, dirs: map[string][]entry{}, files: map[string]struct{}{}, ids: map[string]string{}, cueIDs: map[string]string{}}
	n := 0
	var walk func(dir string, depth int) error
	walk = func(dir string, depth int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		des, err := tree.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("list %s: %w", dir, err)
		}
		if n += len(des); n > maxEntries {
			return fmt.Errorf("list %s: the tree has more than %d entries", dir, maxEntries)
		}
		es := make([]entry, 0, len(des))
		for _, de := range des {
			k := isOther
			switch t := de.Type(); {
			case t.IsDir():
				k = isDir
			case t.IsRegular():
				k = isFile
			}
			es = append(es, entry{de.Name(), k})
		}
		slices.SortFunc(es, func(a, b entry) int { return cmp.Compare(a.Name, b.Name) })
		x.dirs[dir] = es
		for _, e := range es {
			p := path.Join(dir, e.Name)
			x.look(dir, p, e)
			switch e.Kind {
			case isFile:
				x.files[p] = struct{}{}
			case isDir:
				if skipDir(dir, e.Name) {
					continue
				}
				if depth == maxDepth {
					x.say(p, "directory nested more than %d deep; move it up", maxDepth)
					continue
				}
				if err := walk(p, depth+1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := walk(".", 0); err != nil {
		return nil, err
	}
	return x, nil
}

// skipDir tells directories at the top that are for other tools, such as .git and .github.
func skipDir(dir, name string) bool { return dir == "." && strings.HasPrefix(name, ".") }

func (x *index) say(file, format string, args ...any) {
	if len(x.problems) == maxTreeProblems {
		format, args = "more names like these are not shown; mend those above first", nil
	} else if len(x.problems) > maxTreeProblems {
		return
	}
	x.problems = append(x.problems, treeProblem{path.Dir(file), printable(fleet.Problem{
		Severity: fleet.Error, Position: fleet.Position{File: file}, Message: fmt.Sprintf(format, args...),
	})})
}

// look refuses by name what CUE, or this package, would pass over in silence.
func (x *index) look(dir, p string, e entry) {
	name := e.Name
	if e.Kind == isOther {
		x.say(p, "neither a file nor a directory (a symbolic link or a submodule): it would lead out of the reviewed tree; replace it by a copy")
		return
	}
	if clean(name) != name {
		x.say(p, "the name has control characters or is too long; rename it")
		return
	}
	if dir == "cue.mod" {
		switch name {
		case "module.cue", "pkg":
		case "local-module.cue":
			x.say(p, "redirects imports on one machine only; remove it, and vendor packages below cue.mod/pkg")
		default:
			x.say(p, "not supported; cue.mod holds module.cue and pkg alone")
		}
		return
	}
	if name == "cue.mod" && dir != "." {
		x.say(p, "a module inside the repo: CUE would leave out its whole directory; remove it")
		return
	}
	if strings.HasPrefix(p, "cue.mod/") {
		return
	}
	hidden := strings.HasPrefix(name, "_") || strings.HasPrefix(name, ".")
	switch {
	case e.Kind == isDir:
		switch {
		case !within(p, foldersDir):
		case hidden:
			x.say(p, "CUE leaves out directories whose name begins with %q; rename it", name[:1])
		case !plainName.MatchString(name):
			x.say(p, "the name of a directory is part of import paths; use letters, digits, dots, dashes and underscores")
		}
	case !strings.HasSuffix(name, ".cue"):
		if strings.EqualFold(path.Ext(name), ".cue") {
			x.say(p, "CUE leaves out files whose name does not end in .cue in lower case; rename it")
		}
	case hidden:
		x.say(p, "CUE leaves out files whose name begins with %q; rename it", name[:1])
	case strings.HasSuffix(name, "_tool.cue"), strings.HasSuffix(name, "_test.cue"):
		x.say(p, "CUE leaves out files whose name ends in %s; rename it", name[strings.LastIndexByte(name, '_'):])
	}
}

func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// id names what a path held, and is empty if it held nothing that may be read.
func (x *index) id(p string) (string, error) {
	if id, ok := x.ids[p]; ok {
		return id, nil
	}
	id := ""
	if es, ok := x.dirs[p]; ok {
		h := sha256.New()
		for _, e := range es {
			fmt.Fprintf(h, "%s%s\x00", e.Kind, e.Name)
		}
		id = "d" + hex.EncodeToString(h.Sum(nil)[:16])
	} else if _, ok := x.files[p]; ok {
		fid, err := x.tree.ID(p)
		if err != nil {
			return "", fmt.Errorf("id of %s: %w", p, err)
		}
		id = "f" + fid
	}
	x.ids[p] = id
	return id, nil
}

// cueFiles returns the CUE files of a directory, and false if there is no such directory.
func (x *index) cueFiles(dir string) ([]entry, bool) {
	es, ok := x.dirs[dir]
	out := []entry{}
	for _, e := range es {
		if e.Kind == isFile && strings.HasSuffix(e.Name, ".cue") {
			out = append(out, e)
		}
	}
	return out, ok
}

// cueID names the CUE files of a directory.
func (x *index) cueID(dir string) string {
	if id, ok := x.cueIDs[dir]; ok {
		return id
	}
	id := ""
	if es, ok := x.cueFiles(dir); ok {
		h := sha256.New()
		for _, e := range es {
			fmt.Fprintf(h, "%s\x00", e.Name)
		}
		id = "c" + hex.EncodeToString(h.Sum(nil)[:16])
	}
	x.cueIDs[dir] = id
	return id
}

// read returns a file's content unless it is larger than max.
func (x *index) read(p string, max int64) ([]byte, error) {
	if _, ok := x.files[p]; !ok {
		return nil, fs.ErrNotExist
	}
	if fi, err := fs.Stat(x.tree, p); err == nil && fi.Size() > max {
		return nil, &tooMuchError{fi.Size(), max}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("stat %s: %w", p, err)
	}
	b, err := x.tree.ReadFile(p)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p, err)
	}
	if int64(len(b)) > max {
		return nil, &tooMuchError{int64(len(b)), max}
	}
	return b, nil
}

// cueDirs returns the directories that hold CUE files of the repo's own, those above first.
func (x *index) cueDirs() []string {
	var out []string
	for dir, es := range x.dirs {
		if within(dir, "cue.mod") || strings.Contains(dir+"/", "/cue.mod/") {
			continue
		}
		if slices.ContainsFunc(es, func(e entry) bool { return e.Kind == isFile && strings.HasSuffix(e.Name, ".cue") }) {
			out = append(out, dir)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(cmp.Compare(depthOf(a), depthOf(b)), cmp.Compare(a, b))
	})
	return out
}

func depthOf(dir string) int {
	if dir == "." {
		return 0
	}
	return 1 + strings.Count(dir, "/")
}
