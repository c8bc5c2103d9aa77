package containerd_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/apply/containerd"
	"selvedge/edge/verify"
	"selvedge/edge/verify/verifytest"
	"selvedge/schema/nodestate"
	"selvedge/test/env"
)

// agent is an Applier that supervises, as selvedge-edge runs it.
type agent struct {
	*apply.Applier
	run *containerd.Runtime
	end func()
}

func (b *bed) agent(t *testing.T) *agent {
	t.Helper()
	run := containerd.New(b.conf)
	a := apply.New(apply.Config{Runtime: run, FilesDir: filepath.Join(b.conf.DataDir, "files"), Log: b.conf.Log,
		Settle: 250 * time.Millisecond, Stable: 250 * time.Millisecond}) // each fault is the first
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	ended := false
	end := func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := errors.Join(<-done, run.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return &agent{a, run, end}
}

// node is a state of two apps: a web server with everything, and one with an exec probe.
func (b *bed) node(t *testing.T, generation int64, p int, image string, change func(*nodestate.Container)) verify.State {
	t.Helper()
	web := b.spec("web", "main", published(p)).Container
	web.Image = image
	deadline := int64(20_000)
	web.Probe = &nodestate.Probe{HTTP: &nodestate.HTTPProbe{Port: 8080, Path: "/healthz"}, IntervalMS: 1000, TimeoutMS: 1000, Failures: 3}
	web.Files = []nodestate.File{{Path: "/etc/app.conf", Content: "line = 1\n"}}
	web.Env = map[string]string{"CONFIG": "/etc/app.conf"}
	web.User = "1000"
	if change != nil { // to break it
		change(&web)
		deadline = 4000
	}
	side := b.spec("side", "main").Container
	side.Network = "none"
	side.Probe = &nodestate.Probe{Exec: &nodestate.ExecProbe{Command: []string{"/hello", "check"}}, IntervalMS: 1000, TimeoutMS: 5000, Failures: 3}
	return verifytest.State(t, verifytest.Fill(nodestate.State{Apps: []nodestate.App{
		{Name: "side", Containers: []nodestate.Container{side}, DeadlineMS: 60_000},
		{Name: "web", Containers: []nodestate.Container{web}, DeadlineMS: deadline},
	}}), generation)
}

func (a *agent) must(t *testing.T, s verify.State) {
	t.Helper()
	if err := a.Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// answers waits until the app says that; it may be gone for a moment.
func answers(t *testing.T, url, want string) {
	t.Helper()
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	eventually(t, url+" says "+want, func() bool {
		res, err := c.Get(url)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return err == nil && strings.Contains(string(b), want)
	})
}

// Versions come and go, their images with them, and the last step back needs no network.
// It is the one test of containers that is short enough for -short.
func TestNodeLife(t *testing.T) {
	t.Parallel()
	b := bedOn(t, site.containerd(t))
	p := port(t)
	srv := newRegistry()
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	theirs := env.Image(t, host, "hello", "v2")
	b.ctrIn(t, "foreign-"+b.conf.Namespace, "images", "pull", "--plain-http", theirs)
	defer b.ctrIn(t, "foreign-"+b.conf.Namespace, "images", "rm", "--sync", theirs)
	a := b.agent(t)
	var all []verify.State
	var layers [][]string
	for n, version := range []string{"v1", "v2", "v3", "v4"} {
		image := env.Image(t, host, "hello", version)
		s := verifytest.State(t, verifytest.Fill(nodestate.State{Apps: []nodestate.App{{Name: "web", DeadlineMS: 60_000,
			Containers: []nodestate.Container{b.spec("web", "main", published(p), func(c *nodestate.Container) { c.Image = image }).Container}}}}), int64(n+1))
		all = append(all, s)
		a.must(t, s)
		answers(t, url(p, "/"), "version "+version)
		keep := all[max(n-1, 0):]
		if err := a.Prune(t.Context(), func() []verify.State { return keep }); err != nil {
			t.Error(err)
		}
		if have := strings.Fields(b.ctr(t, "images", "ls", "-q")); len(have) != min(n+1, 2) {
			t.Errorf("after %s there are %q", version, have)
		}
		layers = append(layers, strings.Fields(b.ctr(t, "content", "ls", "-q")))
	}
	if a, b := len(layers[1]), len(layers[3]); a != b {
		t.Errorf("%d blobs with two images, %d with two later", a, b)
	}
	if have := b.ctrIn(t, "foreign-"+b.conf.Namespace, "images", "check"); !strings.Contains(have, "complete") {
		t.Errorf("the image of another namespace is %s", have)
	}
	srv.Close()
	a.must(t, all[2])
	answers(t, url(p, "/"), "version v3")
	was := b.one(t, apply.Spec{App: "web", Container: nodestate.Container{Name: "main"}})
	b.ctr(t, "tasks", "kill", "-s", "SIGKILL", was.ID)
	eventually(t, "killed, and back", func() bool {
		i := b.one(t, apply.Spec{App: "web", Container: nodestate.Container{Name: "main"}})
		return i.State == apply.Running && !i.Since.Equal(was.Since)
	})
	answers(t, url(p, "/"), "version v3")
	a.must(t, verifytest.State(t, verifytest.Fill(nodestate.State{}), 9))
	if err := a.Prune(t.Context(), func() []verify.State { return nil }); err != nil {
		t.Error(err)
	}
	if left := b.ctr(t, "images", "ls", "-q") + b.ctr(t, "content", "ls", "-q") + b.ctr(t, "snapshots", "tree"); strings.TrimSpace(left) != "" {
		t.Errorf("left: %s", left)
	}
}

// What others do to a node is put back, and nothing else is touched.
func TestNodeDrifts(t *testing.T) {
	t.Parallel()
	b := privateBed(t, func(c *containerd.Config) { c.Subnet = "" })
	p := port(t)
	web, side := apply.Spec{App: "web", Container: nodestate.Container{Name: "main"}}, apply.Spec{App: "side", Container: nodestate.Container{Name: "main"}}
	a := b.agent(t)
	v1 := b.node(t, 1, p, b.image, nil)
	a.must(t, v1)
	answers(t, url(p, "/"), "version v1")
	answers(t, url(p, "/config"), "line = 1")
	if s := a.Status(); !s.Healthy || s.Generation != 1 {
		t.Errorf("status %+v", s)
	}
	sideWas := b.one(t, side)

	for _, d := range []struct {
		name string
		do   func(i apply.Instance)
	}{
		{"killed", func(i apply.Instance) { b.ctr(t, "tasks", "kill", "-s", "SIGKILL", i.ID) }},
		{"stopped", func(i apply.Instance) { b.ctr(t, "tasks", "kill", "-s", "SIGTERM", i.ID) }},
		{"paused", func(i apply.Instance) { b.ctr(t, "tasks", "pause", i.ID) }},
		{"deleted", func(i apply.Instance) {
			b.ctr(t, "tasks", "delete", "-f", i.ID)
			b.ctr(t, "containers", "delete", i.ID)
		}},
		{"config files deleted", func(apply.Instance) {
			if err := os.RemoveAll(filepath.Join(b.conf.DataDir, "files")); err != nil {
				t.Error(err)
			}
		}},
		{"containerd restarted, killed meanwhile", func(i apply.Instance) {
			pid := b.pid(t, i.ID)
			if err := b.daemon.Halt(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the agent says so", func() bool { return a.Status().RuntimeError != "" })
			kill(t, pid)
			if err := b.daemon.Start(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		was := b.one(t, web)
		d.do(was)
		eventually(t, d.name+": healthy again", func() bool {
			i := b.one(t, web)
			return i.State == apply.Running && a.Status().Healthy && (d.name == "paused" || !i.Since.Equal(was.Since))
		})
		answers(t, url(p, "/config"), "line = 1")
	}
	if i := b.one(t, side); i != sideWas {
		t.Errorf("the other app was touched: %v, was %v", i, sideWas)
	}

	// the agent restarts, offline: nothing is restarted
	was := b.one(t, web)
	a.end()
	answers(t, url(p, "/"), "version v1")
	a = b.agent(t)
	if err := a.Start(t.Context(), v1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "adopted", func() bool { return a.Status().Healthy })
	if i := b.one(t, web); i != was {
		t.Errorf("is %v, was %v", i, was)
	}
}

// A new version, then broken ones, each taken back as a whole.
func TestNodeUpdates(t *testing.T) {
	t.Parallel()
	b := privateBed(t, func(c *containerd.Config) { c.Subnet = "" })
	p := port(t)
	side := apply.Spec{App: "side", Container: nodestate.Container{Name: "main"}}
	a := b.agent(t)
	a.must(t, b.node(t, 1, p, b.image, nil))
	answers(t, url(p, "/"), "version v1")
	sideWas := b.one(t, side)
	v2image := env.Image(t, b.host, "hello", "v2")
	v2 := b.node(t, 2, p, v2image, nil)
	a.must(t, v2)
	answers(t, url(p, "/"), "version v2")
	for _, bad := range []struct {
		name, want string
		change     func(*nodestate.Container)
	}{
		{"exits", "exited with code 3", func(c *nodestate.Container) { c.Env["FAIL"] = "exit" }},
		{"unhealthy", "does not answer yet: GET http://10.203.", func(c *nodestate.Container) { c.Env["FAIL"] = "unhealthy" }},
		{"port", "is taken by", func(c *nodestate.Container) {
			c.Ports[0].Host = portOf(t, b.host) // the registry's
		}},
	} {
		v3 := b.node(t, 3, p, v2image, bad.change)
		short, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := a.Apply(short, v3)
		cancel()
		var u *apply.Unhealthy
		if !errors.As(err, &u) || !strings.Contains(err.Error(), bad.want) || len(u.Reasons) != 1 {
			t.Errorf("%s: apply says %v", bad.name, err)
		}
		if bad.name == "exits" && !strings.Contains(err.Error(), "told to fail: no such database") {
			t.Errorf("without what it printed: %v", err)
		}
		a.must(t, v2)
		answers(t, url(p, "/"), "version v2")
	}
	if i := b.one(t, side); i != sideWas {
		t.Errorf("the other app was touched: %v, was %v", i, sideWas)
	}

	// nothing wanted: nothing left
	a.must(t, verifytest.State(t, verifytest.Fill(nodestate.State{}), 9))
	eventually(t, "all gone", func() bool { l, err := b.Observe(t.Context()); return err == nil && len(l) == 0 })
}
