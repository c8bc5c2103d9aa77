package console

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// BenchmarkPage is a page of a fleet of 10,000 nodes that all report, from the request to the
// last byte, without TLS.
func BenchmarkPage(b *testing.B) {
	const many = 10000
	nodes := map[string]roster.Node{}
	for i := range many {
		place := "folders/munich/line-1"
		if i%3 == 0 {
			place = "folders/berlin/line-2"
		}
		nodes[fmt.Sprintf("gw-%05d", i)] = roster.Node{Workspace: place, Labels: map[string]string{"line": fmt.Sprint(i % 50), "site": "munich"}, Generation: 7, Apps: []string{"web"}}
	}
	w := newWorld(b, opstest.Config{Nodes: nodes})
	for name := range nodes {
		w.report(name, func(s *wire.Status) {
			s.Usage = &wire.Usage{CPU: 0.4, Memory: 1 << 30}
			ref := wire.Ref{Generation: 7}
			s.State.Pulled, s.State.Current, s.State.LastGood = ref, ref, ref
		})
	}
	session := w.signIn("root")
	for _, page := range []string{"/nodes", "/nodes?sort=status", "/nodes?labels=line=7&q=gw", "/", "/nodes/gw-00007"} {
		b.Run(page, func(b *testing.B) {
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				r := httptest.NewRequest("GET", "https://hub.example"+page, nil)
				r.AddCookie(session)
				a := w.do(r)
				if a.StatusCode != 200 {
					b.Fatal(a.StatusCode, a.body)
				}
				size = len(a.body)
			}
			b.ReportMetric(float64(size)/1024, "KB")
		})
	}
}
