package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// one is the arguments of a command that works on one thing.
func one(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("want one %s, not %d", what, len(args))
		}
		if args[0] == "" { // as of a variable of a script that is not set
			return fmt.Errorf("want one %s, and it is empty", what)
		}
		return nil
	}
}

// atMostOne is those of a command for which there is something to take without.
func atMostOne(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return fmt.Errorf("want one %s at most, not %d", what, len(args))
		}
		return nil
	}
}

// some is those of a command that works on several things.
func some(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("want one %s at least", what)
		}
		return nil
	}
}

// none is those of a command that has flags only.
func none(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is not wanted here: there are flags only", args[0])
	}
	return nil
}
