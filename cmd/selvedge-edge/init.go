package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"selvedge/edge"
	"selvedge/internal/exit"
	"selvedge/schema/trust"
)

func initCommand() *cobra.Command {
	var s edge.Settings
	var root string
	c := &cobra.Command{
		Use:   "init",
		Short: "Make this node's key and pin the root of trust",
		Long: `init prepares this machine as a node. It makes the node's own key, pins the platform's first
root document, and prints the public key to be put into Git. It may be run again to change
where states are pulled from; it never replaces a key or a root. It dials nobody; with a join
line, 'selvedge-edge join' does it all.`,
		Example: `  selvedge-edge init --node gw-7 --hub https://hub.example --ca sha256:… --root 1.root.json --fingerprint sha256:…
  selvedge-edge init --node gw-7 --registry https://selvedge.example --root 1.root.json --fingerprint sha256:…`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.Node == "" || s.Registry == "" && len(s.Hubs) == 0 || root == "" {
				return exit.Usagef("--node, --registry or --hub, and --root are needed; see 'selvedge-edge init --help'")
			}
			doc, err := readBounded(root, trust.MaxSize)
			if err != nil {
				return fmt.Errorf("root document: %w", err)
			}
			if strings.HasPrefix(s.CAFile, "sha256:") {
				if len(s.Hubs) == 0 || s.Registry != "" {
					return exit.Usagef("--ca sha256:… is for a hub; give the PEM file for --registry; see 'selvedge-edge init --help'")
				}
				s.HubPin, s.CAFile = s.CAFile, ""
			}
			for _, f := range []*string{&s.CAFile, &s.CredentialsFile} {
				if *f == "" {
					continue
				}
				if *f, err = filepath.Abs(*f); err != nil { // the agent starts elsewhere
					return err
				}
			}
			if len(s.Hubs) > 0 {
				s.HubCA = s.CAFile
			}
			public, err := edge.Init(dir(c), s, doc)
			if errors.Is(err, edge.ErrSettings) {
				return exit.Usagef("%w; see 'selvedge-edge init --help'", err)
			}
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			fmt.Fprintf(w, "%s\n", public)
			fmt.Fprintf(c.ErrOrStderr(), "put it into Git:\n  node: %q: identity: publicKey: %q\nthen start: selvedge-edge run --dir %s\n", s.Node, public, dir(c))
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&s.Node, "node", "", "name of this node in the config repo (required)")
	f.StringVar(&s.Registry, "registry", "", "where states are pulled from: https://host[:port] (default: the hub)")
	f.StringSliceVar(&s.Hubs, "hub", nil, "hub for the live connection: https://host[:port]; may be given several times")
	f.StringVar(&s.Prefix, "prefix", "", "prefix of the repositories, as the reconciler has it")
	f.StringVar(&root, "root", "", "the platform's first root document, 1.root.json (required)")
	f.StringVar(&s.Fingerprint, "fingerprint", "", "what 'selvedge keys root show' prints; refuses any other root document")
	f.StringVar(&s.CAFile, "ca", "", "what the certificates of hub and registry go back to: a PEM file, or, for a hub alone, sha256:… of a certificate (default: the system's)")
	f.StringVar(&s.CredentialsFile, "credentials", "", "file with 'user:password' or 'Bearer TOKEN' for the registry, mode 0600")
	f.BoolVar(&s.AllowHTTP, "plain-http", false, "allow http:// beyond loopback: states stay signed, but anyone can read them")
	return c
}

func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s: more than %d bytes", name, most)
	}
	return b, err
}
