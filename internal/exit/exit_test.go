package exit

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestExecute(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
		says string
	}{
		{[]string{"fine"}, OK, ""},
		{[]string{"findings"}, Findings, ""},
		{[]string{"other"}, 42, ""},
		{[]string{"broken"}, Environment, "tool: disk on fire\n"},
		{[]string{"fine", "extra"}, Usage, "see 'tool fine --help'"},
		{[]string{"fine", "--nonsense"}, Usage, "see 'tool fine --help'"},
		{[]string{"group", "nonsense"}, Usage, "see 'tool group --help'"},
		{[]string{"nonsense"}, Usage, "nonsense"},
	} {
		root := &cobra.Command{Use: "tool"}
		group := &cobra.Command{Use: "group"}
		group.AddCommand(&cobra.Command{Use: "sub", RunE: func(*cobra.Command, []string) error { return nil }})
		root.AddCommand(group,
			&cobra.Command{Use: "fine", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return nil }},
			&cobra.Command{Use: "findings", RunE: func(*cobra.Command, []string) error { return ErrFindings }},
			&cobra.Command{Use: "other", RunE: func(*cobra.Command, []string) error { return Quiet(42) }},
			&cobra.Command{Use: "broken", RunE: func(*cobra.Command, []string) error { return errors.New("disk on fire") }})
		root.SetArgs(c.args)
		var stderr strings.Builder
		if got := Execute(context.Background(), root, &stderr); got != c.want {
			t.Errorf("%v: exit code %d, want %d (%s)", c.args, got, c.want, stderr.String())
		}
		if !strings.Contains(stderr.String(), c.says) || (c.says == "") != (stderr.String() == "") {
			t.Errorf("%v: said %q, want %q", c.args, stderr.String(), c.says)
		}
	}
}

func TestWithNil(t *testing.T) {
	if With(Usage, nil) != nil {
		t.Error("an error was made of nil")
	}
}
