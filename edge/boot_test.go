package edge_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"selvedge/edge/apply"
	"selvedge/schema/nodestate"
	"selvedge/test/env"
)

func TestBootOffline(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1", file("one")), app("b", "1"))
	b.good(1)
	b.halt()
	b.with(away)
	b.rt.Reboot()
	b.rt.Forget()
	if err := os.RemoveAll(filepath.Join(b.cfg.Dir, "files")); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.until("all of it to run", func() bool { return b.runs("a", "1") && b.runs("b", "1") && slices.Equal(b.content(), []string{"one"}) })
	for _, c := range b.rt.Calls() {
		if strings.HasPrefix(c, "pull") {
			t.Errorf("%s: all images are there", c)
		}
	}
}

func TestBootOfflineWithoutAnImage(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"), app("b", "2"))
	b.good(1)
	b.halt()
	b.with(away)
	for _, k := range []string{"a", "b"} {
		b.rt.Delete(apply.Key{App: k, Container: "main"})
	}
	b.rt.DropImage(image("1"))
	b.rt.FailPull(image("1"), errors.New("no route to host"))
	b.start()
	b.until("what has its image to run", func() bool { return b.runs("b", "2") })
	b.until("the other's trouble to be told", func() bool {
		s := b.status()
		return len(s.Apply.Apps) == 2 && strings.Contains(s.Apply.Apps[0].Containers[0].Problem, "no route to host")
	})
	b.rt.FailPull(image("1"), nil)
	b.until("the other to run", func() bool { return b.runs("a", "1") })
}

// The machine goes down in the middle of an update and comes back without a network, and the
// new state's image is gone: the last good one runs until that can be had.
func TestBootOfflineInAnUpdate(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	b.publish(2, app("a", "2", hopeless))
	b.until("generation 2 to be on its way", func() bool { return b.status().Store.Current.Generation == 2 && len(b.status().Apply.Apps) > 0 })
	b.halt()
	b.with(away)
	b.rt.Delete(apply.Key{App: "a", Container: "main"})
	b.rt.DropImage(image("2"))
	b.rt.FailPull(image("2"), errors.New("no route to host"))
	b.start()
	b.until("generation 1 to run", func() bool { return b.runs("a", "1") })
	if s := b.status(); s.Store.Current.Generation != 2 || len(s.Store.Rejected) != 0 {
		t.Errorf("status %+v", s.Store)
	}
	b.rt.FailPull(image("2"), nil)
	b.until("generation 2 to be tried again", func() bool { return b.rt.Get(apply.Key{App: "a", Container: "main"}).Image == image("2") })
}

// The same with a first state, which has no good one before it: what can run does.
func TestBootOfflineInTheFirstState(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1", hopeless), app("b", "2"))
	b.until("b to run", func() bool { return b.runs("b", "2") })
	b.halt()
	b.with(away)
	for _, k := range []string{"a", "b"} {
		b.rt.Delete(apply.Key{App: k, Container: "main"})
	}
	b.rt.DropImage(image("1"))
	b.rt.FailPull(image("1"), errors.New("no route to host"))
	b.start()
	b.until("b to run again", func() bool { return b.runs("b", "2") })
	b.stays("not called good", func() bool { return b.status().Store.LastGood == nil })
}

func TestPendingIsBegunOffline(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1", hopeless))
	b.until("generation 1 to be on its way", func() bool { s := b.status(); return s.Store.Current != nil })
	b.hold("wait")
	b.publish(2, app("a", "2"))
	b.until("generation 2 to be kept", func() bool { return b.status().Store.Pending != nil })
	b.halt()
	b.with(away)
	b.release()
	b.start()
	b.good(2)
}

// A state that takes the machine down with it is found out.
func TestTrialsEnd(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	b.publish(2, app("a", "2", hopeless))
	b.until("generation 2 to be on its way", func() bool { return b.status().Store.Current.Generation == 2 })
	b.with(away)
	for n := 0; ; n++ {
		if n > 10 {
			t.Fatal("begun for ever")
		}
		b.restart()
		b.until("the agent", func() bool { return b.status().Running })
		if s := b.status(); len(s.Store.Rejected) > 0 {
			if !strings.Contains(s.Store.Rejected[0].Reason, "never got healthy") {
				t.Errorf("reason %q", s.Store.Rejected[0].Reason)
			}
			break
		}
	}
	b.until("generation 1 to run", func() bool { return b.runs("a", "1") })
}

func TestRuntimeAway(t *testing.T) {
	b := newBed(t)
	down := fmt.Errorf("containerd: %w", apply.ErrUnavailable)
	b.rt.Down(down)
	b.publish(1, app("a", "1"))
	b.start()
	b.until("it to be told", func() bool { return strings.Contains(b.status().Update.Error, "not reachable") })
	b.rt.Down(nil)
	b.good(1)
	b.rt.Down(down)
	b.until("it to be told", func() bool { return b.status().Apply.RuntimeError != "" })
	if s := b.status(); s.Well() {
		t.Errorf("well, though nobody knows what runs: %+v", s)
	}
	b.rt.Down(nil)
	b.good(1)
	// away over an update's whole time
	b.publish(2, app("a", "2", hopeless, func(a *nodestate.App) { a.DeadlineMS = 500 }))
	b.until("generation 2 to be on its way", func() bool { return b.status().Store.Current.Generation == 2 })
	b.rt.Down(down)
	b.until("it to be told", func() bool { return strings.Contains(b.status().Apply.RuntimeError, "not reachable") })
	time.Sleep(600 * time.Millisecond) // the deadline passes
	if s := b.status(); len(s.Store.Rejected) != 0 {
		t.Errorf("rejected for the runtime's fault: %+v", s.Store.Rejected)
	}
	b.rt.Down(nil)
	b.rejected(2)
	b.until("generation 1 to run", func() bool { return b.runs("a", "1") })
}

// A machine without a clock starts in 1970; nothing about states depends on it.
func TestClock(t *testing.T) {
	b := newBed(t)
	b.cfg.Now = func() time.Time { return time.Unix(60, 0) }
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	b.publish(2, app("a", "2", failing))
	b.rejected(2)
	b.cfg.Now = func() time.Time { return time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) }
	b.restart()
	b.publish(3, app("a", "3"))
	b.good(3)
}

// On a full disk nothing begins, and nothing is forgotten: there is no need for another push.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		env.Need(t, errors.New("a small disk is mounted: needs root"))
	}
	t.Parallel()
	dir, err := os.MkdirTemp("", "selvedge-edge-")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k,mode=0700"); err != nil {
		env.Need(t, fmt.Errorf("mount a small disk: %w", err))
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH); os.Remove(dir) })
	b := newBedIn(t, dir)
	ballast := filepath.Join(dir, "ballast")
	fill := func() {
		f, err := os.Create(ballast)
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		f.Close()
	}
	free := func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	fill()
	b.publish(2, app("a", "2"))
	b.until("it to be told", func() bool {
		r := b.status().Refused
		return r != nil && r.Reason == "store" && strings.Contains(r.Message, "free some space")
	})
	b.restart()
	b.until("what is good to run", func() bool { return b.status().Running && b.runs("a", "1") })
	free()
	b.good(2)
	if s := b.status(); s.Refused != nil {
		t.Errorf("the alarm stays: %+v", s.Refused)
	}
	// full when it is to go back
	b.publish(3, app("a", "3", failing, func(a *nodestate.App) { a.DeadlineMS = 1500 }))
	b.until("generation 3 to be on its way", func() bool { return b.status().Store.Current.Generation == 3 })
	fill()
	b.rejected(3)
	b.until("generation 2 to run", func() bool { return b.runs("a", "2") })
	free()
	b.publish(4, app("a", "4"))
	b.good(4)
	// full when trust changes: the revoked key is out all the same
	fill()
	stolen := *b.cloud
	b.cloud.Rotate(t)
	b.publishTrust()
	real := b.cloud
	b.cloud = &stolen
	b.cfg.Trust = 1
	b.restart()
	b.publish(5, app("a", "5"))
	b.until("the alarm", func() bool { r := b.status().Refused; return r != nil && r.Reason == "wrong-key" })
	b.cloud = real
	free()
	b.publish(6, app("a", "6"))
	b.good(6)
}

// Pushes, failures, holds, restarts and an unsteady registry in any order: what runs was
// signed, the floor never falls, and in the end the newest state runs.
func TestStorm(t *testing.T) {
	b := newBed(t)
	b.start()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	generation, floor := int64(0), int64(0)
	for range 60 {
		switch r.IntN(9) {
		case 0, 1, 2:
			generation++
			change := func(*nodestate.App) {}
			if r.IntN(3) == 0 {
				change = failing
			}
			b.publish(generation, app("a", fmt.Sprint(generation), change), app("b", "1"))
		case 3:
			b.restart()
		case 4:
			b.hold("storm")
		case 5:
			b.release()
		case 6:
			b.with([]http.HandlerFunc{away, status(500), status(404), nil}[r.IntN(4)])
		case 7:
			b.rt.Reboot()
		case 8:
			b.wake()
		}
		time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
		if f := b.status().Store.Floor.Generation; f != 0 && f < floor {
			t.Fatalf("the floor fell from %d to %d", floor, f)
		} else {
			floor = max(floor, f)
		}
	}
	b.with(nil)
	generation++
	b.publish(generation, app("a", fmt.Sprint(generation)), app("b", "1"))
	b.restart() // delays have grown
	b.release()
	b.good(generation)
	b.until("it to run", func() bool { return b.runs("a", fmt.Sprint(generation)) && b.runs("b", "1") })
	for _, p := range b.status().Store.Problems {
		t.Errorf("the store says: %s", p)
	}
}
