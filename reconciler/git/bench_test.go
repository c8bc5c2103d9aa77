package git

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fleetRepo makes a bare repository of n files in folders of ten, with some history, and a
// worktree that pushes to it.
func fleetRepo(b *testing.B, files, bytes, commits int) (bare, work testRepo) {
	b.Helper()
	dir := b.TempDir()
	bare = initRepo(b, filepath.Join(dir, "bare.git"), "--bare")
	var in strings.Builder
	line := strings.Repeat("node: labels: {line: \"1\", role: \"gateway\"}\n", bytes/42+1)[:bytes]
	for c := range commits {
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter Ana <ana@example.com> %d +0000\ndata 2\nc\n", 1_700_000_000+c)
		for f := range files {
			if c > 0 && f != c%files {
				continue
			}
			text := fmt.Sprintf("%d %d\n%s", f, c, line)
			fmt.Fprintf(&in, "M 100644 inline folders/plant-%d/line-%d/file-%d.yaml\ndata %d\n%s\n", f/100, f/10%10, f%10, len(text), text)
		}
	}
	bare.gitIn(in.String(), "fast-import", "--quiet")
	work = testRepo{b, filepath.Join(dir, "work")}
	bare.git("clone", "-q", bare.dir, work.dir)
	return bare, work
}

func percentiles(b *testing.B, took []time.Duration, unit string) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50-"+unit)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99-"+unit)
}

// BenchmarkHeadAfterPush measures what lies between a push and a readable tree.
func BenchmarkHeadAfterPush(b *testing.B) {
	for _, c := range []struct{ files, commits int }{{1000, 500}, {10_000, 2000}} {
		b.Run(fmt.Sprintf("files=%d", c.files), func(b *testing.B) {
			bare, work := fleetRepo(b, c.files, 6000, c.commits)
			src := New(Config{Remote: bare.dir, Branch: "main", Interval: time.Hour, Log: silent})
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- src.Run(ctx) }()
			<-src.Changed()
			if _, err := src.Head(ctx); err != nil {
				b.Fatal(err)
			}
			var signals, heads, reads []time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				name := fmt.Sprintf("folders/plant-0/line-%d/file-3.yaml", i%10)
				want := work.commit("x", name, fmt.Sprint(i))
				work.push("main")
				pushed := time.Now()
				b.StartTimer()
				for {
					<-src.Changed()
					signals = append(signals, time.Since(pushed))
					start := time.Now()
					head, err := src.Head(ctx)
					if err != nil {
						b.Fatal(err)
					}
					heads = append(heads, time.Since(start))
					if head.Hash != want {
						continue
					}
					start = time.Now()
					if _, err := head.Tree.ReadFile(name); err != nil {
						b.Fatal(err)
					}
					reads = append(reads, time.Since(start))
					break
				}
			}
			percentiles(b, signals, "signal") // after git push returned
			percentiles(b, heads, "head")
			percentiles(b, reads, "read")
			cancel()
			<-done
		})
	}
}

// BenchmarkTree opens a packed repository afresh, walks its tree and reads every file.
func BenchmarkTree(b *testing.B) {
	for _, files := range []int{1000, 10_000} {
		bare, _ := fleetRepo(b, files, 6000, 50)
		bare.git("gc", "-q")
		open := func(b *testing.B) *Tree {
			c, err := New(Config{Remote: bare.dir, Branch: "main", Log: silent}).Head(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			return c.Tree
		}
		walk := func(b *testing.B, t *Tree, read bool) {
			if err := fs.WalkDir(t, ".", func(p string, d fs.DirEntry, err error) error {
				if err == nil && read && !d.IsDir() {
					_, err = t.ReadFile(p)
				}
				return err
			}); err != nil {
				b.Fatal(err)
			}
		}
		name := fmt.Sprintf("files=%d/", files)
		b.Run(name+"open", func(b *testing.B) {
			for b.Loop() {
				open(b)
			}
		})
		b.Run(name+"walk", func(b *testing.B) {
			for b.Loop() {
				walk(b, open(b), false)
			}
		})
		b.Run(name+"walk-again", func(b *testing.B) {
			t := open(b)
			for b.Loop() {
				walk(b, t, false)
			}
		})
		b.Run(name+"read", func(b *testing.B) {
			b.SetBytes(int64(files) * 6000)
			for b.Loop() {
				walk(b, open(b), true)
			}
		})
	}
}
