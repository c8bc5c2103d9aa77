package resolve

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"selvedge/schema/fleet"
)

const digest = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// key returns the n-th public key.
func key(n int) string {
	raw := make([]byte, 32)
	binary.BigEndian.PutUint64(raw[24:], uint64(n))
	b, err := nkeys.Encode(nkeys.PrefixByteUser, raw)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func web() fleet.Container {
	return fleet.Container{
		Image: "registry.example/web" + digest, Network: "bridge", Restart: "always",
		Stop: fleet.Stop{Signal: "SIGTERM", Timeout: "10s"}, Log: fleet.Log{MaxSize: "10MiB", MaxFiles: 3},
	}
}

func appOn(label string) fleet.App {
	return fleet.App{
		Placement: fleet.Placement{Selector: fleet.Selector{"role": label}},
		Container: map[string]fleet.Container{"web": web()},
		Update:    fleet.Update{Deadline: "5m"},
	}
}

func node(k int, labels ...string) fleet.Node {
	n := fleet.Node{Labels: map[string]string{}, Schedulable: true}
	if k > 0 {
		n.Identity = &fleet.NodeIdentity{PublicKey: key(k)}
	}
	for i := 0; i < len(labels); i += 2 {
		n.Labels[labels[i]] = labels[i+1]
	}
	return n
}

var ids int

// ws returns a workspace whose entities are declared in it, one a line.
func ws(path string, change func(*fleet.Unit)) *fleet.Source {
	ids++
	u := &fleet.Unit{
		Platform: fleet.Platform{Name: "test", Engine: 1}, Workspace: &fleet.Workspace{Title: path},
		Node: map[string]fleet.Node{}, App: map[string]fleet.App{}, Config: map[string]fleet.Config{},
		Device: map[string]fleet.Device{}, DeviceModel: map[string]fleet.DeviceModel{}, Endpoint: map[string]fleet.Endpoint{},
		Route: map[string]fleet.Route{}, Secret: map[string]fleet.Secret{}, Model: map[string]fleet.Model{},
	}
	change(u)
	s := &fleet.Source{Path: path, ID: fmt.Sprint("id", ids), Unit: u, Entities: map[string]fleet.Origin{}}
	at := func(kind, name string) {
		s.Entities[kind+"/"+name] = fleet.Origin{Position: fleet.Position{File: path + "/" + kind + ".cue", Line: 3, Column: 2}, Scope: path}
	}
	for n := range u.Node {
		at("node", n)
	}
	for n := range u.App {
		at("app", n)
	}
	for n := range u.Device {
		at("device", n)
	}
	for n := range u.DeviceModel {
		at("deviceModel", n)
	}
	for n := range u.Endpoint {
		at("endpoint", n)
	}
	for n := range u.Route {
		at("route", n)
	}
	return s
}

func refusedWS(path string) *fleet.Source {
	ids++
	return &fleet.Source{Path: path, ID: fmt.Sprint("id", ids), Problems: []fleet.Problem{
		{Severity: fleet.Error, Workspace: path, Position: fleet.Position{File: path + "/app.cue", Line: 1, Column: 1}, Message: "expected '}'; close the struct"},
	}}
}

func fleetOf(sources ...*fleet.Source) *fleet.Fleet {
	f := &fleet.Fleet{Workspaces: map[string]*fleet.Source{}}
	for _, s := range sources {
		f.Workspaces[s.Path] = s
	}
	return f
}

func texts(ps []fleet.Problem) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return strings.Join(out, "\n")
}

func TestSmoke(t *testing.T) {
	f := fleetOf(ws("folders/a/line-1", func(u *fleet.Unit) {
		u.Node["gw-1"] = node(1, "role", "gateway")
		u.Node["gw-2"] = node(0, "role", "gateway")
		u.App["hmi"] = appOn("gateway")
	}))
	res := New(Config{}).Resolve(f, Accepted{})
	if len(res.Problems) > 0 || len(res.Nodes) != 1 || fmt.Sprint(res.Awaiting) != "[gw-2]" {
		t.Fatalf("%+v", res)
	}
	t.Logf("%s", res.Nodes["gw-1"].Bytes())
}
