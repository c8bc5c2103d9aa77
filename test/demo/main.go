// Command demo runs the whole of Selvedge on one machine: a repo made from examples-repo,
// a registry with images built here, the reconciler, and the agent of one node.
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
	w, err := newWorld(*bin, *examples)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	ok := false
	defer func() { w.close(!ok && *once) }()
	if err := w.start(ctx); err != nil {
		if ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
		}
		return 1
	}
	fmt.Printf("\nfrom nothing to an app that answers in %.1f s\n", time.Since(began).Seconds())
	if *once {
		ok = w.perform(ctx)
		if !ok {
			return 1
		}
		return 0
	}
	w.explain()
	<-ctx.Done()
	fmt.Println("\ncleaning up")
	return 0
}

// explain says what to try next.
func (w *world) explain() {
	clone := filepath.Join(w.dir, "clone")
	fmt.Printf(`
The app answers:   curl %[1]s
The config repo:   %[2]s   (a clone; push goes to %[3]s)
Passwords, logs:   %[4]s

Things to try, in another terminal:

  cd %[2]s
  $EDITOR folders/munich/lab/hello.cue        # change GREETING, or take #Images."hello-2"
  %[5]s/selvedge diff                         # which nodes would change, and how
  git commit -am 'a change' && git push       # the node runs it in about a second
  %[5]s/selvedge-reconciler status --data %[6]s
  %[5]s/selvedge-edge status --dir %[7]s

  # what a node is asked to trust: verify a state with plain cosign, if you have it
  cosign verify --key %[4]s/cosign.pub --insecure-ignore-tlog=true -a node=gw-demo %[8]s/nodes/gw-demo:desired

Ctrl-C ends all of it and cleans up.
`, appURL, clone, w.repo, w.dir, w.bin, w.reconcilerDir, w.agentDir, w.statesAddr)
}
