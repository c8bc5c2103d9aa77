package resolve

import (
	"encoding/json"
	"fmt"
	"runtime"
	"testing"

	"selvedge/schema/fleet"
)

// bigFleet has nodes in workspaces of 100, with ten apps each: one has an override for a
// part of the nodes, one a config file, and fields says how many differ from node to node.
func bigFleet(nodes, fields int) *fleet.Fleet {
	f := &fleet.Fleet{Workspaces: map[string]*fleet.Source{}}
	k := 1
	for w := range nodes / 100 {
		path := fmt.Sprintf("folders/plant-%d/line-%d", w/10, w%10)
		f.Workspaces[path] = ws(path, func(u *fleet.Unit) {
			for i := range 100 {
				n := node(k, "role", "gateway", "line", fmt.Sprint(i%4), "site", path)
				n.Capacity = &fleet.Capacity{CPU: 16, Memory: "64GiB"}
				u.Node[fmt.Sprintf("gw-%d", k)] = n
				k++
			}
			u.Config["conf"] = fleet.Config{File: map[string]string{"app.toml": fmt.Sprintf("site = %q\n%s", path, "a = 1\n# a line of a config\n")}}
			for a := range 10 {
				app := appOn("gateway")
				c := web()
				c.Env = map[string]string{"SITE": path, "LOG": "info", "BROKER": "tcp://127.0.0.1:1883"}
				if a < fields {
					c.Env["CLIENT_ID"] = fmt.Sprintf("{{node.name}}-%d", a)
				}
				c.Port = map[string]fleet.Port{"http": {Container: 8080, Host: 18080 + a, Protocol: "tcp", Address: "0.0.0.0"}}
				c.Resources = fleet.Resources{CPU: 0.5, Memory: "64MiB"}
				c.Probe = &fleet.Probe{HTTP: &fleet.HTTPProbe{Port: 8080, Path: "/healthz"}, Interval: "5s", Timeout: "2s", Failures: 3}
				app.Container["web"] = c
				switch a {
				case 7:
					app.Override = []fleet.Override{{Selector: fleet.Selector{"line": "1"}, Container: map[string]json.RawMessage{"web": json.RawMessage(`{"resources":{"cpu":1}}`)}}}
				case 8:
					app.Config = map[string]fleet.ConfigRef{"conf": {Mount: "/etc/app"}}
				}
				u.App[fmt.Sprint("app-", a)] = app
			}
		})
	}
	return f
}

func BenchmarkFull(b *testing.B) {
	for _, bb := range []struct{ nodes, fields int }{{10000, 0}, {10000, 1}, {10000, 10}} {
		b.Run(fmt.Sprintf("nodes=%d/apps=10/with-fields=%d", bb.nodes, bb.fields), func(b *testing.B) {
			f := bigFleet(bb.nodes, bb.fields)
			b.ReportAllocs()
			var res *Result
			for b.Loop() {
				res = New(Config{}).Resolve(f, Accepted{})
			}
			if len(res.Nodes) != bb.nodes {
				b.Fatal(texts(res.Problems))
			}
			b.ReportMetric(float64(len(res.Nodes["gw-1"].Bytes())), "B/state")
		})
	}
}

func BenchmarkOneWorkspaceChanged(b *testing.B) {
	f := bigFleet(10000, 1)
	r := New(Config{})
	before := r.Resolve(f, Accepted{}).Accepted
	changed := f.Workspaces["folders/plant-3/line-3"]
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s := *changed
		s.ID = fmt.Sprint("changed", i)
		f.Workspaces[s.Path] = &s
		if res := r.Resolve(f, before); len(res.Nodes) != 10000 {
			b.Fatal(texts(res.Problems))
		}
	}
}

// BenchmarkMemory reports what a resolved fleet holds, without the fleet itself.
func BenchmarkMemory(b *testing.B) {
	f := bigFleet(10000, 1)
	for b.Loop() {
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		was := heap()
		r := New(Config{})
		res := r.Resolve(f, Accepted{})
		b.ReportMetric(float64(heap()-was)/float64(len(res.Nodes)), "B/node")
		runtime.KeepAlive(r)
	}
}

func BenchmarkDiff(b *testing.B) {
	f := bigFleet(10000, 1)
	r := New(Config{})
	x := r.Resolve(f, Accepted{})
	s := *f.Workspaces["folders/plant-3/line-3"]
	u := *s.Unit
	s.Unit, s.ID = &u, "other"
	u.App = map[string]fleet.App{"app-0": u.App["app-0"]}
	f.Workspaces[s.Path] = &s
	y := r.Resolve(f, x.Accepted)
	b.ReportAllocs()
	for b.Loop() {
		if got := Diff(x, y); len(got) != 100 {
			b.Fatal(len(got))
		}
	}
}
