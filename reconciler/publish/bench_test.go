package publish_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"time"

	"selvedge/reconciler/publish"
	"selvedge/reconciler/sign"
	"selvedge/schema/nodestate"
	"selvedge/test/env"
)

// signAll signs on all cores, as the reconciler does; first numbers the first node.
func signAll(b *testing.B, contents [][]byte, first int, generation int64) []nodestate.Artifact {
	s := key(b)
	out := make([]nodestate.Artifact, len(contents))
	workers := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(contents); i += workers {
				a, err := s.Sign(contents[i], sign.Meta{Node: fmt.Sprintf("n%05d", first+i), Generation: generation, Commit: "abcd", Created: time.Unix(1, 0)})
				if err != nil {
					b.Error(err)
				}
				out[i] = a
			}
		})
	}
	wg.Wait()
	return out
}

// BenchmarkSignAndPut signs and publishes 10,000 states in batches of 1,000: new ones at
// first, then over those that are there.
func BenchmarkSignAndPut(b *testing.B) {
	contents := make([][]byte, 10000)
	for i := range contents {
		contents[i] = state(fmt.Sprintf("n%05d", i), i)
	}
	s := open(b, publish.Config{})
	generation := int64(0)
	for b.Loop() {
		generation++
		for from := 0; from < len(contents); from += 1000 {
			batch := signAll(b, contents[from:from+1000], from, generation)
			put(b, s, batch...)
		}
	}
	b.ReportMetric(float64(b.N)*float64(len(contents))/b.Elapsed().Seconds(), "states/s")
}

func BenchmarkServe(b *testing.B) {
	s := open(b, publish.Config{})
	contents := make([][]byte, 1000)
	for i := range contents {
		contents[i] = state(fmt.Sprintf("n%05d", i), i)
	}
	batch := signAll(b, contents, 0, 1)
	put(b, s, batch...)
	h := s.Handler()
	etag := `"` + nodestate.Digest(batch[7].Signed) + `"`
	for name, tc := range map[string]struct {
		method, tag, match string
		status             int
	}{
		"HEAD":        {"HEAD", "signed", "", 200},
		"GET signed":  {"GET", "signed", "", 200},
		"GET desired": {"GET", "desired", "", 200},
		"304":         {"GET", "signed", etag, 304},
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(tc.method, "/v2/nodes/n00007/manifests/"+tc.tag, nil)
			if tc.match != "" {
				r.Header.Set("If-None-Match", tc.match)
			}
			for b.Loop() {
				w := &discard{header: http.Header{}, status: 200}
				h.ServeHTTP(w, r)
				if w.status != tc.status {
					b.Fatal(w.status)
				}
			}
		})
	}
}

type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

func BenchmarkRemotePut(b *testing.B) {
	r := openRemote(b, publish.RemoteConfig{Registry: env.Registry(b)})
	generation := int64(0)
	contents := make([][]byte, 50)
	for i := range contents {
		contents[i] = state(fmt.Sprintf("n%05d", i), i)
	}
	for b.Loop() {
		generation++
		put(b, r, signAll(b, contents, 0, generation)...)
	}
	b.ReportMetric(float64(b.N)*float64(len(contents))/b.Elapsed().Seconds(), "states/s")
}
