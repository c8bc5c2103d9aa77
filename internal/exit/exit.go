// Package exit turns a command's errors into exit codes.
package exit

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// The exit codes of every command.
const (
	OK          = 0
	Findings    = 1 // the answer is no: problems in a repo, an unhealthy node
	Usage       = 2 // the command line is wrong
	Environment = 3 // what the command needs is missing or refuses: a file, a service, a right
)

type coded struct {
	code int
	err  error
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }

// ErrFindings ends a command whose findings were printed already: code 1, and no more said.
var ErrFindings = errors.New("findings were printed")

var errQuiet = errors.New("what there was to say was said")

// Quiet ends a command with a code, such as that of another command that it ran, and says
// nothing. Zero is no error.
func Quiet(code int) error {
	if code == OK {
		return nil
	}
	return &coded{code, errQuiet}
}

// Said reports whether there is nothing more to say of an error.
func Said(err error) bool { return errors.Is(err, ErrFindings) || errors.Is(err, errQuiet) }

// With gives an error a code; nil stays nil.
func With(code int, err error) error {
	if err == nil {
		return nil
	}
	return &coded{code, err}
}

// Usagef is an error of the command line.
func Usagef(format string, args ...any) error { return With(Usage, fmt.Errorf(format, args...)) }

// Code returns the exit code of an error. Errors without a code are of the environment.
func Code(err error) int {
	var c *coded
	switch {
	case err == nil:
		return OK
	case errors.Is(err, ErrFindings):
		return Findings
	case errors.As(err, &c):
		return c.code
	}
	return Environment
}

// Execute runs a command line and returns the exit code; it prints an error once, with
// the command's name in front.
func Execute(ctx context.Context, root *cobra.Command, stderr io.Writer) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.InitDefaultCompletionCmd() // before the look at all commands
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return Usagef("%w; see '%s --help'", err, c.CommandPath())
	})
	for _, c := range all(root) {
		if !c.Runnable() {
			c.Args = func(c *cobra.Command, a []string) error {
				if len(a) > 0 {
					return Usagef("unknown command %q; see '%s --help'", a[0], c.CommandPath())
				}
				return nil
			}
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		} else if args := c.Args; args != nil {
			c.Args = func(c *cobra.Command, a []string) error {
				if err := args(c, a); err != nil {
					return Usagef("%w; see '%s --help'", err, c.CommandPath())
				}
				return nil
			}
		}
	}
	err := root.ExecuteContext(ctx)
	if err != nil && !Said(err) && !errors.Is(err, context.Canceled) {
		fmt.Fprintf(stderr, "%s: %v\n", root.Name(), err)
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return OK // asked to stop, and stopped
	}
	return Code(err)
}

func all(c *cobra.Command) []*cobra.Command {
	cs := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		cs = append(cs, all(sub)...)
	}
	return cs
}
