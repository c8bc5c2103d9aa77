package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"selvedge/edge"
)

// A disk that is full at the edge delays a state; what runs goes on, over a restart too, and
// the state is begun as soon as there is room.
func TestDiskFull(t *testing.T) {
	w := newSite(t)
	if err := os.Mkdir(w.agentDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", w.agentDir, "tmpfs", 0, "size=2m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	w.enrol()
	w.startReconciler()
	w.startAgent()
	w.deploy(app{greeting: "one"})
	w.says("one")
	w.well()

	ballast := filepath.Join(w.agentDir, "ballast")
	fill := func() {
		f, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
	}
	fill()
	w.deploy(app{greeting: "two"})
	w.until("the full disk to be told", func() bool {
		s := w.status()
		return s.Refused != nil && s.Refused.Reason == "store" && strings.Contains(s.Refused.Message, "is full; free some space")
	})
	if !w.greets(webPort, "one") {
		t.Error("the app ended with the room")
	}
	w.agent.End(syscall.SIGKILL)
	w.startAgent()
	w.until("the agent to be back", func() bool { s := w.status(); return s.Running && s.Apply.Healthy })
	if !w.greets(webPort, "one") {
		t.Error("the app ended with the agent")
	}
	w.killContainers() // its restart needs some room; what its end could not write must not be in the way later
	w.until("the app to be gone", func() bool { return get(webPort) == "" })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.says("two")
	w.well()

	// full once the state is kept: there is no room for what containers need
	if err := edge.Hold(w.agentDir, "until the disk is full"); err != nil {
		t.Fatal(err)
	}
	w.deploy(app{greeting: "three"})
	w.until("the state to be kept", func() bool { s := w.status(); return s.Store.Pending != nil })
	fill()
	w.run("selvedge-edge", "release", "--dir", w.agentDir)
	w.until("the trouble to be told", func() bool { return w.status().Update.Error != "" || w.status().Update.Phase == edge.Applying })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.says("three")
	w.well()
}

var greeting = regexp.MustCompile(`hello (n[0-9]+),`)

// Whatever is killed, and whenever: what runs was pushed, the newest floor never falls, and in
// the end the node runs the newest state.
func TestKilledAtRandom(t *testing.T) {
	w := newSite(t)
	w.enrol()
	w.startReconciler()
	w.startAgent()
	w.deploy(app{greeting: "n0"})
	w.says("n0")

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	pushed := map[string]bool{"n0": true}
	floor := int64(0)
	check := func() {
		if m := greeting.FindStringSubmatch(get(webPort)); m != nil && !pushed[m[1]] {
			t.Fatalf("the app greets %s, which was never pushed", m[1])
		}
		if f := w.status().Store.Floor.Generation; f != 0 && f < floor {
			t.Fatalf("the floor fell from %d to %d", floor, f)
		} else {
			floor = max(floor, f)
		}
	}
	n := 0
	for began := time.Now(); time.Since(began) < 25*time.Second; {
		switch r.IntN(6) {
		case 0, 1:
			n++
			g := fmt.Sprint("n", n)
			pushed[g] = true
			a := app{greeting: g}
			if r.IntN(4) == 0 {
				a.fail, a.deadline = "unhealthy", "2s"
			}
			w.deploy(a)
		case 2:
			w.reconciler.End(syscall.SIGKILL)
			w.startReconciler()
		case 3, 4:
			w.agent.End(syscall.SIGKILL)
			check() // from the files alone
			w.startAgent()
		case 5:
			if err := w.containerd.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := w.containerd.Start(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Duration(r.IntN(700)) * time.Millisecond)
		check()
	}
	pushed["n9999"] = true
	w.deploy(app{greeting: "n9999"})
	w.says("n9999")
	w.well()
	check()
	if got := strings.Fields(w.ctr(namespace, "container", "ls", "-q")); len(got) != 1 {
		t.Errorf("containers: %v", got)
	}
	ports := 0
	for line := range strings.Lines(iptables(t)) {
		if strings.HasPrefix(line, "-A CNI-HOSTPORT-DNAT") {
			ports++
		}
	}
	if ports != 1 {
		t.Errorf("%d rules for one port:\n%s", ports, iptables(t))
	}
	for _, p := range w.status().Store.Problems {
		t.Errorf("the store says: %s", p)
	}
}
