package reconciler_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"selvedge/test/bench/fleetgen"
)

// BenchmarkOnce is a pass that changed one node of 10,000: all of it, from the moved branch to
// the roster event on disk. Every pass edits another workspace, as people do.
func BenchmarkOnce(b *testing.B) {
	const nodes = 10000
	w := newWorld(b)
	w.must(fleetgen.Write(w.clone, nodes))
	commit := func(message string) {
		w.git(w.clone, "add", "-A")
		w.git(w.clone, "commit", "-q", "-m", message)
		w.git(w.clone, "push", "-q", "origin", "HEAD:main")
	}
	commit("Begin")
	w.start()
	w.once()
	i := 0
	edit := func() {
		_, err := fleetgen.Edit(w.clone, (i*100+i)%nodes, fmt.Sprint("change ", i))
		w.must(err)
		commit(fmt.Sprint("Change ", i))
		i++
	}
	edit()
	w.once() // an evaluator starts
	var took []time.Duration
	var used int64
	for b.Loop() {
		b.StopTimer()
		edit()
		b.StartTimer()
		began, before := time.Now(), cpuTime(b)
		w.once()
		took = append(took, time.Since(began))
		used += cpuTime(b) - before
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/median")
	b.ReportMetric(float64(used)/1e6/float64(len(took)), "cpu-ms/op")
}

// cpuTime is that of this process, without its evaluators, in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return ru.Utime.Nano() + ru.Stime.Nano()
}
