package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/reconciler/hub/client"
)

// Bounds of reading from several nodes.
const (
	readAtOnce   = 8  // logs that end
	followAtOnce = 32 // logs that are followed, each of them all the time
	maxPrefixed  = 64 << 10
)

// logFlags are what of a log is asked for.
type logFlags struct {
	client.LogOptions
	since string
	tail  int
	raw   bool
	query queryFlags
}

func logsCommand() *cobra.Command {
	var f hubFlags
	var l logFlags
	c := &cobra.Command{
		Use:   "logs NODE[/APP[/CONTAINER]]… | logs -l SELECTOR",
		Short: "Print what containers or agents printed",
		Long: `logs prints the log of a container, of all containers of an app, or with --agent of the agent.
With several nodes, or a selector, each line has the node's name in front. The node gives it only
if remote: logs in its signed state grants it.

A log that is followed goes on after a connection broke, without a line twice. On a terminal
colours are kept, and other escape sequences, with which a container could act on the terminal,
are left out; --raw passes everything on.`,
		Example:           "  selvedge logs gw-7/hmi -f --since 10m\n  selvedge logs -l line=1 --app hmi --tail 20\n  selvedge logs gw-7 --agent",
		ValidArgsFunction: completeWith(&f, targets),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			return logs(c, hub, args, &l)
		}),
	}
	f.register(c)
	l.query.register(c, &f)
	registerContainer(c, &f, &l.Container)
	c.Flags().BoolVarP(&l.Follow, "follow", "f", false, "go on, live, until interrupted")
	c.Flags().StringVar(&l.since, "since", "", "since a duration ago, e.g. 10m, or a time by the node's clock, e.g. 2027-01-31T08:00:00Z")
	c.Flags().IntVar(&l.tail, "tail", -1, "at most so many lines of the past; 0: none, -1: all")
	c.Flags().BoolVarP(&l.Previous, "previous", "p", false, "of runs that ended")
	c.Flags().BoolVar(&l.Timestamps, "timestamps", false, "with the time of each line")
	c.Flags().BoolVar(&l.Agent, "agent", false, "of the agent")
	c.Flags().BoolVar(&l.raw, "raw", false, "pass escape sequences on to the terminal")
	return c
}

// source is one log.
type source struct {
	node    string
	options client.LogOptions
}

// name is what stands before its lines: the node, and what of it where others are of the same.
func (s source) name(shared map[string]int) string {
	if shared[s.node] < 2 {
		return show.Text(s.node)
	}
	return show.Text(strings.Join(filled(s.node, s.options.App, s.options.Container), "/"))
}

func logs(c *cobra.Command, hub *client.Client, args []string, l *logFlags) error {
	sources, err := l.sources(c.Context(), hub, args)
	if err != nil {
		return err
	}
	w := c.OutOrStdout()
	if show.Terminal(w) && !l.raw {
		w = show.Filter(w)
	}
	if len(sources) == 1 && len(args) == 1 {
		way := link{w: c.ErrOrStderr()}
		return hub.Logs(c.Context(), sources[0].node, sources[0].options, way.over(w), way.lost)
	}
	atOnce := readAtOnce
	if l.Follow {
		if atOnce = followAtOnce; len(sources) > atOnce {
			return exit.Usagef("%d logs cannot be followed together, %d at most; select fewer", len(sources), atOnce)
		}
	}
	shared := map[string]int{} // nodes, by how many of the logs are theirs
	for _, s := range sources {
		shared[s.node]++
	}
	var mu sync.Mutex // of w and of worst
	worst := exit.OK
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, s := range sources {
		g.Go(func() error {
			name := s.name(shared)
			p := &prefixer{mu: &mu, w: w, prefix: name + " | "}
			way := link{w: c.ErrOrStderr(), prefix: name + ": "}
			err := hub.Logs(c.Context(), s.node, s.options, way.over(p), way.lost)
			if e := p.flush(); err == nil {
				err = e
			}
			if err != nil && c.Context().Err() == nil {
				if !strings.Contains(err.Error(), name) {
					err = fmt.Errorf("%s: %w", name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				worst = max(worst, tell(c, err)) // the others go on
			}
			return nil
		})
	}
	_ = g.Wait() // no step returns one
	if err := c.Context().Err(); err != nil {
		return err // what came is not all
	}
	return exit.Quiet(worst)
}

// sources are the logs that arguments or a selector name.
func (l *logFlags) sources(ctx context.Context, hub *client.Client, args []string) ([]source, error) {
	o := l.LogOptions
	switch {
	case l.tail < -1:
		return nil, exit.Usagef("--tail %d: want lines, 0 for none or -1 for all", l.tail)
	case l.tail < 1: // the API has it the other way round
		o.Tail = -1 - l.tail
	default:
		o.Tail = l.tail
	}
	if d, err := time.ParseDuration(l.since); err == nil && d >= 0 {
		o.Ago = max(d, 1) // of the node's clock, which may be off
	} else if l.since != "" {
		t, err := moment(l.since, time.Now())
		if err != nil {
			return nil, err
		}
		o.Since = t
	}
	q, err := l.query.query()
	if err != nil {
		return nil, err
	}
	if len(args) == 0 {
		if !l.query.chosen() {
			return nil, exit.Usagef("say whose log: NODE[/APP[/CONTAINER]], or nodes by -l, -w, --folder or --app")
		}
		if o.App = q.App; o.App == "" && !o.Agent {
			return nil, exit.Usagef("say which app's log, with --app, or --agent")
		}
		l, err := hub.Nodes(ctx, q)
		if err != nil {
			return nil, err
		}
		if len(l.Items) == 0 {
			return nil, exit.With(exit.Findings, errors.New("no node matches"))
		}
		var out []source
		for _, n := range l.Items {
			out = append(out, source{n.Name, o})
		}
		return out, nil
	}
	if q.Labels != "" || q.Workspace != "" || q.Folder != "" {
		return nil, exit.Usagef("give nodes by name or by a selector, not both")
	}
	var out []source
	for _, a := range args {
		node, app, container, err := target(a, o.Container)
		if err != nil {
			return nil, err
		}
		if app != "" && (o.Agent || q.App != "" && q.App != app) {
			return nil, exit.Usagef("%q names an app; give no other besides, and not --agent", a)
		}
		s := source{node, o}
		s.options.App, s.options.Container = cmp.Or(app, q.App), container
		if s.options.App == "" && !o.Agent {
			if s.options.App, err = onlyApp(ctx, hub, node, "; --agent gives the log of its agent"); err != nil {
				return nil, err
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// onlyApp is the app of a node that has one. The hint is for nodes without any.
func onlyApp(ctx context.Context, hub *client.Client, node, hint string) (string, error) {
	d, err := hub.Node(ctx, node)
	if err != nil {
		return "", err
	}
	var names []string
	if d.Report != nil {
		for _, a := range d.Report.Apps {
			names = append(names, show.Text(node+"/"+a.Name))
		}
	}
	switch len(names) {
	case 0:
		return "", exit.With(exit.Findings, fmt.Errorf("node %s is not known to run an app%s", show.Text(node), hint))
	case 1:
		return d.Report.Apps[0].Name, nil
	}
	return "", exit.Usagef("node %s runs several apps; say which: %s", show.Text(node), strings.Join(names, ", "))
}

// moment reads a duration ago or a time.
func moment(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, exit.Usagef("%q: want a duration such as 10m, or a time such as 2027-01-31T08:00:00Z", s)
	}
	return t, nil
}

// prefixer puts a prefix before each line and passes on whole ones, of which many share w.
type prefixer struct {
	mu     *sync.Mutex
	w      io.Writer
	prefix string
	line   []byte
}

func (p *prefixer) Write(b []byte) (int, error) {
	n := len(b)
	var out []byte
	for len(b) > 0 {
		l, rest, whole := bytes.Cut(b, []byte("\n"))
		p.line = append(p.line, l...)
		if b = rest; whole || len(p.line) > maxPrefixed {
			out = append(append(append(out, p.prefix...), p.line...), '\n')
			p.line = p.line[:0]
		}
	}
	return n, p.write(out)
}

func (p *prefixer) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.w.Write(b)
	return err
}

// flush writes a last line without an end.
func (p *prefixer) flush() error {
	if len(p.line) == 0 {
		return nil
	}
	return p.write(fmt.Appendf(nil, "%s%s\n", p.prefix, p.line))
}
