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
	ok := false
	defer func() { d.close(!ok && *once) }()
	if err := d.start(ctx); err != nil {
		if ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
		}
		return 1
	}
	fmt.Printf("\nfrom nothing to two nodes that joined, and an app that answers on both, in %.1f s\n", time.Since(began).Seconds())
	if *once {
		ok = d.perform(ctx)
		if !ok {
			return 1
		}
		return 0
	}
	d.explain()
	<-ctx.Done()
	fmt.Println("\ncleaning up")
	return 0
}

// demo is the world with the demo's two nodes.
type demo struct {
	*world.World
	near, far *world.Node
	drained   bool // the containers of near are gone
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
	return nil
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

func (d *demo) close(keep bool) {
	if d.near != nil && d.near.Name != "" && !d.drained {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		if err := d.near.Drain(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "demo: clean up:", err)
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

// explain says what to try next.
func (d *demo) explain() {
	fmt.Printf(`
The console:       %[1]s   (sign in with the token in %[2]s)
The app answers:   curl %[3]s   and   curl %[4]s
The config repo:   %[5]s   (a clone; push goes to %[6]s)

Things to try, in another terminal:

  . %[7]s                                        # who you are, and where the hub is
  cd %[5]s
  $SELVEDGE nodes
  $SELVEDGE status --watch
  $SELVEDGE logs -f gw-demo/hello
  $SELVEDGE exec gw-demo/hello -- /hello check
  $EDITOR folders/munich/lab/hello.cue           # change GREETING, or take #Images."hello-2"
  $SELVEDGE diff                                 # which nodes would change, and how
  git commit -am 'a change' && git push          # the nodes run it in about a second
  ip link set %[8]s down                    # cut the second node off: it runs on, the hub says Unknown

  # what a node is asked to trust: verify a state with plain cosign, if you have it
  cosign verify --key %[9]s/cosign.pub --insecure-ignore-tlog=true -a node=gw-demo %[10]s/nodes/gw-demo:desired

Ctrl-C ends all of it and cleans up.
`, d.HubURL, filepath.Join(d.Dir, "token"), d.near.AppURL(), d.far.AppURL(), d.Clone, d.Repo, d.EnvFile(), d.far.Netns.Link(), d.Dir, d.StatesAddr)
}
