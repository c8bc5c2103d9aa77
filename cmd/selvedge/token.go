package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cuelang.org/go/cue/format"
	"cuelang.org/go/cue/literal"
	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/clone"
	"selvedge/internal/exit"
)

// tokenPrefix makes tokens recognizable to people and to scanners for leaked secrets.
const tokenPrefix = "selvedge_"

func tokenCommand() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Make tokens for the hub's API"}
	c.AddCommand(tokenCreateCommand())
	return c
}

func tokenCreateCommand() *cobra.Command {
	var w changeFlags
	var identity, role, scope, expires string
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make an API token and commit its hash",
		Long: `create makes a token for an identity of the config repo, writes its hash into a file beside the
identity's own, checks the commit that it makes, and makes it. It prints the token once, on
standard output: nobody can show it again. The merge of the commit makes it valid; a commit that
removes the file revokes it.`,
		Example: "  selvedge token create laptop --identity ana > token && selvedge login https://hub.example:8443 --token-file token\n  selvedge token create ci --identity deployer --role viewer --scope folders/plant-a --expires 30d",
		Args:    one("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			if identity == "" {
				return exit.Usagef("say whose token it is: --identity NAME")
			}
			if role != "" && role != "viewer" && role != "editor" && role != "admin" {
				return exit.Usagef("--role %q: there are viewer, editor and admin", role)
			}
			until, err := expiry(expires, time.Now())
			if err != nil {
				return err
			}
			bench, err := w.open(c.Context())
			if err != nil {
				return err
			}
			defer bench.close()
			if scope != "" {
				if fi, err := fs.Stat(bench.tree, path.Clean(scope)); err != nil || !fi.IsDir() {
					return exit.Usagef("--scope %q: no such folder or workspace in the repo, as it is committed", scope)
				}
			}
			file, err := tokenFile(bench, identity, name)
			if err != nil {
				return err
			}
			text, hash := newToken()
			source, err := tokenSource(identity, name, hash, role, scope, until)
			if err != nil {
				return err
			}
			ch := clone.Change{Write: map[string][]byte{file: source}, Subject: fmt.Sprintf("identity %s: token %s", identity, name)}
			if _, err := bench.check(c, ch); err != nil {
				return err
			}
			w.yes = true // nothing is granted that the identity has not
			done, err := bench.finish(c, ch, "")
			if done { // also if it was not pushed: it is shown now or never
				if _, e := fmt.Fprintln(c.OutOrStdout(), text); e != nil {
					return fmt.Errorf("the token could not be printed; revert the commit: %w", e)
				}
			}
			return err
		},
	}
	w.register(c)
	c.Flags().StringVar(&identity, "identity", "", "whose token it is, by the name in the repo")
	c.Flags().StringVar(&role, "role", "", "at most this role: viewer, editor or admin; default: all that the identity has")
	c.Flags().StringVar(&scope, "scope", "", "in this folder or workspace only, e.g. folders/plant-a")
	c.Flags().StringVar(&expires, "expires", "90d", "how long it is valid, e.g. 90d or 12h, or until when, e.g. 2027-01-31T00:00:00Z")
	return c
}

// newToken makes a token of 256 random bits, so that a plain hash of it is enough.
func newToken() (text, hash string) {
	b := make([]byte, 32)
	rand.Read(b) // crypto/rand never fails
	text = tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(text))
	return text, "sha256:" + hex.EncodeToString(sum[:])
}

var daysRE = regexp.MustCompile(`^([0-9]{1,5})d$`)

func expiry(s string, now time.Time) (time.Time, error) {
	if m := daysRE.FindStringSubmatch(s); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 {
			return now.AddDate(0, 0, n), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil && t.After(now) {
		return t, nil
	}
	return time.Time{}, exit.Usagef("--expires %q: want a time to come, such as 90d, 12h or 2027-01-31T00:00:00Z", s)
}

// tokenFile is where the hash goes: beside the file that declares the identity.
func tokenFile(w *workbench, identity, name string) (string, error) {
	found := w.origins("identity/" + identity)
	if len(found) == 0 {
		return "", exit.With(exit.Findings, fmt.Errorf("no identity %q is declared in the repo; declare it first, with a role binding", identity))
	}
	scope := found[0].Scope
	for _, o := range found[1:] {
		if o.Scope != scope {
			return "", exit.With(exit.Findings, fmt.Errorf("identity %q is declared twice, at %s and %s; see 'selvedge validate'", identity, found[0], o))
		}
	}
	file := path.Join(scope, "token-"+plainName(identity)+"-"+plainName(name)+".cue")
	if _, err := fs.Stat(w.tree, file); err == nil {
		return "", exit.With(exit.Findings, fmt.Errorf("%s is there already; choose another name, or remove it first, which revokes that token", file))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return file, nil
}

// plainName makes a name that is safe in a file's.
func plainName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, s)
}

func tokenSource(identity, name, hash, role, scope string, until time.Time) ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "package fleet\n\nidentity: %s: token: %s: {\nhash: %q\nexpires: %q\n",
		literal.String.Quote(identity), literal.String.Quote(name), hash, until.UTC().Format("2006-01-02T15:04:05Z"))
	if role != "" {
		fmt.Fprintf(&b, "role: %q\n", role)
	}
	if scope != "" {
		fmt.Fprintf(&b, "scope: %s\n", literal.String.Quote(strings.Trim(scope, "/")))
	}
	b.WriteString("}\n")
	return format.Source([]byte(b.String()))
}
