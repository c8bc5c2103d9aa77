package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestFormats asks for every format of all that shows the fleet.
func TestFormats(t *testing.T) {
	env := atHub(t)
	args := map[string][]string{"node show": {"gw-1"}, "describe": {"gw-1"}, "describe node": {"gw-1"}, "describe change": {"abc"}}
	found := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.Flags().Lookup("output") == nil {
			return
		}
		found++
		path := strings.TrimPrefix(c.CommandPath(), "selvedge ")
		for _, f := range formats {
			run := exec.CommandContext(t.Context(), "selvedge", append(append(strings.Fields(path), args[path]...), "-o", f)...)
			run.Env = env
			out, err := run.Output()
			if e := (*exec.ExitError)(nil); errors.As(err, &e) && e.ExitCode() > 1 {
				t.Errorf("%s -o %s: %s", path, f, e.Stderr)
			}
			if text := strings.TrimSpace(string(out)); f == "name" && path != "context list" && (text == "" || strings.Contains(text, " ")) {
				t.Errorf("%s -o name: %q", path, out)
			}
		}
	}
	for _, c := range command().Commands() {
		if c.GroupID == "hub" {
			walk(c)
		}
	}
	if found == 0 {
		t.Error("no command has -o")
	}
}
