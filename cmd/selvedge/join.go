package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/account"
	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/reconciler/hub/client"
	"selvedge/reconciler/trustdir"
	"selvedge/schema/hubapi"
)

// What a line that is run as root on a node may hold: a hub must not smuggle a command in.
var (
	joinTokenRE = regexp.MustCompile(`^[A-Za-z0-9_-]{16,256}$`)
	digestRE    = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	hubRE       = regexp.MustCompile(`^https://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?$`)
)

func nodeJoinCommand() *cobra.Command {
	var f hubFlags
	var r hubapi.JoinTokenRequest
	var fingerprint, trustDir, hubURL string
	c := &cobra.Command{
		Use:   "join GUIDE",
		Short: "Print the line that lets a new node ask to join",
		Long: `join asks the hub for a token of a guide and prints the line to run on the new node. The token
lets one node ask, once, and for a short time; the node waits in 'selvedge node pending' then.

The line pins the hub's CA and the fingerprint of the first root document, which the hub must not
choose: join compares it with --root-fingerprint, or with the documents in --trust if they are
there, or with what this hub gave before. Without any of these it says so: compare it then with
what 'selvedge keys root show' prints, before the line is run.`,
		Example:           "  selvedge node join lab-box\n  selvedge node join folders/plant-a/box --count 20 --ttl 8h",
		Args:              one("GUIDE"),
		ValidArgsFunction: first(completeWith(&f, guideNames)),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			r.Guide = args[0]
			if r.Count < 1 || r.Count > 1000 {
				return exit.Usagef("--count %d: want 1 to 1000", r.Count)
			}
			if fingerprint != "" && !digestRE.MatchString(fingerprint) {
				return exit.Usagef("--root-fingerprint %q: want sha256: and 64 hex digits", fingerprint)
			}
			if hubURL = account.Hub(hubURL); hubURL != "" && !hubRE.MatchString(hubURL) {
				return exit.Usagef("--hub-url %q: want https://HOST[:PORT]", hubURL)
			}
			want, by, err := rootAtHand(c, fingerprint, trustDir) // before a token is made
			if err != nil {
				return err
			}
			tokens, err := hub.JoinTokens(c.Context(), r)
			if err != nil {
				return err
			}
			tokens.Hub = cmp.Or(hubURL, account.Hub(tokens.Hub), hub.URL())
			lines, err := joinLines(tokens)
			if err != nil {
				return err
			}
			if err := rootIsKnown(c, hub.URL(), tokens.Fingerprint, want, by); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "run on the new node, as root, before %s:\n", tokens.Expires.Local().Format(time.RFC3339))
			fmt.Fprintln(c.OutOrStdout(), strings.Join(lines, "\n"))
			return nil
		}),
	}
	f.register(c)
	c.Flags().StringVar(&r.TTL, "ttl", "", "how long the token is good, at most 24h; default: 1h")
	c.Flags().IntVar(&r.Count, "count", 1, "tokens, one a node")
	c.Flags().StringVar(&fingerprint, "root-fingerprint", "", "refuse any other fingerprint of the root")
	c.Flags().StringVar(&trustDir, "trust", "trust", "directory of root documents to compare with, if it is there")
	c.Flags().StringVar(&hubURL, "hub-url", "", "address at which the node reaches the hub; default: what the hub says")
	return c
}

// rootAtHand returns the fingerprint of the root that is asked for, or of the documents in dir, and
// who wants it; none if there are no documents.
func rootAtHand(c *cobra.Command, asked, dir string) (want, by string, err error) {
	if asked != "" {
		return asked, "--root-fingerprint asks for", nil
	}
	chain, err := trustdir.Load(dir)
	switch {
	case err == nil:
		return chain.First.Fingerprint(), dir + " holds", nil
	case errors.Is(err, fs.ErrNotExist) && !c.Flags().Changed("trust"):
		return "", "", nil
	}
	return "", "", fmt.Errorf("root of trust: %w; give --root-fingerprint, or --trust with the directory of its documents", err)
}

// rootIsKnown refuses a root of trust other than the one that is wanted, or that the hub named
// before; a hub that could choose it could sign what nodes run.
func rootIsKnown(c *cobra.Command, hub, got, want, by string) error {
	book, err := account.Load()
	if err != nil { // the environment takes its place
		book = &account.Book{}
	}
	next := ""
	if want == "" {
		want, by, next = book.Roots[hub], "it gave before", "; if the root was made anew, give the new one with --root-fingerprint"
	}
	switch want {
	case got:
	case "":
		fmt.Fprintln(c.ErrOrStderr(), "nobody but the hub says that this --root is right: compare it with 'selvedge keys root show' where the root of trust is kept, before the line is run; or give that with --root-fingerprint")
	default:
		return fmt.Errorf("the hub gives %s as the fingerprint of the root, and %s %s; do not join nodes here before that is cleared up%s", got, by, want, next)
	}
	if book.Pin(hub, got) {
		return book.Save()
	}
	return nil
}

func joinLines(t hubapi.JoinTokens) ([]string, error) {
	if _, err := url.Parse(t.Hub); err != nil || !hubRE.MatchString(t.Hub) || !digestRE.MatchString(t.Fingerprint) || t.CA != "" && !digestRE.MatchString(t.CA) || len(t.Tokens) == 0 {
		return nil, errors.New("the hub's answer makes no line that is safe to run; is it a hub?")
	}
	var lines []string
	for _, token := range t.Tokens {
		if !joinTokenRE.MatchString(token) || strings.HasPrefix(token, "-") {
			return nil, errors.New("the hub's answer makes no line that is safe to run; is it a hub?")
		}
		line := "selvedge-edge join " + t.Hub + " --token " + token
		if t.CA != "" {
			line += " --ca " + t.CA
		}
		lines = append(lines, line+" --root "+t.Fingerprint)
	}
	return lines, nil
}

func nodePendingCommand() *cobra.Command {
	var f hubFlags
	var o output
	c := &cobra.Command{
		Use:   "pending",
		Short: "List nodes that joined and wait for approval",
		Args:  none,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			l, err := hub.Pending(c.Context())
			if err != nil {
				return err
			}
			codes := names(l.Items, func(p hubapi.Pending) string { return p.Code })
			return o.write(c, "nodes wait", l, codes, func() *show.Table { return pendingTable(l.Items, o.wide(), time.Now()) })
		}),
	}
	f.register(c)
	o.register(c)
	return c
}

func pendingTable(pending []hubapi.Pending, wide bool, now time.Time) *show.Table {
	t := &show.Table{Heading: []string{"CODE", "NAME", "GUIDE", "SCOPE", "MACHINE", "ADDRESS", "AGE", "EXPIRES"}}
	if wide {
		t.Heading = append(t.Heading, "KEY", "LABELS")
	}
	for _, p := range pending {
		row := []any{p.Code, p.Name, path.Base(p.Guide), p.Scope, show.Short(machine(p), 60), p.Address, show.Ago(now, p.At), "in " + show.Ago(p.Expires, now)}
		if wide {
			row = append(row, p.PublicKey, labels(p.Labels))
		}
		t.Add(row...)
	}
	return t
}

func machine(p hubapi.Pending) string {
	m := p.Machine
	return strings.Join(filled(m.Hostname, m.OS, m.Arch, count(m.CPUs, "CPU"), show.Bytes(m.Memory)), ", ")
}

func nodeRejectCommand() *cobra.Command {
	var f hubFlags
	c := &cobra.Command{
		Use:               "reject CODE…",
		Short:             "Forget nodes that wait for approval",
		Args:              some("CODE"),
		ValidArgsFunction: completeWith(&f, pendingCodes),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			for _, code := range args {
				if err := hub.Reject(c.Context(), strings.ToUpper(code)); err != nil {
					return err
				}
				fmt.Fprintf(c.ErrOrStderr(), "%s rejected\n", show.Text(strings.ToUpper(code)))
			}
			return nil
		}),
	}
	f.register(c)
	return c
}
