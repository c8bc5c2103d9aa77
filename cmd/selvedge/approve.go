package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/clone"
	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/fleet"
	"selvedge/schema/hubapi"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

func nodeApproveCommand() *cobra.Command {
	var f hubFlags
	var w changeFlags
	var all bool
	var name, workspace, file, guide string
	c := &cobra.Command{
		Use:   "approve CODE… | approve --all | approve --file FILE",
		Short: "Commit the files that let waiting nodes in",
		Long: `approve writes WORKSPACE/node-NAME.cue for each node, with its keys and what its guide in the repo
says, checks the commit that it makes as 'selvedge validate' does, and makes it: these files on top
of HEAD and nothing else, with your identity, hooks and signature. The merge of that commit lets the
nodes in; approve pushes only with --push.

Compare the public key that it shows, KEY, with the one that the node printed when it joined: only
that tells that the key is that node's. The code is a name that the hub gave. What the hub tells of
the node's other key is believed only with the node's signature.

A name of a node that is in the repo without an identity gives that node its keys.

A node that reaches no hub is approved by the file that 'selvedge-edge introduce' wrote there: --file,
with --name, and with --workspace or --guide, or both if the guide is for several workspaces. No hub
is asked then.`,
		Example:           "  selvedge node approve 7KQ2-M9XD\n  selvedge node approve 7KQ2-M9XD --name gw-7 --dry-run\n  selvedge node approve --file gw-7.json --name gw-7 --workspace folders/plant-a/line-1",
		ValidArgsFunction: completeWith(&f, pendingCodes),
	}
	var chosen []hubapi.Pending
	ask := f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
		if (len(args) == 0) == !all {
			return exit.Usagef("give codes, or --all; 'selvedge node pending' lists them")
		}
		if name != "" && (all || len(args) > 1) {
			return exit.Usagef("--name is for a single code")
		}
		waiting, err := hub.Pending(c.Context())
		if err != nil {
			return err
		}
		chosen = waiting.Items
		if !all {
			if chosen, err = choose(waiting.Items, args); err != nil {
				return err
			}
		}
		if len(chosen) == 0 {
			return exit.With(exit.Findings, errors.New("no node waits"))
		}
		for _, p := range chosen {
			if p.Guide == "" {
				return exit.With(exit.Findings, fmt.Errorf("%s: the hub names no guide that it joined by; is it a hub?", show.Text(p.Code)))
			}
			if err := p.Proof.Check(p.PublicKey, p.Recipient); err != nil {
				return exit.With(exit.Findings, fmt.Errorf("%s: %w; the hub may have put in another's: let nobody in by it before that is cleared up, or carry the node's own file ('selvedge-edge introduce')", show.Text(p.Code), err))
			}
		}
		return nil
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		byFile := file != "" || guide != ""
		if byFile && (file == "" || len(args) > 0 || all || name == "" || workspace == "" && guide == "") {
			return exit.Usagef("with --file give --name, and --workspace or --guide or both, and no code")
		}
		if byFile {
			p, err := introduced(file, guide)
			if err != nil {
				return err
			}
			chosen = []hubapi.Pending{p}
		} else if err := ask(c, args); err != nil {
			return err
		}
		bench, err := w.open(c.Context())
		if err != nil {
			return err
		}
		defer bench.close()
		return approve(c, bench, chosen, name, workspace)
	}
	f.register(c)
	w.register(c)
	c.Flags().BoolVar(&all, "all", false, "all nodes that wait")
	c.Flags().StringVar(&name, "name", "", "name of the node; default: what the guide's prefix and the code make")
	c.Flags().StringVarP(&workspace, "workspace", "w", "", "workspace for the node, below the guide's folder")
	c.Flags().StringVar(&file, "file", "", "approve by the file that 'selvedge-edge introduce' wrote on the node")
	c.Flags().StringVar(&guide, "guide", "", "with --file: guide whose labels and defaults the node gets, SCOPE/NAME")
	c.Flags().BoolVar(&w.yes, "yes", false, "do not ask")
	return c
}

// introduced reads the file of a node that reaches no hub.
func introduced(file, guide string) (p hubapi.Pending, err error) {
	f, err := os.Open(file)
	if err != nil {
		return p, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, wire.MaxIntroduction+1)) // one more: then it is refused
	if err != nil {
		return p, err
	}
	i, err := wire.ParseIntroduction(b)
	if err != nil {
		return p, exit.With(exit.Findings, fmt.Errorf("%s: %w", file, err))
	}
	p = hubapi.Pending{Code: path.Base(file), PublicKey: i.PublicKey, Recipient: i.Recipient, Machine: i.Machine}
	if guide != "" {
		p.Guide, p.Scope = guide, path.Dir(guide)
	}
	return p, nil
}

// choose finds codes among those that wait. People may leave out the hyphen.
func choose(waiting []hubapi.Pending, codes []string) ([]hubapi.Pending, error) {
	plain := func(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "")) }
	var out []hubapi.Pending
	for _, code := range codes {
		i := slices.IndexFunc(waiting, func(p hubapi.Pending) bool { return plain(p.Code) == plain(code) })
		if i < 0 {
			return nil, exit.With(exit.Findings, fmt.Errorf("no node waits under code %s; it was approved or rejected, or its time ran out; see 'selvedge node pending'", show.Text(code)))
		}
		if !slices.ContainsFunc(out, func(p hubapi.Pending) bool { return p.Code == waiting[i].Code }) {
			out = append(out, waiting[i])
		}
	}
	return out, nil
}

func approve(c *cobra.Command, w *workbench, chosen []hubapi.Pending, name, workspace string) error {
	ch := clone.Change{Write: map[string][]byte{}}
	t := &show.Table{Heading: []string{"CODE", "NODE", "WORKSPACE", "MACHINE", "ADDRESS", "KEY"}}
	var names, body []string
	var entries []*nodeEntry
	keys := map[string]string{}
	for _, p := range chosen {
		e, err := entry(w.before.fleet, p, name, workspace)
		if err != nil {
			return exit.With(exit.Findings, fmt.Errorf("%s: %w", show.Text(p.Code), err))
		}
		file := e.file(w.tree)
		if other, ok := keys[p.PublicKey]; ok || ch.Write[file] != nil {
			return exit.With(exit.Findings, fmt.Errorf("%s: another of these nodes has the same key or name (%s)", show.Text(p.Code), cmp.Or(other, e.name)))
		}
		keys[p.PublicKey] = e.name
		entries = append(entries, e)
		if n := guided(w.before.fleet, p.Scope, e.prefix, entries); e.maxNodes > 0 && n > e.maxNodes {
			return exit.With(exit.Findings, fmt.Errorf("%s: guide %q lets in %d nodes, and this would be number %d; raise its maxNodes, or remove nodes that are gone", show.Text(p.Code), e.guide, e.maxNodes, n))
		}
		if ch.Write[file], err = e.source(); err != nil {
			return err
		}
		names = append(names, e.name)
		t.Add(p.Code, e.name, e.workspace, show.Short(machine(p), 50), p.Address, p.PublicKey)
		body = append(body, fmt.Sprintf("%s: %s, key %s", e.name, show.Text(p.Code), p.PublicKey))
	}
	after, err := w.check(c, ch)
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, ok := after.result.Nodes[n]; !ok {
			return exit.With(exit.Findings, fmt.Errorf("node %q would have no state: %s; nothing was written", n, whyNot(after, n)))
		}
	}
	if !w.flags.dryRun {
		if err := t.Write(c.ErrOrStderr(), show.Colours(c.ErrOrStderr())); err != nil {
			return err
		}
	}
	ch.Subject = "node " + names[0] + ": approve"
	if len(names) > 1 {
		ch.Subject = fmt.Sprintf("approve %d nodes", len(names))
	}
	ch.Body = strings.Join(body, "\n")
	done, err := w.finish(c, ch, "Let "+count(len(names), "node")+" in?")
	if done {
		for _, file := range slices.Sorted(maps.Keys(ch.Write)) {
			fmt.Fprintln(c.OutOrStdout(), file)
		}
	}
	return err
}

// entry decides what is written for a node that waits: its name, its place and the guide's
// defaults. What the hub says of it is checked against the repo.
func entry(f *fleet.Fleet, p hubapi.Pending, name, workspace string) (*nodeEntry, error) {
	if p.Guide != "" {
		p.Guide = path.Base(p.Guide) // SCOPE/NAME
	}
	e := &nodeEntry{name: cmp.Or(name, p.Name), publicKey: p.PublicKey, recipient: p.Recipient, guide: p.Guide}
	if !nodestate.ValidNode(e.name) {
		return nil, fmt.Errorf("%q cannot be a node's name; give one with --name: small letters, digits and hyphens", e.name)
	}
	if !nkeys.IsValidPublicUserKey(p.PublicKey) {
		return nil, fmt.Errorf("%q is no node's public key", show.Short(p.PublicKey, 80))
	}
	for ws, s := range f.Workspaces {
		if s.Unit == nil {
			continue
		}
		for n, node := range s.Unit.Node {
			if node.Identity != nil && node.Identity.PublicKey == p.PublicKey {
				return nil, fmt.Errorf("its key is that of node %q in %s already", n, ws)
			}
		}
	}
	places := guidePlaces(f, p)
	if p.Guide == "" { // by a file: anywhere
		if src := f.Workspaces[workspace]; src == nil || src.Unit == nil {
			return nil, fmt.Errorf("%s is no accepted workspace of this clone's HEAD; 'selvedge validate --rev HEAD' tells more", workspace)
		}
		places = []string{workspace}
	}
	if len(places) == 0 {
		for ws, src := range f.Workspaces {
			if src.Unit == nil && (p.Scope == "" || ws == p.Scope || strings.HasPrefix(ws, p.Scope+"/")) {
				return nil, fmt.Errorf("workspace %s is refused; see 'selvedge validate --rev HEAD'", ws)
			}
		}
		return nil, fmt.Errorf("guide %q at %s is in no accepted workspace of this clone's HEAD; update the clone, or commit the guide", show.Text(p.Guide), cmp.Or(show.Text(p.Scope), "the platform"))
	}
	for ws, s := range f.Workspaces {
		if _, ok := s.Entities["node/"+e.name]; !ok {
			continue
		}
		if s.Unit == nil {
			return nil, fmt.Errorf("node %q is in workspace %s, which is refused; see 'selvedge validate --rev HEAD'", e.name, ws)
		}
		if n, ok := s.Unit.Node[e.name]; !ok || n.Identity != nil {
			return nil, fmt.Errorf("node %q is in %s already, with a key; give another --name, or remove that node first", e.name, ws)
		}
		if !slices.Contains(places, ws) || workspace != "" && workspace != ws {
			return nil, fmt.Errorf("node %q awaits its key in %s, which is not where guide %q lets nodes in", e.name, ws, p.Guide)
		}
		if name == "" { // only a person takes a place that is kept for a node
			return nil, fmt.Errorf("node %q awaits its key in %s, and the hub calls this one so; if it is that node, give --name %s", e.name, ws, e.name)
		}
		e.workspace, e.awaited = ws, true
		return e, nil
	}
	switch {
	case workspace != "" && !slices.Contains(places, workspace):
		return nil, fmt.Errorf("workspace %s is not one of guide %q: there are %s", workspace, p.Guide, strings.Join(places, ", "))
	case workspace != "":
		e.workspace = workspace
	case len(places) > 1:
		return nil, fmt.Errorf("guide %q is for several workspaces; say which with --workspace: %s", p.Guide, strings.Join(places, ", "))
	default:
		e.workspace = places[0]
	}
	g := f.Workspaces[e.workspace].Unit.AccessGuide[p.Guide]
	if name == "" && !strings.HasPrefix(e.name, g.Prefix) {
		return nil, fmt.Errorf("the hub calls it %q, and names by guide %q begin with %q; give a name with --name", e.name, p.Guide, g.Prefix)
	}
	if g.MaxNodes > 0 && !strings.HasPrefix(e.name, g.Prefix) {
		return nil, fmt.Errorf("guide %q lets in %d nodes, which are counted by their names: give one that begins with %q", e.guide, g.MaxNodes, g.Prefix)
	}
	e.labels, e.defaults, e.prefix, e.maxNodes = g.Labels, g.Defaults, g.Prefix, g.MaxNodes
	return e, nil
}

// guided counts the nodes with a key under a prefix in a scope, as the hub does for a guide, and
// those of more that are to be let in.
func guided(f *fleet.Fleet, scope, prefix string, more []*nodeEntry) (n int) {
	within := func(workspace, name string) bool {
		return strings.HasPrefix(name, prefix) && (scope == "" || strings.HasPrefix(workspace+"/", scope+"/"))
	}
	for ws, s := range f.Workspaces {
		if s.Unit == nil { // which of them have a key is not known
			for entity := range s.Entities {
				if name, ok := strings.CutPrefix(entity, "node/"); ok && within(ws, name) {
					n++
				}
			}
			continue
		}
		for name, node := range s.Unit.Node {
			if node.Identity != nil && within(ws, name) {
				n++
			}
		}
	}
	for _, e := range more {
		if within(e.workspace, e.name) {
			n++
		}
	}
	return n
}

// guidePlaces are the accepted workspaces in which a guide of that scope holds.
func guidePlaces(f *fleet.Fleet, p hubapi.Pending) []string {
	var out []string
	for ws, s := range f.Workspaces {
		if o, ok := s.Entities["accessGuide/"+p.Guide]; ok && o.Scope == p.Scope && s.Unit != nil {
			out = append(out, ws)
		}
	}
	slices.Sort(out)
	return out
}
