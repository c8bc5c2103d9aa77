package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"selvedge/test/world"
)

// act is one thing that happens to the fleet, and what must be true after it.
type act struct {
	what string
	do   func(context.Context) (result string, err error)
}

type outcome struct {
	what, result string
	took         time.Duration
	err          error
}

// perform plays all acts, prints a table, and reports whether all went well; it ends early with ctx.
func (d *demo) perform(ctx context.Context) bool {
	var done []outcome
	ok := true
	for _, a := range d.acts() {
		fmt.Printf("• %s … ", a.what)
		began := time.Now()
		result, err := a.do(ctx)
		if ctx.Err() != nil {
			fmt.Println("interrupted")
			return false
		}
		o := outcome{a.what, result, time.Since(began), err}
		if err != nil {
			ok, o.result = false, "FAILED: "+err.Error()
		}
		fmt.Println(o.result)
		done = append(done, o)
	}
	fmt.Println()
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT HAPPENED\tWHAT CAME OF IT\tTIME")
	for _, o := range done {
		fmt.Fprintf(t, "%s\t%s\t%.2f s\n", o.what, short(o.result), o.took.Seconds())
	}
	t.Flush()
	if !ok {
		fmt.Fprintln(os.Stderr, "\n"+d.Logs())
		return false
	}
	fmt.Println("\nall of it went as it must")
	return true
}

// short is the first line of a result, cut for a table.
func short(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); len(r) > 110 {
		s = string(r[:110]) + "…"
	}
	return s
}

func (d *demo) acts() []act {
	return []act{
		{"push version 2", d.upgrade("hello", "hello-2", "version 2")},
		{"push a typo", d.pushTypo},
		{"push a state that never gets healthy", d.pushUnhealthy},
		{"push a mended state, version 3", d.mend},
		{"kill the app's container", d.killContainer},
		{"see the fleet from the hub", d.seeFleet},
		{"read an app's log through the hub", d.readLog},
		{"run a command in a container through the hub", d.exec},
		{"restart an app through the hub", d.restart},
		{"cut the second node's link until the hub misses it (45 s), push meanwhile", d.cutLink},
		{"the link is back", d.mendLink},
		{"kill -9 the hub and start it again", d.killHub},
		{"take the second node out of Git", d.revoke},
		{"kill -9 reconciler and hub, stop the registry", d.cutOff},
		{"restart the agent offline", d.restartAgent},
		{"kill -9 agent and containers, then start offline", d.reboot},
		{"the cloud is back, push version 1", d.reunite},
		{"drain the node", d.takeAway},
	}
}

func (d *demo) upgrade(from, to, want string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		err := d.Edit(world.AppFile, func(s string) string {
			for _, old := range []string{"#Images." + from, `#Images."` + from + `"`} {
				s = strings.Replace(s, "image: "+old+"\n", `image: #Images."`+to+"\"\n", 1)
			}
			return s
		})
		if err != nil {
			return "", err
		}
		if err := d.Commit(ctx, "Run "+to); err != nil {
			return "", err
		}
		body, err := answers(ctx, d.near, want, time.Minute)
		return "answers: " + strings.TrimSpace(body), err
	}
}

func (d *demo) pushTypo(ctx context.Context) (string, error) {
	if err := d.Edit(world.AppFile, func(s string) string { return strings.Replace(s, "resources: {cpu", "resuorces: {cpu", 1) }); err != nil {
		return "", err
	}
	if err := d.Commit(ctx, "A typo"); err != nil {
		return "", err
	}
	var status struct {
		Problems []struct {
			Message, File string
			Line          int
		}
	}
	err := d.Until(ctx, 30*time.Second, "the reconciler to refuse it", func() bool {
		out, _ := d.Run(ctx, d.Dir, d.Command("selvedge-reconciler"), "status", "--data", d.ReconcilerDir(), "-o", "json")
		_, out, _ = strings.Cut("\n"+out, "\n{")
		return json.Unmarshal([]byte("{"+out), &status) == nil && hasMessage(status.Problems, "resuorces")
	})
	if err != nil {
		return "", err
	}
	if _, err := answers(ctx, d.near, "version 2", time.Second); err != nil {
		return "", err
	}
	for _, p := range status.Problems {
		if strings.Contains(p.Message, "resuorces") {
			return fmt.Sprintf("refused, version 2 runs on: %s:%d: %s", p.File, p.Line, p.Message), nil
		}
	}
	return "", nil
}

func hasMessage(ps []struct {
	Message, File string
	Line          int
}, part string) bool {
	for _, p := range ps {
		if strings.Contains(p.Message, part) {
			return true
		}
	}
	return false
}

func (d *demo) pushUnhealthy(ctx context.Context) (string, error) {
	err := d.Edit(world.AppFile, func(s string) string {
		s = strings.Replace(s, "resuorces: {cpu", "resources: {cpu", 1)
		s = strings.Replace(s, `deadline: "20s"`, `deadline: "4s"`, 1)
		return strings.Replace(s, "\t\tenv: {\n", "\t\tenv: {\n\t\t\tFAIL: \"unhealthy\"\n", 1)
	})
	if err != nil {
		return "", err
	}
	if err := d.Commit(ctx, "Never healthy"); err != nil {
		return "", err
	}
	var s world.EdgeStatus
	err = d.Until(ctx, time.Minute, "the node to roll back", func() bool {
		s = d.near.Status(ctx)
		return len(s.Store.Rejected) > 0
	})
	if err != nil {
		return "", err
	}
	if _, err := answers(ctx, d.near, "version 2", 30*time.Second); err != nil {
		return "", err
	}
	return "rolled back to version 2: " + s.Store.Rejected[0].Reason, nil
}

func (d *demo) mend(ctx context.Context) (string, error) {
	err := d.Edit(world.AppFile, func(s string) string { return strings.Replace(s, "\t\t\tFAIL: \"unhealthy\"\n", "", 1) })
	if err != nil {
		return "", err
	}
	return d.upgrade("hello-2", "hello-3", "version 3")(ctx)
}

func (d *demo) killContainer(ctx context.Context) (string, error) {
	if err := d.near.KillContainers(ctx); err != nil {
		return "", err
	}
	if err := d.Until(ctx, 10*time.Second, "the app to be gone", func() bool { return !answersNow(ctx, d.near, "") }); err != nil {
		return "", fmt.Errorf("%w: it was not killed", err)
	}
	body, err := answers(ctx, d.near, "version 3", 30*time.Second)
	return "back: " + strings.TrimSpace(body), err
}

func (d *demo) cutOff(ctx context.Context) (string, error) {
	d.Reconciler.End(syscall.SIGKILL)
	d.Hub.End(syscall.SIGKILL)
	if err := d.Registry.Stop(); err != nil {
		return "", err
	}
	d.Registry = nil
	err := d.Until(ctx, time.Minute, "the node to notice", func() bool { return d.near.Status(ctx).Link.Error != "" })
	if err != nil {
		return "", err
	}
	body, err := answers(ctx, d.near, "version 3", time.Second)
	return "runs on: " + strings.TrimSpace(body), err
}

func (d *demo) restartAgent(ctx context.Context) (string, error) {
	before := d.containers(ctx)
	d.near.Agent.End(syscall.SIGTERM)
	if _, err := answers(ctx, d.near, "version 3", time.Second); err != nil {
		return "", fmt.Errorf("without the agent: %w", err)
	}
	if err := d.near.Start(ctx); err != nil {
		return "", err
	}
	if err := d.Until(ctx, 30*time.Second, "the agent to be up", func() bool { s := d.near.Status(ctx); return s.Running && s.Apply.Healthy }); err != nil {
		return "", err
	}
	if after := d.containers(ctx); after != before {
		return "", fmt.Errorf("containers changed: %q, before %q", after, before)
	}
	body, err := answers(ctx, d.near, "version 3", time.Second)
	return "the same containers, adopted: " + strings.TrimSpace(body), err
}

func (d *demo) reboot(ctx context.Context) (string, error) {
	d.near.Agent.End(syscall.SIGKILL)
	if err := d.near.KillContainers(ctx); err != nil {
		return "", err
	}
	if err := d.near.Start(ctx); err != nil {
		return "", err
	}
	body, err := answers(ctx, d.near, "version 3", time.Minute)
	return "back from its own disk: " + strings.TrimSpace(body), err
}

func (d *demo) reunite(ctx context.Context) (string, error) {
	if err := d.StartRegistry(ctx); err != nil {
		return "", err
	}
	if err := d.StartReconciler(ctx); err != nil {
		return "", err
	}
	if err := d.StartHub(ctx); err != nil {
		return "", err
	}
	return d.upgrade("hello-3", "hello", "version 1")(ctx)
}

func (d *demo) takeAway(ctx context.Context) (string, error) {
	if err := d.near.Drain(ctx); err != nil {
		return "", err
	}
	d.drained = true
	return "all of its containers are gone", nil
}

func (d *demo) containers(ctx context.Context) string {
	out, err := d.near.Ctr(ctx, "task", "ls")
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(out, "\n") // with their process IDs: a restart would show
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// answers waits until a node's app says a text.
func answers(ctx context.Context, n *world.Node, want string, most time.Duration) (body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		if body = get(ctx, n); strings.Contains(body, want) {
			return body, nil
		}
		select {
		case <-ctx.Done():
			return body, fmt.Errorf("waited %v for %s to say %s in vain", most, n.AppURL(), want)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func answersNow(ctx context.Context, n *world.Node, want string) bool {
	body := get(ctx, n)
	return body != "" && strings.Contains(body, want)
}

func get(ctx context.Context, n *world.Node) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.AppURL(), nil)
	if err != nil {
		return ""
	}
	req.Close = true // a new connection each time: the old one may be to the old container
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return ""
	}
	return string(b)
}
