package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/account"
	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/internal/version"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
)

func loginCommand() *cobra.Command {
	var ca, tokenFile, name string
	c := &cobra.Command{
		Use:   "login https://HUB[:PORT]",
		Short: "Remember a hub and a token for it",
		Long: `login stores a hub and a token, after asking the hub whether the token is valid, in
selvedge/config.json below the configuration directory of the user, readable by nobody else. The
token is read from --token-file, from the terminal without being shown, or from standard input;
it is never an argument, which others on the machine could see.

The variables SELVEDGE_HUB, SELVEDGE_TOKEN and SELVEDGE_CA take the place of a login, as in CI.`,
		Example: "  selvedge login https://hub.example:8443 --ca sha256:…   # the hub made its own certificate\n  selvedge login https://hub.example --token-file token",
		Args:    one("https://HUB[:PORT]"),
		RunE: func(c *cobra.Command, args []string) error {
			a := account.Account{Hub: account.Hub(args[0])}
			u, err := url.Parse(a.Hub)
			if err != nil || u.Scheme != "https" || u.Host == "" {
				return exit.Usagef("hub %q: want https://HOST[:PORT]", args[0])
			}
			if a.CA, err = account.CA(ca); err != nil {
				return err
			}
			if _, err := client.New(client.Config{URL: a.Hub, CA: a.CA}); err != nil { // before asking for a secret
				return exit.With(exit.Usage, err)
			}
			book, err := account.Load()
			if err != nil {
				return err
			}
			if a.Token, err = readToken(c, u.Host, tokenFile); err != nil {
				return err
			}
			hub, err := client.New(client.Config{URL: a.Hub, Token: a.Token, CA: a.CA, UserAgent: "selvedge/" + version.Version})
			if err != nil {
				return err
			}
			defer hub.Close()
			who, err := hub.Whoami(c.Context())
			if err != nil {
				return hubError(err)
			}
			if err := book.Put(cmp.Or(name, u.Host), a); err != nil {
				return err
			}
			if err := book.Save(); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "logged in at %s as %s, until %s\n", a.Hub, show.Text(who.Subject), who.Expires.Local().Format(time.DateOnly))
			return nil
		},
	}
	c.Flags().StringVar(&ca, "ca", "", "what the hub's certificate must be of: sha256:… as the hub prints it, or a file in PEM; default: the system's authorities")
	c.Flags().StringVar(&tokenFile, "token-file", "", "file with the token")
	c.Flags().StringVar(&name, "context", "", "name for it; default: the hub's host")
	return c
}

// readToken reads a token from a file, the terminal or standard input.
func readToken(c *cobra.Command, host, file string) (string, error) {
	var in io.Reader = c.InOrStdin()
	switch {
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("token: %w", err)
		}
		defer f.Close()
		in = f
	case show.Terminal(in):
		fmt.Fprintf(c.ErrOrStderr(), "Token for %s: ", host)
		b, err := askSecret(c.Context())
		fmt.Fprintln(c.ErrOrStderr())
		return strings.TrimSpace(string(b)), err
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("token: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return "", exit.Usagef("no token was given; put it into a file for --token-file, or on standard input")
	}
	return line, nil
}

func logoutCommand() *cobra.Command {
	var f hubFlags
	c := &cobra.Command{
		Use:   "logout",
		Short: "Forget a hub and the token for it",
		Long: `logout removes a hub and its token from this machine. The token stays valid: removing it
from the config repo, or its expiry, ends that.`,
		Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			book, err := account.Load()
			if err != nil {
				return err
			}
			name := cmp.Or(f.context, book.Current)
			if !book.Remove(name) {
				return exit.With(exit.Findings, errors.New("not logged in; nothing was changed"))
			}
			return book.Save()
		},
	}
	f.register(c)
	return c
}

// loggedIn is a hub without the token for it.
type loggedIn struct {
	Name    string `json:"name"`
	Hub     string `json:"hub"`
	Current bool   `json:"current"`
}

func contextCommand() *cobra.Command {
	c := &cobra.Command{Use: "context", Short: "Choose between hubs that one is logged in at"}
	var o output
	list := &cobra.Command{
		Use: "list", Short: "List hubs that one is logged in at", Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			book, err := account.Load()
			if err != nil {
				return err
			}
			hubs := []loggedIn{}
			t := &show.Table{Heading: []string{"CURRENT", "NAME", "HUB"}}
			for _, n := range book.Names() {
				mark := " "
				if n == book.Current {
					mark = "*"
				}
				hubs = append(hubs, loggedIn{n, book.Contexts[n].Hub, n == book.Current})
				t.Add(mark, n, book.Contexts[n].Hub)
			}
			return o.write(c, "hubs; 'selvedge login https://HUB:8443' adds one", hubapi.List[loggedIn]{Items: hubs, Total: len(hubs)}, book.Names(),
				func() *show.Table { return t })
		},
	}
	o.register(list)
	change := func(use, short string, do func(*account.Book, string) bool) *cobra.Command {
		return &cobra.Command{
			Use: use + " NAME", Short: short, Args: one("NAME"),
			ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				book, err := account.Load()
				if err != nil {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return book.Names(), cobra.ShellCompDirectiveNoFileComp
			},
			RunE: func(_ *cobra.Command, args []string) error {
				book, err := account.Load()
				if err != nil {
					return err
				}
				if !do(book, args[0]) {
					return exit.With(exit.Findings, fmt.Errorf("there is no context %q; 'selvedge context list' shows them", args[0]))
				}
				return book.Save()
			},
		}
	}
	c.AddCommand(list,
		change("use", "Make a hub the one that is asked by default", func(b *account.Book, name string) bool {
			_, ok := b.Contexts[name]
			b.Current = name
			return ok
		}),
		change("remove", "Forget a hub and its token", (*account.Book).Remove))
	return c
}

func whoamiCommand() *cobra.Command {
	var f hubFlags
	var o output
	c := &cobra.Command{
		Use:   "whoami",
		Short: "Show whose the token is, and what it may do",
		Args:  none,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			who, err := hub.Whoami(c.Context())
			if err != nil {
				return err
			}
			return o.write(c, "", who, []string{who.Subject}, func() *show.Table {
				t := &show.Table{}
				t.Add("Hub", hub.URL())
				t.Add("Subject", who.Subject)
				t.Add("Groups", strings.Join(who.Groups, ", "))
				t.Add("Token", who.Token)
				t.Add("Expires", who.Expires.Local().Format(time.RFC3339))
				for _, r := range who.Roles {
					t.Add("Role", r.Role+" at "+cmp.Or(r.Scope, "the platform")+", by "+r.Name)
				}
				return t
			})
		}),
	}
	f.register(c)
	o.register(c)
	return c
}
