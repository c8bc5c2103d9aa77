package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"selvedge/internal/exit"
	"selvedge/schema"
)

// moduleRE is what a CUE module may be called, for people: a host name, then a path.
var moduleRE = regexp.MustCompile(`^[a-z0-9]+([.-][a-z0-9]+)*\.[a-z]{2,}(/[A-Za-z0-9._-]+)*$`)

func initCommand() *cobra.Command {
	var module string
	var upgrade bool
	c := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Start a config repo, or bring the schema in one up to date",
		Long: `init writes a small config repo that validates: a platform, a folder, a workspace, and CI files.
It never overwrites a file. With --upgrade it replaces the copy of the schema in an existing
repo with the one that this program knows, and touches nothing else.`,
		Args: atMostOne("directory"),
		RunE: func(c *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			if upgrade {
				return upgradeSchema(c, dir)
			}
			return start(c, dir, module)
		},
	}
	c.Flags().StringVar(&module, "module", "", "name of the CUE module, e.g. example.com/fleet")
	c.Flags().BoolVar(&upgrade, "upgrade", false, "replace the schema in this repo with the built-in one")
	return c
}

func start(c *cobra.Command, dir, module string) error {
	if module != "" && !moduleRE.MatchString(module) {
		return exit.Usagef("module %q: want a host name and a path, such as example.com/fleet", module)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	files := schema.Skeleton()
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names { // nothing is written if something is in the way
		if _, err := root.Lstat(name); err == nil {
			return fmt.Errorf("%s is there already; init starts a new repo, 'selvedge init --upgrade' brings the schema in this one up to date", path.Join(dir, name))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, name := range names {
		content := files[name]
		if module != "" && name == "cue.mod/module.cue" {
			content = regexp.MustCompile(`(?m)^module: .*$`).ReplaceAll(content, fmt.Appendf(nil, "module: %q", module+"@v0"))
		}
		if err := write(root, name, content); err != nil {
			return err
		}
		if !strings.HasPrefix(name, schema.VendorDir) {
			fmt.Fprintln(c.OutOrStdout(), path.Join(dir, name))
		}
	}
	fmt.Fprintf(c.ErrOrStderr(), "next: selvedge validate %s\n", dir)
	return nil
}

func upgradeSchema(c *cobra.Command, dir string) error {
	at, err := top(dir)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(at)
	if err != nil {
		return err
	}
	defer root.Close()
	files := schema.Vendor()
	changed := 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		old, err := root.ReadFile(name)
		if err == nil && bytes.Equal(old, files[name]) {
			continue
		}
		if err := write(root, name, files[name]); err != nil {
			return err
		}
		changed++
	}
	// files that the schema no longer has would be part of the package still
	old, err := fs.ReadDir(root.FS(), schema.VendorDir)
	if err != nil {
		return err
	}
	for _, e := range old {
		name := path.Join(schema.VendorDir, e.Name())
		if _, ok := files[name]; !ok {
			if err := root.RemoveAll(name); err != nil {
				return err
			}
			changed++
		}
	}
	fmt.Fprintf(c.OutOrStdout(), "schema %.19s, %s changed\n", schema.Digest(), count(changed, "file"))
	return nil
}

// write replaces a file of the tree by renaming, so that no half of one is ever there.
func write(root *os.Root, name string, content []byte) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	tmp := path.Join(path.Dir(name), "."+path.Base(name)+".tmp")
	if err := root.WriteFile(tmp, content, 0o644); err != nil {
		return err
	}
	return root.Rename(tmp, name)
}
