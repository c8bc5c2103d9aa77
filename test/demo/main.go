// Command demo runs the whole of Selvedge on one machine: a repo made from examples-repo,
// a registry with images built here, the reconciler, the hub, and two nodes that join by a
// guide and an approval. One of them is in a network namespace of its own: its link can be cut.
//
// With -once it then pushes, breaks, kills and cuts by itself, shows that the app is back
// each time, prints what happened, cleans up, and exits 0 or 1.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"selvedge/test/world"
)

func main() { os.Exit(run()) }

func run() int {
	once := flag.Bool("once", false, "show what happens when things break, then clean up")
	bin := flag.String("bin", "bin", "directory of the commands")
	examples := flag.String("examples", "examples-repo", "config repo to deploy")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	began := time.Now()
	w, err := world.New(*bin, *examples)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	d := &demo{World: w}
	keep := false
	defer func() {
		hurry, done := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		stop()
		context.AfterFunc(hurry, done) // a third one ends this at once
		d.close(hurry, keep)
	}()
	if err := d.start(ctx); err != nil {
		if ctx.Err() != nil {
			return interrupted()
		}
		fmt.Fprintln(os.Stderr, "demo:", err)
		keep = *once
		return 1
	}
	fmt.Printf("\nfrom nothing to two nodes that joined, and an app that answers on both, in %.1f s\n", time.Since(began).Seconds())
	if *once {
		ok := d.perform(ctx)
		if ctx.Err() != nil {
			return interrupted()
		}
		if keep = !ok; keep {
			return 1
		}
		return 0
	}
	d.explain()
	<-ctx.Done()
	interrupted()
	return 0
}

// interrupted says what comes now, and returns the exit code of who was not done.
func interrupted() int {
	fmt.Println("\ncleaning up, which takes seconds; Ctrl-C again to wait for nothing")
	return 130
}

// demo is the world with the demo's two nodes.
type demo struct {
	*world.World
	near, far *world.Node
	deployed  string // commit; empty: there is none that both run yet
	drained   bool   // the containers of near are gone
}

// start sets everything up and waits for both apps' first answers.
func (d *demo) start(ctx context.Context) error {
	tell := func(what string) { fmt.Println("•", what) }
	steps := append([]world.Step{
		{What: "two machines with a containerd each, the second one behind a link of its own", Do: d.addNodes},
	}, d.Cloud()...)
	steps = append(steps,
		world.Step{What: "both join by the guide " + world.Guide + ", and wait", Do: d.join},
		world.Step{What: "approve them in the administrator's clone, and merge", Do: d.approve},
	)
	if err := d.Do(ctx, tell, steps...); err != nil {
		return err
	}
	for _, n := range d.Nodes {
		body, err := answers(ctx, n, "version 1", time.Minute)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, d.Logs())
		}
		fmt.Printf("• %s: %s says: %s", n.Name, n.AppURL(), body)
	}
	out, err := d.Run(ctx, d.Clone, "git", "rev-parse", "HEAD")
	d.deployed = strings.TrimSpace(out)
	return err
}

func (d *demo) addNodes(context.Context) (err error) {
	if d.near, err = d.AddNode("near", false); err != nil {
		return err
	}
	d.far, err = d.AddNode("far", true)
	return err
}

func (d *demo) join(ctx context.Context) error {
	for _, n := range d.Nodes {
		if err := n.Join(ctx); err != nil {
			return err
		}
		if err := n.Start(ctx); err != nil {
			return err
		}
	}
	out, err := d.Selvedge(ctx, "node", "pending")
	fmt.Print(out)
	return err
}

// approve gives the first one the name that waits for it in Git, and the second one the
// name that the guide proposes.
func (d *demo) approve(ctx context.Context) error {
	if err := d.near.Approve(ctx, "gw-demo"); err != nil {
		return err
	}
	return d.far.Approve(ctx, "")
}

func (d *demo) close(ctx context.Context, keep bool) {
	if d.near != nil && d.near.Name != "" && !d.drained {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		if err := d.drain(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "demo: clean up: %v; rules of iptables may be left, the next demo removes them\n", err)
		}
		cancel()
	}
	if err := d.Close(keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo: clean up:", err)
	}
	if keep {
		fmt.Fprintln(os.Stderr, "demo: logs are kept in", d.Dir)
	}
}

// drain has the near node take its containers away, which use this machine's network. It
// brings back what that needs: people may have broken the repo, and acts end what there is.
func (d *demo) drain(ctx context.Context) error {
	if d.deployed != "" {
		for _, args := range [][]string{{"read-tree", "-u", "--reset", d.deployed}, {"clean", "-fdq"}} {
			if err := d.Git(ctx, d.Clone, args...); err != nil {
				return err
			}
		}
	}
	for _, x := range []struct {
		is    *world.Process
		start func(context.Context) error
	}{{d.Reconciler, d.StartReconciler}, {d.Hub, d.StartHub}, {d.near.Agent, d.near.Start}} {
		if x.is.Running() {
			continue
		}
		if err := x.start(ctx); err != nil {
			return err
		}
	}
	return d.near.Drain(ctx)
}

// explain says what to try next.
func (d *demo) explain() {
	fmt.Printf(`
The console:       %[1]s
                   Sign in with the token in %[2]s. The browser warns of a certificate
                   that it does not know, as the hub has made it for itself: go on.
The app answers:   curl %[3]s   and   curl %[4]s
The config repo:   %[5]s   (a clone; push goes to %[6]s)

Two nodes run here: gw-demo and %[11]s. All others of the example are in Git only: the console and the
commands below call them Unknown, "it never reported", or Waiting, as machines that are still to be installed.

Things to try, in another terminal:

  . %[7]s   # who you are, and where the hub is
  cd %[5]s
  $SELVEDGE nodes -w folders/munich/lab
  $SELVEDGE status --watch
  $SELVEDGE logs -f gw-demo/hello
  $SELVEDGE exec gw-demo/hello -- /hello check
  ${EDITOR:-vi} folders/munich/lab/hello.cue     # change GREETING, or take #Images."hello-2"
  $SELVEDGE diff                                 # which nodes would change, and how
  git commit -am 'a change' && git push          # the nodes run it in about a second
  ip link set %[8]s down                    # cut the second node off: it runs on, the hub says Unknown; up mends it

  # what a node is asked to trust: verify a state with plain cosign, if you have version 3 of it
  cosign verify --key %[9]s/cosign.pub --insecure-ignore-tlog=true -a node=gw-demo %[10]s/nodes/gw-demo:desired

Ctrl-C ends all of it and cleans up.
`, d.HubURL, filepath.Join(d.Dir, "token"), d.near.AppURL(), d.far.AppURL(), d.Clone, d.Repo, d.EnvFile(), d.far.Netns.Link(), d.Dir, d.StatesAddr, d.far.Name)
}
