package resolve

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"selvedge/schema/fleet"
)

func TestDiff(t *testing.T) {
	before := func(u *fleet.Unit) {
		u.Config["conf"] = fleet.Config{File: map[string]string{"a.conf": "one\ntwo\nthree\n"}}
		inApp(u, "hmi", func(a *fleet.App) { a.Config = map[string]fleet.ConfigRef{"conf": {Mount: "/etc/hmi"}} })
		container(u, "hmi", "web", func(c *fleet.Container) {
			c.Env = map[string]string{"A": "1", "B": "<x>"}
			c.Port = port(80)
			c.Args = []string{"-v"}
		})
		u.App["old"] = appOn("gateway")
		u.Node["same"] = node(2, "role", "other")
		u.Node["gone"] = node(3)
	}
	r := New(Config{})
	x := r.Resolve(fleetOf(base(before), with("b", "y=7"), with("c", "w=8")), Accepted{})
	y := r.Resolve(fleetOf(base(func(u *fleet.Unit) {
		before(u)
		delete(u.Node, "gone")
		delete(u.App, "old")
		u.App["new"] = appOn("gateway")
		u.Node["fresh"] = node(4)
		u.Config["conf"] = fleet.Config{File: map[string]string{"a.conf": "one\n2\nthree\n"}}
		inApp(u, "hmi", func(a *fleet.App) { a.Update.Deadline = "1m" })
		container(u, "hmi", "db", func(*fleet.Container) {})
		container(u, "hmi", "web", func(c *fleet.Container) {
			c.Env = map[string]string{"A": "2", "C": "3"}
			c.Port = port(81)
			c.Args = []string{"-v", "-x"}
		})
	}), refusedWS("b"), with("c", "w=9")), x.Accepted)
	var got []string
	for _, c := range Diff(x, y) {
		got = append(got, c.String())
	}
	want := `fresh added (folders/a/line-1)
gone removed (folders/a/line-1)
gw-1 changed (folders/a/line-1)
  apps.hmi.containers.db.files./etc/hmi/a.conf.content:
    @@ -0,0 +1,3 @@
    +one
    +2
    +three
  apps.hmi.containers.db.image: + "registry.example/web@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  apps.hmi.containers.db.logBytes: + 10485760
  apps.hmi.containers.db.logFiles: + 3
  apps.hmi.containers.db.network: + "bridge"
  apps.hmi.containers.db.restart: + "always"
  apps.hmi.containers.db.stopMs: + 10000
  apps.hmi.containers.db.stopSignal: + "SIGTERM"
  apps.hmi.containers.web.args: ["-v"] → ["-v","-x"]
  apps.hmi.containers.web.env.A: "1" → "2"
  apps.hmi.containers.web.env.B: - "<x>"
  apps.hmi.containers.web.env.C: + "3"
  apps.hmi.containers.web.files./etc/hmi/a.conf.content:
    @@ -1,3 +1,3 @@
     one
    -two
    +2
     three
  apps.hmi.containers.web.ports.http.host: 80 → 81
  apps.hmi.deadlineMs: 300000 → 60000
  apps.new: + web registry.example/web@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  apps.old: - web registry.example/web@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
w changed (c)
  identity.publicKey: "` + key(8) + `" → "` + key(9) + `"
y held (b): b/app.cue:1:1: expected '}'; close the struct`
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(strings.Join(got, "\n"), "\n")); d != "" {
		t.Error(d)
	}
	if got := Diff(x, x); len(got) > 0 {
		t.Errorf("a result differs from itself: %v", got)
	}
	if got := Diff(y, y); len(got) > 0 {
		t.Errorf("a result differs from itself: %v", got)
	}
	if got := Diff(nil, x); len(got) != len(x.Nodes) || got[0].Kind != Added {
		t.Errorf("from nothing: %v", got)
	}
	if got := Diff(x, nil); len(got) != len(x.Nodes) || got[0].Kind != Removed {
		t.Errorf("to nothing: %v", got)
	}
	// What a held node runs is not known here.
	back := r.Resolve(fleetOf(base(before), with("b", "y=7"), with("c", "w=8")), y.Accepted)
	for _, c := range Diff(y, back) {
		if c.Node == "y" && (c.Kind != Changed || len(c.Fields) > 0) {
			t.Errorf("no longer held: %v", c)
		}
	}
	gone := r.Resolve(fleetOf(base(before)), y.Accepted)
	found := false
	for _, c := range Diff(y, gone) {
		found = found || c.Node == "y" && c.Kind == Removed
	}
	if !found {
		t.Error("a held node that is removed is not said")
	}
}

func TestDiffOfOrder(t *testing.T) {
	change := func(order ...string) *Result {
		return one(t, func(u *fleet.Unit) {
			container(u, "hmi", "db", func(*fleet.Container) {})
			inApp(u, "hmi", func(a *fleet.App) { a.Update.Order = order })
		})
	}
	got := Diff(change("web", "db"), change("db", "web"))
	if len(got) != 1 || got[0].String() != "gw-1 changed (folders/a/line-1)\n  apps.hmi.containers order: web, db → db, web" {
		t.Errorf("%v", got)
	}
}
