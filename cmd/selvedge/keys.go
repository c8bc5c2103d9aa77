package main

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"selvedge/internal/exit"
	"selvedge/reconciler/sign"
)

func keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make signing keys and the root of trust",
		Long: `keys makes what nodes trust.

A signing key signs states; the reconciler holds it. Root keys decide which signing keys
nodes trust; keep them offline, apart from each other, and use them only to sign a new root
document. Both are cosign key pairs. Passwords are read from the environment variable
COSIGN_PASSWORD, a file, or the terminal.`,
	}
	c.AddCommand(keysGenerateCommand(), keysRootCommand())
	return c
}

func keysGenerateCommand() *cobra.Command {
	var out, passwordFile string
	c := &cobra.Command{
		Use:     "generate",
		Short:   "Make a key pair: NAME.key and NAME.pub",
		Example: "  selvedge keys generate --out cosign   # the reconciler's signing key\n  selvedge keys generate --out root     # a root key, to be kept offline",
		Args:    none,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, name := range []string{out + ".key", out + ".pub"} {
				if _, err := os.Lstat(name); err == nil {
					return fmt.Errorf("%s is there already; a key is never overwritten, choose another --out", name)
				} else if !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			password, err := readPassword(c, out+".key", passwordFile, true)
			if err != nil {
				return err
			}
			private, public, err := sign.GenerateKeyPair(password)
			if err != nil {
				return err
			}
			if err := writeNew(out+".key", private, 0o600); err != nil {
				return err
			}
			if err := writeNew(out+".pub", public, 0o644); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s.key (keep it secret)\n%s.pub\n", out, out)
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", "cosign", "name of the files, without their endings")
	c.Flags().StringVar(&passwordFile, "password-file", "", "file with the password")
	return c
}

// writeNew writes a file that is not there yet, durably.
func writeNew(name string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// readPassword asks for a key's password: a file, COSIGN_PASSWORD, or the terminal.
func readPassword(c *cobra.Command, key, file string, twice bool) ([]byte, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("password of %s: %w", key, err)
		}
		return bytes.TrimRight(b, "\r\n"), nil
	}
	if p, ok := os.LookupEnv("COSIGN_PASSWORD"); ok {
		return []byte(p), nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, exit.Usagef("the password of %s is needed; set COSIGN_PASSWORD or give --password-file", key)
	}
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprintf(c.ErrOrStderr(), "%s %s: ", prompt, key)
		defer fmt.Fprintln(c.ErrOrStderr())
		return askSecret(c.Context())
	}
	p, err := ask("Password of")
	if err != nil || !twice {
		return p, err
	}
	again, err := ask("Once more, password of")
	if err == nil && !bytes.Equal(p, again) {
		err = exit.Usagef("the two passwords differ; nothing was made")
	}
	return p, err
}

// publicKeys reads PEM public keys from files.
func publicKeys(files []string) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		k, err := cryptoutils.UnmarshalPEMToPublicKey(b)
		if err != nil {
			return nil, fmt.Errorf("%s is not a public key in PEM: %w", name, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}
