package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"selvedge/test/env"
)

func TestMain(m *testing.M) {
	if os.Getenv(peerEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestQuick runs two benchmarks as a whole, small, with commands built here: those of bin/ may be older.
func TestQuick(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the commands")
	}
	if _, err := tool("cue"); err != nil {
		env.Need(t, err)
	}
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin+"/", "./cmd/selvedge", "./cmd/selvedge-reconciler", "./cmd/selvedge-hub", "./cmd/selvedge-edge")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var out bytes.Buffer
	b := &bench{bin: bin, quick: true, out: &out}
	if err := publishing(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := connecting(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cold", "warm", "one node", "cue vet -c ./folders/...", "cue vet -c of one workspace",
		"hub: they report every 10s", "bare nats-server, as many plain connections", "GET /api/v1/summary, [0-9]+ KB", "hub: a log of 3[0-9]\\.[0-9] MB from one node", "httputil.ReverseProxy, as many bytes"} {
		if !regexp.MustCompile(want + "  ").MatchString(out.String()) {
			t.Errorf("no row %q:\n%s", want, &out)
		}
	}
}

func TestMissingPeer(t *testing.T) {
	t.Setenv("SELVEDGE_TOOLS", t.TempDir())
	if _, err := tool("no-such-peer"); !errors.Is(err, errMissing) {
		t.Error(err)
	}
}

func TestMeterCountsChildren(t *testing.T) {
	cmd := exec.Command("sh", "-c", `(while :; do :; done) & wait $!`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m := watch(cmd.Process.Pid)
	alone := resident(cmd.Process.Pid)
	for begun := time.Now(); cpuOf(cmd.Process.Pid) < m.cpu+50*time.Millisecond && time.Since(begun) < time.Minute; {
		time.Sleep(5 * time.Millisecond)
	}
	pids := family(cmd.Process.Pid)
	u := m.end()
	for _, pid := range pids[1:] {
		p, err := os.FindProcess(pid)
		if err == nil {
			err = p.Kill()
		}
		if err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("its child was killed, and it did not notice")
	}
	if len(pids) != 2 || u.cpu < 50*time.Millisecond || u.peak <= alone {
		t.Errorf("processes %v, used %+v, alone %d", pids, u, alone)
	}
}

func TestSample(t *testing.T) {
	s := sample{4 * time.Second, time.Second, 3 * time.Second, 2 * time.Second}
	if s.median() != 2500*time.Millisecond || s.spread() != "1.00 s to 4.00 s of 4" {
		t.Error(s.median(), s.spread())
	}
	if got := (sample{}).median(); got != 0 {
		t.Error(got)
	}
	if ratio(1.0, 2.0) != "0.50" || ratio(int64(1), 0) != "-" || ratio(1.0, 100.0) != "0.010" {
		t.Error(ratio(1.0, 2.0), ratio(1.0, 100.0))
	}
}
