package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nerdctl/v2/pkg/logging/jsonfile"

	"selvedge/edge/apply"
)

// entry is a line as the log driver writes it, without its end.
func entry(t testing.TB, text string, at time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(&jsonfile.Entry{Log: text, Stream: "stdout", Time: at}); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func TestLimit(t *testing.T) {
	for v, want := range map[uint64]int64{0: 0, 64 << 20: 64 << 20, 9223372036854771712: 0, 1<<64 - 1: 0} {
		if got := limit(v); got != want {
			t.Errorf("%d: %d", v, got)
		}
	}
}

func TestCores(t *testing.T) {
	var s samples
	at := time.Unix(1000, 0)
	for n, c := range []struct {
		after, spent time.Duration
		pid          uint32
		want         float64
	}{
		{10 * time.Second, 5 * time.Second, 7, 0.5}, // since its start
		{20 * time.Second, 25 * time.Second, 7, 2},
		{30 * time.Second, 25 * time.Second, 7, 0},
		{30 * time.Second, 26 * time.Second, 7, 0}, // at once again
		{40 * time.Second, 4 * time.Second, 8, 0.1},
	} {
		if got := s.cores("a", sample{at.Add(c.after), c.spent, c.pid}, at); got != c.want {
			t.Errorf("%d: %v", n, got)
		}
	}
	if got := s.cores("b", sample{at, time.Hour, 9}, time.Time{}); got != 0 {
		t.Errorf("of an unknown start: %v", got)
	}
}

func TestKeptLogsAreBounded(t *testing.T) {
	r := New(Config{DataDir: t.TempDir()})
	// ended when the clock was set back again and again: it decides nothing
	plant := func(n int, app string, size int64) string {
		id := fmt.Sprintf("%064x", n)
		dir := filepath.Join(t.TempDir(), id)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{logName(id), logName(id) + ".1", "lifecycle.json"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Truncate(filepath.Join(dir, logName(id)), size); err != nil {
			t.Fatal(err)
		}
		if err := r.keep(dir, run{ID: id, App: app, Container: "main", Ended: time.Unix(int64(-n), 0)}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "lifecycle.json")); err != nil {
			t.Error("more than the log was taken")
		}
		return id
	}
	ids := func() (out []string) {
		list, err := r.runs()
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			out = append(out, strings.TrimLeft(x.ID, "0"))
		}
		return out
	}
	for n := 1; n <= 4; n++ {
		plant(n, "a", 100)
	}
	if got := fmt.Sprint(ids()); got != "[3 4]" {
		t.Errorf("two of each: %s", got)
	}
	plant(5, "b", 40<<20)
	plant(6, "c", 40<<20) // too much beside the one before
	if got := fmt.Sprint(ids()); got != "[3 4 6]" {
		t.Errorf("by size: %s", got)
	}
	plant(7, "d", 100<<20) // the newest stays, however large
	if got := fmt.Sprint(ids()); got != "[7]" {
		t.Errorf("one that is too large: %s", got)
	}
	// an interrupted keep, and what was tampered with, goes
	for _, name := range []string{".new-x", "junk", fmt.Sprintf("%064x", 99)} {
		if err := os.Mkdir(filepath.Join(r.endedDir(), name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	plant(8, "a", 1)
	if entries, err := os.ReadDir(r.endedDir()); err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
}

// BenchmarkLogs reads 64 MB of a container's log as it lies on the disk.
func BenchmarkLogs(b *testing.B) {
	r := New(Config{DataDir: b.TempDir()})
	r.data = b.TempDir()
	id := strings.Repeat("a", 64)
	dir := filepath.Join(r.data, "containers", r.c.Namespace, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	var log bytes.Buffer
	at := time.Unix(1_700_000_000, 0).UTC()
	for n := 0; log.Len() < 64<<20; n++ {
		log.Write(entry(b, fmt.Sprintf("%s level=info msg=\"request served\" n=%d path=/api/v1/items took=12ms\n", at.Format(time.RFC3339), n), at.Add(time.Duration(n)*time.Millisecond)))
		log.WriteByte('\n')
	}
	if err := os.WriteFile(filepath.Join(dir, logName(id)), log.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		o    apply.LogOptions
	}{{"all", apply.LogOptions{}}, {"timestamps", apply.LogOptions{Timestamps: true}}, {"since", apply.LogOptions{Since: at.Add(time.Hour)}}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(log.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if err := r.Logs(context.Background(), id, c.o, io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("tail", func(b *testing.B) {
		for b.Loop() {
			if err := r.Logs(context.Background(), id, apply.LogOptions{Tail: 100}, io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}
