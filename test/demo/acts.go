package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
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

// perform plays all acts, prints a table, and reports whether all went well.
func (w *world) perform(ctx context.Context) bool {
	var done []outcome
	ok := true
	for _, a := range w.acts() {
		fmt.Printf("• %s … ", a.what)
		began := time.Now()
		result, err := a.do(ctx)
		o := outcome{a.what, result, time.Since(began), err}
		if err != nil {
			ok, o.result = false, "FAILED: "+err.Error()
		}
		fmt.Println(o.result)
		done = append(done, o)
		if ctx.Err() != nil {
			break
		}
	}
	fmt.Println()
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT HAPPENED\tWHAT CAME OF IT\tTIME")
	for _, o := range done {
		fmt.Fprintf(t, "%s\t%s\t%.2f s\n", o.what, short(o.result), o.took.Seconds())
	}
	t.Flush()
	if !ok {
		fmt.Fprintln(os.Stderr, "\n"+w.logs())
	}
	return ok
}

// short is the first line of a result, cut for a table.
func short(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); len(r) > 110 {
		s = string(r[:110]) + "…"
	}
	return s
}

func (w *world) acts() []act {
	return []act{
		{"push version 2", w.upgrade("hello", "hello-2", "version 2")},
		{"push a typo", w.pushTypo},
		{"push a state that never gets healthy", w.pushUnhealthy},
		{"push a mended state, version 3", w.mend},
		{"kill the app's container", w.killContainer},
		{"kill -9 the reconciler and stop the registry", w.cutOff},
		{"restart the agent offline", w.restartAgent},
		{"kill -9 agent and containers, then start offline", w.reboot},
		{"the cloud is back, push version 1", w.reunite},
		{"drain the node", w.takeAway},
	}
}

func (w *world) upgrade(from, to, want string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		err := w.edit(appFile, func(s string) string {
			for _, old := range []string{"#Images." + from, `#Images."` + from + `"`} {
				s = strings.Replace(s, "image: "+old+"\n", `image: #Images."`+to+"\"\n", 1)
			}
			return s
		})
		if err != nil {
			return "", err
		}
		if err := w.commit(ctx, "Run "+to); err != nil {
			return "", err
		}
		body, err := w.answers(ctx, want, time.Minute)
		return "answers: " + strings.TrimSpace(body), err
	}
}

func (w *world) pushTypo(ctx context.Context) (string, error) {
	if err := w.edit(appFile, func(s string) string { return strings.Replace(s, "resources: {cpu", "resuorces: {cpu", 1) }); err != nil {
		return "", err
	}
	if err := w.commit(ctx, "A typo"); err != nil {
		return "", err
	}
	var status struct {
		Problems []struct {
			Message, File string
			Line          int
		}
	}
	err := w.until(ctx, 30*time.Second, "the reconciler to refuse it", func() bool {
		out, _ := w.run(ctx, w.dir, filepath.Join(w.bin, "selvedge-reconciler"), "status", "--data", w.reconcilerDir, "-o", "json")
		_, out, _ = strings.Cut("\n"+out, "\n{")
		return json.Unmarshal([]byte("{"+out), &status) == nil && hasMessage(status.Problems, "resuorces")
	})
	if err != nil {
		return "", err
	}
	if _, err := w.answers(ctx, "version 2", time.Second); err != nil {
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

func (w *world) pushUnhealthy(ctx context.Context) (string, error) {
	err := w.edit(appFile, func(s string) string {
		s = strings.Replace(s, "resuorces: {cpu", "resources: {cpu", 1)
		s = strings.Replace(s, `deadline: "20s"`, `deadline: "4s"`, 1)
		return strings.Replace(s, "\t\tenv: {\n", "\t\tenv: {\n\t\t\tFAIL: \"unhealthy\"\n", 1)
	})
	if err != nil {
		return "", err
	}
	if err := w.commit(ctx, "Never healthy"); err != nil {
		return "", err
	}
	var s edgeStatus
	err = w.until(ctx, time.Minute, "the node to roll back", func() bool {
		s = w.edgeStatus(ctx)
		return len(s.Store.Rejected) > 0
	})
	if err != nil {
		return "", err
	}
	if _, err := w.answers(ctx, "version 2", 30*time.Second); err != nil {
		return "", err
	}
	return "rolled back to version 2: " + s.Store.Rejected[0].Reason, nil
}

func (w *world) mend(ctx context.Context) (string, error) {
	err := w.edit(appFile, func(s string) string { return strings.Replace(s, "\t\t\tFAIL: \"unhealthy\"\n", "", 1) })
	if err != nil {
		return "", err
	}
	return w.upgrade("hello-2", "hello-3", "version 3")(ctx)
}

func (w *world) killContainer(ctx context.Context) (string, error) {
	if err := w.killContainers(ctx); err != nil {
		return "", err
	}
	if err := w.until(ctx, 10*time.Second, "the app to be gone", func() bool { return !answersNow(ctx, "") }); err != nil {
		return "", fmt.Errorf("%w: it was not killed", err)
	}
	body, err := w.answers(ctx, "version 3", 30*time.Second)
	return "back: " + strings.TrimSpace(body), err
}

// killContainers kills every container process of the node behind everybody's back.
func (w *world) killContainers(ctx context.Context) error {
	out, err := w.run(ctx, w.dir, "ctr", "--address", w.containerd.Address, "-n", namespace, "task", "ls", "-q")
	if err != nil {
		return err
	}
	for id := range strings.FieldsSeq(out) {
		if _, err := w.run(ctx, w.dir, "ctr", "--address", w.containerd.Address, "-n", namespace, "task", "kill", "-s", "SIGKILL", id); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) cutOff(ctx context.Context) (string, error) {
	w.reconciler.end(syscall.SIGKILL)
	if err := w.registry.Stop(); err != nil {
		return "", err
	}
	w.registry = nil
	err := w.until(ctx, time.Minute, "the node to notice", func() bool { return w.edgeStatus(ctx).Link.Error != "" })
	if err != nil {
		return "", err
	}
	body, err := w.answers(ctx, "version 3", time.Second)
	return "runs on: " + strings.TrimSpace(body), err
}

func (w *world) restartAgent(ctx context.Context) (string, error) {
	before := w.containers(ctx)
	w.agent.end(syscall.SIGTERM)
	if _, err := w.answers(ctx, "version 3", time.Second); err != nil {
		return "", fmt.Errorf("without the agent: %w", err)
	}
	if err := w.startAgent(ctx); err != nil {
		return "", err
	}
	if err := w.until(ctx, 30*time.Second, "the agent to be up", func() bool { s := w.edgeStatus(ctx); return s.Running && s.Apply.Healthy }); err != nil {
		return "", err
	}
	if after := w.containers(ctx); after != before {
		return "", fmt.Errorf("containers changed: %q, before %q", after, before)
	}
	body, err := w.answers(ctx, "version 3", time.Second)
	return "the same containers, adopted: " + strings.TrimSpace(body), err
}

func (w *world) reboot(ctx context.Context) (string, error) {
	w.agent.end(syscall.SIGKILL)
	if err := w.killContainers(ctx); err != nil {
		return "", err
	}
	if err := w.startAgent(ctx); err != nil {
		return "", err
	}
	body, err := w.answers(ctx, "version 3", time.Minute)
	return "back from its own disk: " + strings.TrimSpace(body), err
}

func (w *world) reunite(ctx context.Context) (string, error) {
	if err := w.startRegistry(ctx); err != nil {
		return "", err
	}
	if err := w.startReconciler(ctx); err != nil {
		return "", err
	}
	return w.upgrade("hello-3", "hello", "version 1")(ctx)
}

func (w *world) takeAway(ctx context.Context) (string, error) {
	if err := w.drain(ctx); err != nil {
		return "", err
	}
	w.drained = true
	return "all of its containers are gone", nil
}

func (w *world) containers(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "ctr", "--address", w.containerd.Address, "-n", namespace, "task", "ls").Output()
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(out), "\n") // with their process IDs: a restart would show
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// edgeStatus is the part of the agent's status that the demo looks at.
type edgeStatus struct {
	Running bool
	Link    struct{ Error string }
	Store   struct{ Rejected []struct{ Reason string } }
	Apply   struct{ Healthy bool }
}

func (w *world) edgeStatus(ctx context.Context) (s edgeStatus) {
	cmd := exec.CommandContext(ctx, filepath.Join(w.bin, "selvedge-edge"), "status", "--dir", w.agentDir, "-o", "json")
	out, _ := cmd.Output() // exit 1: not well, which is an answer
	json.Unmarshal(out, &s)
	return s
}

func (w *world) until(ctx context.Context, most time.Duration, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %v for %s in vain", most, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// answers waits until the app says a text.
func (w *world) answers(ctx context.Context, want string, most time.Duration) (body string, err error) {
	err = w.until(ctx, most, appURL+" to say "+want, func() bool {
		body = get(ctx)
		return strings.Contains(body, want)
	})
	return body, err
}

func answersNow(ctx context.Context, want string) bool {
	body := get(ctx)
	return body != "" && strings.Contains(body, want)
}

func get(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, appURL, nil)
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
