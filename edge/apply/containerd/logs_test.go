package containerd_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/edge/apply"
	"selvedge/schema/nodestate"
)

func (b *bed) logs(t *testing.T, id string, o apply.LogOptions) string {
	t.Helper()
	var out bytes.Buffer
	if err := b.Logs(t.Context(), id, o, &out); err != nil {
		t.Fatalf("logs of %.12s: %v", id, err)
	}
	return out.String()
}

// follow reads a log line by line until the follower ends.
func (b *bed) follow(t *testing.T, id string, o apply.LogOptions) (next func() string, end func() error) {
	t.Helper()
	o.Follow = true
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := b.Logs(ctx, id, o, w)
		w.Close()
		done <- err
	}()
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	t.Cleanup(func() { cancel(); r.Close() })
	return func() string {
			if !sc.Scan() {
				return "the end"
			}
			return sc.Text()
		}, func() error {
			cancel()
			r.Close()
			return <-done
		}
}

func TestLogsOverRotationsRestartsAndRemoval(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const lines = 4000
	s := b.spec("chatty", "main", runs(b.shellImage(t), "count", fmt.Sprint(lines)), func(c *nodestate.Container) {
		c.LogBytes, c.LogFiles = 128<<10, 9
	})
	i := b.start(t, s)
	next, end := b.follow(t, i.ID, apply.LogOptions{})
	line := func(n int) string { return fmt.Sprintf("line %d \x1b[31mred\x1b[0m \"quoted\" <&> é", n) }
	for n := 1; n <= lines; n++ {
		if got := next(); got != line(n) {
			t.Fatalf("line %d is %q", n, got)
		}
	}
	if dir := b.logDir(t, i.ID); len(dir) < 3 {
		t.Errorf("was never rotated: %v", dir)
	}
	if got := b.logs(t, i.ID, apply.LogOptions{}); strings.Count(got, "\n") != lines || !strings.HasPrefix(got, line(1)+"\n") {
		t.Errorf("the whole log has %d lines and begins %.100q", strings.Count(got, "\n"), got)
	}
	if got := b.logs(t, i.ID, apply.LogOptions{Tail: 2000}); strings.Count(got, "\n") != 2000 || !strings.HasPrefix(got, line(lines-1999)+"\n") {
		t.Errorf("the tail has %d lines and begins %.100q", strings.Count(got, "\n"), got)
	}
	if got := b.logs(t, i.ID, apply.LogOptions{Tail: -1}); got != "" {
		t.Errorf("none of the past: %.100q", got)
	}
	restarted := time.Now()
	b.stop(t, i, true)
	if got := next(); got != "stops" {
		t.Fatalf("at its end: %q", got)
	}
	again := b.start(t, s)
	if again.ID != i.ID {
		t.Fatalf("a restart made another container")
	}
	for n := 1; n <= lines; n++ {
		if got := next(); got != line(n) {
			t.Fatalf("after a restart line %d is %q", n, got)
		}
	}
	got := b.logs(t, i.ID, apply.LogOptions{Since: restarted, Timestamps: true, Tail: lines + 2})
	if strings.Count(got, "\n") != lines+1 {
		t.Errorf("%d lines since the restart, beginning %.100q", strings.Count(got, "\n"), got)
	}
	stamp, _, _ := strings.Cut(got, " ")
	if at, err := time.Parse(time.RFC3339Nano, stamp); err != nil || at.Before(restarted) || time.Since(at) > time.Minute {
		t.Errorf("a line is of %q: %v", stamp, err)
	}

	b.stop(t, i, false)
	if got := next(); got != "stops" {
		t.Fatalf("at its end: %q", got)
	}
	if got := next(); got != "the end" {
		t.Errorf("a follower outlives the container: %q", got)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if got := b.logs(t, i.ID, apply.LogOptions{Tail: 2}); got != line(lines)+"\nstops\n" {
		t.Errorf("of a removed container: %q", got)
	}
}

func (b *bed) logDir(t *testing.T, id string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(b.conf.DataDir, "*", "containers", b.conf.Namespace, id, id+"-json.log*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no log of %s: %v", id, err)
	}
	return list
}

func TestLogsOfEndedContainers(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	image := b.shellImage(t)
	var ids []string
	for n := range 4 {
		i := b.start(t, b.spec("job", "main", runs(image, "exit", fmt.Sprint(n)), func(c *nodestate.Container) { c.Restart = "never" }))
		eventually(t, "it ends", func() bool {
			return b.one(t, apply.Spec{App: "job", Container: nodestate.Container{Name: "main"}}).State == apply.Exited
		})
		if n == 3 { // somebody else removes it: its log is kept all the same
			b.ctr(t, "tasks", "delete", "-f", i.ID)
			b.ctr(t, "containers", "delete", i.ID)
			b.one(t, apply.Spec{})
		} else {
			b.stop(t, i, false)
		}
		ids = append(ids, i.ID)
	}
	list, err := b.Ended(t.Context())
	if err != nil || len(list) != 2 || list[0].ID != ids[2] || list[1].ID != ids[3] {
		t.Fatalf("kept %+v %v", list, err)
	}
	if x := list[0]; x.App != "job" || x.Container != "main" || x.State != apply.Exited || x.ExitCode != 2 || x.Image != image || x.Since.IsZero() {
		t.Errorf("kept %+v", x)
	}
	if got := b.logs(t, ids[3], apply.LogOptions{}); got != "run ends\n" {
		t.Errorf("%q", got)
	}
	if err := b.Logs(t.Context(), ids[0], apply.LogOptions{}, io.Discard); !errors.Is(err, apply.ErrUnknown) {
		t.Errorf("of one that is forgotten: %v", err)
	}
	now := b.start(t, b.spec("job", "main", runs(image, "idle")))
	if got := b.logs(t, now.ID, apply.LogOptions{Previous: true}); got != "run ends\n" {
		t.Errorf("previous: %q", got)
	}
	other := b.start(t, b.spec("other", "main", runs(image, "idle")))
	if err := b.Logs(t.Context(), other.ID, apply.LogOptions{Previous: true}, io.Discard); !errors.Is(err, apply.ErrUnknown) {
		t.Errorf("of none before: %v", err)
	}
	for _, id := range []string{"", "..", "../../etc", strings.Repeat("0", 64)} {
		if err := b.Logs(t.Context(), id, apply.LogOptions{Follow: true}, io.Discard); !errors.Is(err, apply.ErrUnknown) {
			t.Errorf("%q: %v", id, err)
		}
	}
	// somebody put a link where the log was
	name := b.logDir(t, other.ID)[0]
	if err := errors.Join(os.Remove(name), os.Symlink("/etc/passwd", name)); err != nil {
		t.Fatal(err)
	}
	if got := b.logs(t, other.ID, apply.LogOptions{}); got != "" {
		t.Errorf("a link is followed: %.50q", got)
	}
}

// A line without end is cut, and fills neither disk nor memory.
func TestLogOfOneEndlessLine(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	i := b.start(t, b.spec("line", "main", runs(b.shellImage(t), "line", fmt.Sprint(64<<20)), func(c *nodestate.Container) { c.LogBytes, c.LogFiles = 1<<20, 1 }))
	next, _ := b.follow(t, i.ID, apply.LogOptions{})
	for range 100 {
		if got := next(); strings.Trim(got, "x") != "" || len(got) > 16<<10 {
			t.Fatalf("a line of %d bytes: %.50q", len(got), got)
		}
	}
	eventually(t, "it is rotated", func() bool { return len(b.logDir(t, i.ID)) == 2 })
	var size int64
	for _, f := range b.logDir(t, i.ID) {
		if fi, err := os.Stat(f); err == nil {
			size += fi.Size()
		}
	}
	if size > 2<<20 {
		t.Errorf("takes %d bytes of the disk", size)
	}
}
