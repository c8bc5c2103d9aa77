package containerd

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/nerdctl/v2/pkg/labels"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestScrub(t *testing.T) {
	spec := specs.Spec{Hooks: &specs.Hooks{
		CreateRuntime: []specs.Hook{{Path: "/a", Env: []string{"TOKEN=1", "PATH=/x"}}},
		Poststop:      []specs.Hook{{Path: "/a", Env: []string{"TOKEN=1"}}},
	}, Annotations: map[string]string{labels.LogURI: "old"}, Process: &specs.Process{Env: []string{"KEEP=1"}}}
	a, err := typeurl.MarshalAny(&spec)
	if err != nil {
		t.Fatal(err)
	}
	c := containers.Container{Spec: a, Labels: map[string]string{labels.LogURI: "binary:///usr/bin/edge%20%28deleted%29?_NERDCTL_INTERNAL_LOGGING=%2Fdata"}}
	if err := scrub(&c, "/usr/bin/edge"); err != nil {
		t.Fatal(err)
	}
	want := "binary:///usr/bin/edge?_NERDCTL_INTERNAL_LOGGING=%2Fdata"
	if c.Labels[labels.LogURI] != want {
		t.Errorf("log URI %s", c.Labels[labels.LogURI])
	}
	var got specs.Spec
	if err := json.Unmarshal(c.Spec.GetValue(), &got); err != nil {
		t.Fatal(err)
	}
	for _, h := range append(got.Hooks.CreateRuntime, got.Hooks.Poststop...) {
		if !slices.Equal(h.Env, []string{hookPath}) {
			t.Errorf("hook sees %q", h.Env)
		}
	}
	if got.Annotations[labels.LogURI] != want || !slices.Equal(got.Process.Env, []string{"KEEP=1"}) {
		t.Errorf("spec %+v", got)
	}
}

func TestPumpBoundsLines(t *testing.T) {
	c := make(chan string, 100)
	pump(strings.NewReader("one\n"+strings.Repeat("x", 2*maxLine+5)+"\nlast"), c)
	var got []string
	for s := range c {
		if len(s) > maxLine+1 {
			t.Errorf("a line of %d bytes", len(s))
		}
		got = append(got, s)
	}
	if len(got) != 5 || got[0] != "one\n" || got[3] != "xxxxx\n" || got[4] != "last" {
		t.Errorf("%d lines", len(got))
	}
}

func TestWords(t *testing.T) {
	got := words(`PREROUTING -m comment --comment "name: \"selvedge\" id: \"a b\"" -j CNI-1 ""`)
	want := []string{"PREROUTING", "-m", "comment", "--comment", `name: "selvedge" id: "a b"`, "-j", "CNI-1", ""}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestChainNames(t *testing.T) {
	// as containernetworking/plugins v1.1.1 named them for this container
	got := chainNames("selvedge-5f109885-557c5ca93de36231295f6260a85d6df04bd4587744fc08f5e9157118eecf66b7")
	if !slices.Equal(got, []string{"CNI-5dc912663f920df9ddc16f3d", "CNI-DN-5dc912663f920df9ddc16"}) {
		t.Errorf("%q", got)
	}
}

func TestFreeSubnet(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range []string{"selvedge0", "slv1", "slv2", "slv3"} {
		s, err := freeSubnet(b)
		if err != nil {
			t.Fatal(err)
		}
		p := netip.MustParsePrefix(s)
		if p.Bits() != 24 || !netip.MustParsePrefix("10.203.0.0/16").Contains(p.Addr()) {
			t.Errorf("subnet %s", s)
		}
		seen[s] = true
	}
	if len(seen) < 2 {
		t.Error("every bridge begins at the same place")
	}
}

func TestEndReserverSparesOthers(t *testing.T) {
	for _, content := range []string{"1", "0", "-1", "", "x", "2"} {
		name := t.TempDir() + "/pid"
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := endReserver(name); err != nil {
			t.Errorf("%q: %v", content, err)
		}
	}
}

// Only a container of our bridge that has no network, not even a part of one, is spared
// the clearing of it.
func TestUnconnected(t *testing.T) {
	dir := t.TempDir()
	leases := filepath.Join(dir, "leases", networkName)
	r := New(Config{RunDir: dir, Bridge: "slv1"})
	conf, err := json.Marshal(r.conflist(netip.MustParsePrefix("10.203.7.0/24")))
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, confFile), conf)
	ask := func(change func(*specs.State)) bool {
		s := specs.State{ID: strings.Repeat("ab", 32), Pid: 7, Annotations: map[string]string{
			labels.Networks: `["selvedge"]`, labels.Namespace: "ns", labels.StateDir: dir}}
		if change != nil {
			change(&s)
		}
		return unconnected(s, dir, dir, dir) != nil
	}
	if !ask(nil) {
		t.Error("a new container is taken for a connected one")
	}
	for name, change := range map[string]func(*specs.State){
		"host network":     func(s *specs.State) { s.Annotations[labels.Networks] = `["host"]` },
		"two networks":     func(s *specs.State) { s.Annotations[labels.Networks] = `["selvedge","b"]` },
		"no process":       func(s *specs.State) { s.Pid = 0 },
		"no state":         func(s *specs.State) { delete(s.Annotations, labels.StateDir) },
		"somebody's spec":  func(s *specs.State) { s.Annotations = nil },
		"wants a pid file": func(s *specs.State) { s.Annotations[labels.PIDFile] = "/x" },
	} {
		if ask(change) {
			t.Errorf("%s: is connected our way", name)
		}
	}
	write(filepath.Join(leases, "10.203.7.2"), []byte("ns-"+strings.Repeat("cd", 32)+"\r\neth0"))
	if !ask(nil) {
		t.Error("another container's lease counts")
	}
	write(filepath.Join(leases, "10.203.7.3"), []byte("ns-"+strings.Repeat("ab", 32)+"\r\neth0"))
	if ask(nil) {
		t.Error("what an interrupted start left is not cleared")
	}
	write(filepath.Join(dir, confFile), []byte("{"))
	if ask(nil) {
		t.Error("a broken configuration is used")
	}
}
