package main

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"selvedge/internal/exit"
	"selvedge/reconciler/sign"
	"selvedge/reconciler/trustdir"
	"selvedge/schema/trust"
)

// rootFlags are shared by the commands that make root documents.
type rootFlags struct {
	dir          string
	signWith     []string
	passwordFile string
}

func (f *rootFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "trust", "trust", "directory of root documents")
	c.Flags().StringSliceVar(&f.signWith, "sign-with", nil, "root private key to sign with; may be given several times")
	c.Flags().StringVar(&f.passwordFile, "password-file", "", "file with the password of the --sign-with keys")
}

func keysRootCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "root",
		Short: "Make, rotate and show the root of trust",
		Long: `root keeps numbered root documents (the TUF root format) in a directory: 1.root.json,
2.root.json and so on. Each lists the root keys and the keys that may sign states, and is signed
by a threshold of its own root keys and of those before it. Nodes pin the first one's fingerprint
and follow the chain by themselves, however long they were away.

A document that still lacks signatures is kept as N.root.draft.json: pass the directory on and
let each holder of a root key run 'selvedge keys root sign'.`,
	}
	c.AddCommand(rootInitCommand(), rootRotateCommand(), rootSignCommand(), rootShowCommand())
	return c
}

func rootInitCommand() *cobra.Command {
	var f rootFlags
	var roots, signers []string
	var threshold int
	c := &cobra.Command{
		Use:     "init",
		Short:   "Make the first root document",
		Example: "  selvedge keys root init --root root.pub --signer cosign.pub --sign-with root.key",
		Args:    none,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(roots) == 0 || len(signers) == 0 {
				return exit.Usagef("give at least one --root and one --signer public key")
			}
			if _, err := trustdir.Load(f.dir); err == nil {
				return fmt.Errorf("%s has a root of trust already; change it with 'selvedge keys root rotate'", f.dir)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if _, err := trustdir.LoadDraft(f.dir, 0); err == nil {
				return fmt.Errorf("%s holds a draft of the first root document already; sign it with 'selvedge keys root sign', or remove it", f.dir)
			}
			rootKeys, err := publicKeys(roots)
			if err != nil {
				return err
			}
			signerKeys, err := publicKeys(signers)
			if err != nil {
				return err
			}
			d, err := trust.New(rootKeys, threshold, signerKeys)
			if err != nil {
				return err
			}
			return f.finish(c, d, nil)
		},
	}
	f.register(c)
	c.Flags().StringSliceVar(&roots, "root", nil, "public key that may change trust; may be given several times")
	c.Flags().StringSliceVar(&signers, "signer", nil, "public key that may sign states; may be given several times")
	c.Flags().IntVar(&threshold, "threshold", 1, "how many root keys must sign a change of trust")
	return c
}

func rootRotateCommand() *cobra.Command {
	var f rootFlags
	var addRoot, removeRoot, addSigner, removeSigner []string
	var threshold int
	c := &cobra.Command{
		Use:     "rotate",
		Short:   "Make the next root document",
		Example: "  selvedge keys root rotate --add-signer new.pub --remove-signer cosign.pub --sign-with root.key",
		Args:    none,
		RunE: func(c *cobra.Command, _ []string) error {
			chain, err := f.chain()
			if err != nil {
				return err
			}
			var ch trust.Change
			for files, keys := range map[*[]string]*[]crypto.PublicKey{
				&addRoot: &ch.AddRoots, &removeRoot: &ch.RemoveRoots,
				&addSigner: &ch.AddSigners, &removeSigner: &ch.RemoveSigners,
			} {
				if *keys, err = publicKeys(*files); err != nil {
					return err
				}
			}
			ch.Threshold = threshold
			if removed := len(removeSigner); removed > 0 && len(chain.Latest.Signers())+len(addSigner)-removed <= 0 {
				return fmt.Errorf("no signing key would be left, and nodes could be told nothing more; add the next one in the same step: --add-signer new.pub")
			}
			if len(addRoot)+len(removeRoot)+len(addSigner)+len(removeSigner) == 0 && threshold == 0 {
				return exit.Usagef("nothing to change; see 'selvedge keys root rotate --help'")
			}
			d, err := chain.Latest.Rotate(ch)
			if err != nil {
				return err
			}
			return f.finish(c, d, chain.Latest)
		},
	}
	f.register(c)
	c.Flags().StringSliceVar(&addRoot, "add-root", nil, "public key that may change trust from now on")
	c.Flags().StringSliceVar(&removeRoot, "remove-root", nil, "public key that may no longer")
	c.Flags().StringSliceVar(&addSigner, "add-signer", nil, "public key that may sign states from now on")
	c.Flags().StringSliceVar(&removeSigner, "remove-signer", nil, "public key that may no longer: nodes refuse its states")
	c.Flags().IntVar(&threshold, "threshold", 0, "how many root keys must sign from now on (0: as before)")
	return c
}

func rootSignCommand() *cobra.Command {
	var f rootFlags
	c := &cobra.Command{
		Use:     "sign",
		Short:   "Add signatures to the draft of a root document",
		Example: "  selvedge keys root sign --sign-with bob.key",
		Args:    none,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(f.signWith) == 0 {
				return exit.Usagef("with which key? --sign-with root.key")
			}
			var previous *trust.Root
			version := int64(0)
			if chain, err := trustdir.Load(f.dir); err == nil {
				previous, version = chain.Latest, chain.Latest.Version()
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			d, err := trustdir.LoadDraft(f.dir, version)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s holds no draft of root document %d; make one with 'selvedge keys root rotate'", f.dir, version+1)
			}
			if err != nil {
				return err
			}
			return f.finish(c, d, previous)
		},
	}
	f.register(c)
	return c
}

func rootShowCommand() *cobra.Command {
	var f rootFlags
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the root of trust: fingerprint, root keys, signers",
		Args:  none,
		RunE: func(c *cobra.Command, _ []string) error {
			chain, err := f.chain()
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			fmt.Fprintf(w, "fingerprint  %s\nversion      %d\nthreshold    %d of %d root keys\n",
				chain.First.Fingerprint(), chain.Latest.Version(), chain.Latest.Threshold(), len(chain.Latest.RootKeys()))
			for _, k := range chain.Latest.RootKeys() {
				fmt.Fprintf(w, "root key     %s\n", k.Hint)
			}
			for _, k := range chain.Latest.Signers() {
				fmt.Fprintf(w, "signer       %s\n", k.Hint)
			}
			return nil
		},
	}
	c.Flags().StringVar(&f.dir, "trust", "trust", "directory of root documents")
	return c
}

func (f *rootFlags) chain() (*trustdir.Chain, error) {
	chain, err := trustdir.Load(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, e := trustdir.LoadDraft(f.dir, 0); e == nil {
			return nil, fmt.Errorf("%s holds a draft alone, which is not in force; sign it with 'selvedge keys root sign'", f.dir)
		}
		return nil, fmt.Errorf("%s holds no root of trust; make one with 'selvedge keys root init'", f.dir)
	}
	return chain, err
}

// finish signs a draft with the keys of the flags, writes it, and says what comes next.
func (f *rootFlags) finish(c *cobra.Command, d *trust.Draft, previous *trust.Root) error {
	for _, name := range f.signWith {
		pem, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		password, err := readPassword(c, name, f.passwordFile, false)
		if err != nil {
			return err
		}
		key, err := sign.Load(pem, password)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := d.Sign(key.Key()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	name, lacks, err := trustdir.Save(f.dir, d, previous)
	if err != nil {
		return err
	}
	w := c.OutOrStdout()
	if lacks != nil {
		fmt.Fprintf(w, "%s: not in force yet: %v\nnext: selvedge keys root sign --trust %s --sign-with KEY\n", name, lacks, f.dir)
		return nil
	}
	chain, err := trustdir.Load(f.dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s\nfingerprint %s (nodes pin %s)\n", name, chain.First.Fingerprint(), filepath.Join(f.dir, "1.root.json"))
	return nil
}
