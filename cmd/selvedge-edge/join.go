package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"selvedge/edge"
	"selvedge/edge/auth"
	"selvedge/edge/join"
	"selvedge/internal/backoff"
	"selvedge/internal/exit"
	"selvedge/schema/wire"
)

const (
	maxToken = 4 << 10         // of a join token's file
	busyTime = 2 * time.Minute // to ask again while hubs are busy or away
)

func joinCommand() *cobra.Command {
	var o edge.JoinOptions
	var ca, tokenFile string
	var wait bool
	c := &cobra.Command{
		Use:   "join HUB [HUB …]",
		Short: "Ask a hub to let this machine in",
		Long: `join prepares this machine as a node and asks a hub to let it in. It makes the node's own keys,
pins the hub's CA and the platform's root of trust, and prints a code. An admin finds the request
under that code, and approves it by a commit.

It may be run again, after whatever happened: keys are made once, and a request that waits is not
made twice. The token lets in one machine; it is of no use afterwards. While hubs are busy or away it
asks again for two minutes, with --wait without end.

A machine that was let in before is asked after at the hub: what Git lists no more joins anew with the
same key, unless it ran a state under its name already. One that was set up by hand keeps what
'selvedge-edge init' was told, and gets the hubs of the line.`,
		Example: `  selvedge-edge join https://hub.example:8443 --token TOKEN --ca sha256:… --root sha256:…
  selvedge-edge join https://hub.example:8443 --token-file - --ca sha256:… --root sha256:… --wait < token`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, hubs []string) (err error) {
			o.Hubs = hubs
			if o.Token, err = joinToken(c.InOrStdin(), o.Token, tokenFile); err != nil {
				return err
			}
			if o.Token == "" || o.Fingerprint == "" {
				return exit.Usagef("--root, and --token or --token-file are needed; see 'selvedge-edge join --help'")
			}
			if strings.HasPrefix(ca, "sha256:") {
				o.Pin = ca
			} else if ca != "" {
				o.CAFile = ca
			}
			d, err := filepath.Abs(dir(c))
			if err != nil {
				return err
			}
			o.Patience = busyTime
			if wait {
				o.Patience = -1
			}
			o.Delayed = func(err error, pause time.Duration) {
				fmt.Fprintf(c.ErrOrStderr(), "%v; asking again in %v\n", err, pause.Round(time.Second))
			}
			j, err := edge.Join(c.Context(), d, o)
			if errors.Is(err, edge.ErrSettings) {
				return exit.Usagef("%w; see 'selvedge-edge join --help'", err)
			}
			if err != nil {
				return err
			}
			told(c, j, dir(c))
			if j.Node != "" || !wait {
				return nil
			}
			if j, err = await(c.Context(), d, 5*time.Second); err == nil {
				told(c, j, dir(c))
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&o.Token, "token", "", "join token; other users of this machine may see it while join runs")
	f.StringVar(&tokenFile, "token-file", "", "file with the join token, or - for standard input")
	f.StringVar(&ca, "ca", "", "what the hub's certificate goes back to: sha256:… of a certificate, or a PEM file (default: the system's)")
	f.StringVar(&o.Fingerprint, "root", "", "fingerprint of the root of trust, sha256:… (required)")
	f.BoolVar(&wait, "wait", false, "wait until the node is let in, however long hubs are away")
	return c
}

// joinToken returns the token, which must not stand in a list of processes if it can be helped.
func joinToken(in io.Reader, given, file string) (string, error) {
	if file == "" {
		return given, nil
	}
	if given != "" {
		return "", exit.Usagef("--token and --token-file exclude each other")
	}
	var b []byte
	var err error
	if file == "-" {
		var line string
		line, err = bufio.NewReader(io.LimitReader(in, maxToken)).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		b = []byte(line)
	} else {
		b, err = readBounded(file, maxToken)
	}
	if err != nil {
		return "", fmt.Errorf("join token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("join token: %s is empty", file)
	}
	return token, nil
}

// told prints where joining stands, and the next step.
func told(c *cobra.Command, j edge.Joined, dir string) {
	out, hints := c.OutOrStdout(), c.ErrOrStderr()
	switch {
	case j.Node != "":
		fmt.Fprintln(out, j.Node)
		fmt.Fprintf(hints, "this machine was let in as node %q; start: selvedge-edge run --dir %s\n", j.Node, dir)
	case j.Code != "":
		fmt.Fprintln(out, j.Code)
		fmt.Fprintf(hints, "an admin approves it in a clone of the config repo:\n  selvedge node approve %s\nits public key, to compare: %s\nmeanwhile, or later, start: selvedge-edge run --dir %s\n", j.Code, j.PublicKey, dir)
	default:
		fmt.Fprintf(hints, "the request waits already; an admin finds it with 'selvedge node pending' by its public key:\n  %s\nmeanwhile, or later, start: selvedge-edge run --dir %s\n", j.PublicKey, dir)
	}
}

// await asks now and then until the node is let in.
func await(ctx context.Context, dir string, every time.Duration) (edge.Joined, error) {
	for pause := every; ; {
		select {
		case <-ctx.Done():
			return edge.Joined{}, ctx.Err()
		case <-time.After(backoff.Jitter(pause)):
		}
		j, err := edge.Ask(ctx, dir)
		after, _ := auth.Passing(err)
		pause = every + 2*after // half of which is jitter
		var p *auth.Problem
		switch {
		case err == nil:
			return j, nil
		case ctx.Err() != nil:
			return edge.Joined{}, ctx.Err()
		case join.Is(err, wire.ProblemUnknownNode):
			return edge.Joined{}, fmt.Errorf("%w: the request was dropped; ask for a new token", err)
		case !errors.As(err, &p):
			return edge.Joined{}, err // it is not the hub's
		}
	}
}
