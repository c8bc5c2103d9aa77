// Package trustdir keeps the root documents of a platform in a directory.
//
// The documents are the files 1.root.json, 2.root.json and so on; one that still
// lacks signatures is kept beside them as N.root.draft.json. Load accepts the
// directory only as a whole: from the first document, each must follow from the
// one before. The package makes no keys and signs nothing.
package trustdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"selvedge/internal/atomicfile"
	"selvedge/schema/trust"
)

// Chain is a directory's documents, checked.
type Chain struct {
	First, Latest *trust.Root
	Docs          [][]byte // oldest first
}

// Load reads the chain. The error wraps fs.ErrNotExist if there is no first document.
func Load(dir string) (*Chain, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var c Chain
	for n := 1; n <= trust.MaxDocuments; n++ {
		doc, err := read(root, fmt.Sprintf("%d.root.json", n))
		if errors.Is(err, fs.ErrNotExist) && n > 1 {
			break
		}
		if err != nil {
			return nil, err
		}
		if n == 1 {
			c.First, err = trust.Parse(doc)
			c.Latest = c.First
			if err == nil && c.First.Version() != 1 {
				err = fmt.Errorf("it is version %d", c.First.Version())
			}
		} else {
			c.Latest, err = c.Latest.Next(doc)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, fmt.Sprintf("%d.root.json", n)), err)
		}
		c.Docs = append(c.Docs, doc)
	}
	return &c, nil
}

// Signs reports whether a key of that hint may sign states by the newest document.
func (c *Chain) Signs(hint string) bool {
	for _, s := range c.Latest.Signers() {
		if s.Hint == hint {
			return true
		}
	}
	return false
}

// LoadDraft reads the draft that follows version n, 0 for the first.
func LoadDraft(dir string, n int64) (*trust.Draft, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	doc, err := read(root, draftName(n+1))
	if err != nil {
		return nil, err
	}
	return trust.ParseDraft(doc)
}

// Save writes a draft: as the next document of the chain if it has all signatures that
// it needs, and otherwise as a draft. It returns the file's name and what is still lacking, if anything.
func Save(dir string, d *trust.Draft, previous *trust.Root) (name string, lacks error, err error) {
	doc, err := d.Bytes()
	if err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	final := filepath.Join(dir, fmt.Sprintf("%d.root.json", d.Version()))
	if _, err := os.Lstat(final); err == nil {
		return "", nil, fmt.Errorf("%s: %w; a published document never changes", final, fs.ErrExist)
	}
	draft := filepath.Join(dir, draftName(d.Version()))
	if lacks = d.Check(previous); lacks != nil {
		return draft, lacks, atomicfile.Write(draft, doc, 0o644)
	}
	if err := atomicfile.Write(final, doc, 0o644); err != nil {
		return "", nil, err
	}
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, err
	}
	return final, nil, nil
}

func draftName(n int64) string { return fmt.Sprintf("%d.root.draft.json", n) }

func read(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, trust.MaxSize+1))
	if err == nil && len(b) > trust.MaxSize {
		err = fmt.Errorf("%s: more than %d bytes", name, trust.MaxSize)
	}
	return b, err
}
