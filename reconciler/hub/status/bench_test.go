package status

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

const many = 10000

func fleet(w *world) []string {
	nodes, names := map[string]roster.Node{}, make([]string, many)
	for i := range many {
		names[i] = fmt.Sprintf("gw-%05d", i)
		n := wanted(7)
		n.Workspace = fmt.Sprintf("folders/plant-%d/line-%d", i/1000, i/100)
		n.Apps = []string{"app-0", "app-1", "app-2", "app-3", "app-4", "app-5"}
		nodes[names[i]] = n
	}
	w.want(nodes)
	return names
}

// BenchmarkReport is one status of one of 10,000 nodes, with its share of the file: at 1,000 a
// second, 150 µs of processor are 15% of a core.
func BenchmarkReport(b *testing.B) {
	w := newWorld(b)
	names := fleet(w)
	data := make([][]byte, many)
	b.ReportAllocs()
	seq, i, used := uint64(0), 0, time.Duration(0)
	mark := processor()
	for b.Loop() {
		if i%many == 0 {
			b.StopTimer()
			used += processor() - mark
			seq++
			for j := range names {
				data[j] = typical(names[j], seq, w.now)
			}
			runtime.GC()
			mark = processor()
			b.StartTimer()
		}
		w.Report(names[i%many], data[i%many])
		if i++; i%1000 == 0 {
			w.now = w.now.Add(time.Second)
			w.sweep()
			if i%3000 == 0 {
				if err := w.save(false); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	used += processor() - mark
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(len(data[0])), "B/status")
}

// processor is the time that the process used, that of the collector and of all threads too.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkMemory fills 10,000 nodes with an hour of history.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		w := newWorld(b)
		names := fleet(w)
		for seq := range uint64(3) {
			w.now = w.now.Add(time.Minute)
			for _, n := range names {
				w.Report(n, typical(n, seq+1, w.now))
			}
			for i := 0; i < 10*many; i += 100 {
				w.Note(names[i%many], wire.Event{Severity: "info", Reason: "Started", App: "web", Message: fmt.Sprintf("container %d of the app started after the image was changed", i)})
			}
			if err := w.save(false); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
		runtime.KeepAlive(w)
	}
}

// big is a fleet that has reported.
func big(b *testing.B) *world {
	w := newWorld(b)
	for _, n := range fleet(w) {
		w.Report(n, typical(n, 1, w.now))
	}
	return w
}

func BenchmarkList(b *testing.B) {
	w := big(b)
	cases := map[string]Query{
		"name":     {Limit: 100, Visible: func(string) bool { return true }},
		"cpu":      {Limit: 100, Sort: "cpu"},
		"selector": {Limit: 100, Labels: "region in (south, north), tier!=2"},
		"search":   {Limit: 100, Search: "0099"},
	}
	for _, name := range []string{"name", "cpu", "selector", "search"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := w.Nodes(cases[name]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSummary(b *testing.B) {
	w := big(b)
	b.ResetTimer()
	for b.Loop() {
		w.Summary(func(string) bool { return true })
	}
}

func BenchmarkInstances(b *testing.B) {
	w := big(b)
	b.ResetTimer()
	for b.Loop() {
		if _, err := w.Instances(Query{Limit: 100}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApps(b *testing.B) {
	w := big(b)
	b.ResetTimer()
	for b.Loop() {
		if _, err := w.Apps(Query{Limit: 100}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSweep(b *testing.B) {
	w := big(b)
	b.ResetTimer()
	for b.Loop() {
		w.sweep()
	}
}

func BenchmarkChanges(b *testing.B) {
	w := big(b)
	for i := range 30 {
		c := roster.Change{Commit: roster.Commit{Hash: fmt.Sprintf("%040d", i)}, At: w.now, Nodes: map[string]int64{}}
		for j := range many {
			c.Nodes[fmt.Sprintf("gw-%05d", j)] = 7
		}
		w.Changes([]roster.Change{c})
	}
	b.ResetTimer()
	for b.Loop() {
		w.now = w.now.Add(2 * time.Second) // nothing is remembered
		if _, err := w.ChangeList(nil, 50, ""); err != nil {
			b.Fatal(err)
		}
	}
}
