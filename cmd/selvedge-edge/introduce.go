package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"selvedge/edge"
	"selvedge/internal/atomicfile"
)

func introduceCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "introduce",
		Short: "Write a file by which this machine can be approved without a link",
		Long: `introduce makes this machine's keys and writes their public halves, signed, with what the machine is. Carry
the file to a clone of the config repo and run 'selvedge node approve --file' there; then set the
node up with 'selvedge-edge init'.`,
		Example: "  selvedge-edge introduce -o /media/stick/gw-7.json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := edge.Introduce(dir(c))
			if err != nil {
				return err
			}
			if out == "" {
				_, err = c.OutOrStdout().Write(b)
				return err
			}
			if err := atomicfile.Write(out, b, 0o644); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "carry %s to a clone of the config repo:\n  selvedge node approve --file %s --name NAME --workspace FOLDER\n", out, out)
			return nil
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "file to write (default: standard output)")
	return c
}
