package resolve

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"selvedge/schema/fleet"
	"selvedge/schema/nodestate"
)

const line1 = "folders/a/line-1"

// one resolves one workspace with a gateway and an app that tests change.
func one(t *testing.T, change func(*fleet.Unit)) *Result {
	t.Helper()
	return New(Config{}).Resolve(fleetOf(base(change)), Accepted{})
}

func base(change func(*fleet.Unit)) *fleet.Source {
	return ws(line1, func(u *fleet.Unit) {
		u.Node["gw-1"] = node(1, "role", "gateway", "line", "1")
		u.App["hmi"] = appOn("gateway")
		change(u)
	})
}

// container changes one container of an app, which is added if it is not there.
func container(u *fleet.Unit, app, name string, change func(*fleet.Container)) {
	a := u.App[app]
	a.Container = maps.Clone(a.Container)
	c, ok := a.Container[name]
	if !ok {
		c = web()
	}
	change(&c)
	a.Container[name] = c
	u.App[app] = a
}

func port(host int, more ...string) map[string]fleet.Port {
	p := fleet.Port{Container: 80, Host: host, Protocol: "tcp", Address: "0.0.0.0"}
	for _, m := range more {
		if m == "udp" {
			p.Protocol = m
		} else {
			p.Address = m
		}
	}
	return map[string]fleet.Port{"http": p}
}

func inApp(u *fleet.Unit, name string, change func(*fleet.App)) {
	a := u.App[name]
	change(&a)
	u.App[name] = a
}

func device(node, model, tcp string) fleet.Device {
	return fleet.Device{Node: node, Model: model, Poll: "1s", Modbus: &fleet.ModbusEndpoint{TCP: tcp, Unit: 3}}
}

func property(kind, access, table string, address int, bit ...int) fleet.Property {
	p := fleet.Property{Type: kind, Access: access, Modbus: &fleet.ModbusRegister{Table: table, Address: address}}
	if len(bit) > 0 {
		p.Modbus.Bit = &bit[0]
	}
	return p
}

// TestErrors has every rule that refuses a workspace, with its words and its place.
func TestErrors(t *testing.T) {
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	for _, tt := range []struct {
		name   string
		change func(*fleet.Unit)
		want   string // the whole text; empty: accepted
	}{
		{"nothing wrong", func(*fleet.Unit) {}, ""},

		{"engine unknown", func(u *fleet.Unit) { u.Platform.Engine = 2 },
			`platform.cue: platform: engine 2 is not one of this program, which knows 1 to 1; upgrade it before raising platform.engine`},
		{"engine unset", func(u *fleet.Unit) { u.Platform.Engine = 0 },
			`platform.cue: platform: engine 0 is not one of this program, which knows 1 to 1; upgrade it before raising platform.engine`},

		{"node list", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) { a.Placement.Nodes = []string{"gw-1", "gw-9"} })
		},
			`folders/a/line-1/app.cue:3:2: app "hmi": placement.nodes: unknown node "gw-9"; declare it under node: in this workspace, or remove it here`},
		{"override node list", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) { a.Override = []fleet.Override{{Nodes: []string{"gw-9"}}} })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": override[0].nodes: unknown node "gw-9"; declare it under node: in this workspace, or remove it here`},
		{"override container", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) {
				a.Override = []fleet.Override{{Selector: fleet.Selector{"x": "y"}, Container: map[string]json.RawMessage{"wbe": raw(`{}`)}}}
			})
		}, `folders/a/line-1/app.cue:3:2: app "hmi": override[0]: unknown container "wbe"; the app has "web"`},
		{"override container, matched", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) {
				a.Override = []fleet.Override{{Nodes: []string{"gw-1"}, Container: map[string]json.RawMessage{"wbe": raw(`{}`)}}}
			})
		}, `folders/a/line-1/app.cue:3:2: app "hmi": override[0]: unknown container "wbe"; the app has "web"`},
		{"no container", func(u *fleet.Unit) { inApp(u, "hmi", func(a *fleet.App) { a.Container = nil }) },
			`folders/a/line-1/app.cue:3:2: app "hmi": it has no container; declare one under container (on gw-1)`},

		{"config unknown", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) { a.Config = map[string]fleet.ConfigRef{"conf": {Mount: "/etc/hmi"}} })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": unknown config "conf"; declare it under config: in this workspace or a folder above (on gw-1)`},
		{"config unknown, placed nowhere", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) {
				a.Placement = fleet.Placement{}
				a.Config = map[string]fleet.ConfigRef{"conf": {Mount: "/etc/hmi"}}
			})
		}, `folders/a/line-1/app.cue:3:2: app "hmi": unknown config "conf"; declare it under config: in this workspace or a folder above
folders/a/line-1/app.cue:3:2: warning: app "hmi": it runs nowhere; set placement.selector or placement.nodes`},
		{"config container", func(u *fleet.Unit) {
			u.Config["conf"] = fleet.Config{File: map[string]string{"a": ""}}
			inApp(u, "hmi", func(a *fleet.App) {
				a.Config = map[string]fleet.ConfigRef{"conf": {Mount: "/etc/hmi", Container: "db"}}
			})
		}, `folders/a/line-1/app.cue:3:2: app "hmi": config "conf": unknown container "db"; the app has "web" (on gw-1)`},
		{"config file twice", func(u *fleet.Unit) {
			u.Config["one"] = fleet.Config{File: map[string]string{"a": ""}}
			u.Config["two"] = fleet.Config{File: map[string]string{"a": ""}}
			inApp(u, "hmi", func(a *fleet.App) {
				a.Config = map[string]fleet.ConfigRef{"one": {Mount: "/etc/hmi"}, "two": {Mount: "/etc/hmi"}}
			})
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": configs "one" and "two" both have a file /etc/hmi/a; mount one of them elsewhere (on gw-1)`},
		{"config file and mount", func(u *fleet.Unit) {
			u.Config["one"] = fleet.Config{File: map[string]string{"a": ""}}
			inApp(u, "hmi", func(a *fleet.App) { a.Config = map[string]fleet.ConfigRef{"one": {Mount: "/etc/hmi"}} })
			container(u, "hmi", "web", func(c *fleet.Container) { c.Mount = map[string]fleet.Mount{"/etc/hmi/a": {Host: "/srv/a"}} })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": a mount and a file of config "one" are both at /etc/hmi/a; move one of them (on gw-1)`},
		{"file where a directory must be", func(u *fleet.Unit) {
			u.Config["one"] = fleet.Config{File: map[string]string{"a": ""}}
			inApp(u, "hmi", func(a *fleet.App) { a.Config = map[string]fleet.ConfigRef{"one": {Mount: "/etc/hmi"}} })
			container(u, "hmi", "web", func(c *fleet.Container) { c.Mount = map[string]fleet.Mount{"/etc/hmi/a/b": {Host: "/srv/a"}} })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": file "/etc/hmi/a": "/etc/hmi/a/b" needs a directory there (on gw-1)`},
		{"mounts at one path", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) {
				c.Mount = map[string]fleet.Mount{"/data": {Host: "/a"}, "/data/": {Host: "/b"}}
			})
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": mounts "/data" and "/data/" are at one path; remove one (on gw-1)`},

		{"order unknown", func(u *fleet.Unit) { inApp(u, "hmi", func(a *fleet.App) { a.Update.Order = []string{"db"} }) },
			`folders/a/line-1/app.cue:3:2: app "hmi": update.order: unknown container "db"; the app has "web" (on gw-1)`},
		{"order twice", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) { a.Update.Order = []string{"web", "web"} })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": update.order: container "web" is listed twice; remove one (on gw-1)`},
		{"deadline", func(u *fleet.Unit) { inApp(u, "hmi", func(a *fleet.App) { a.Update.Deadline = "99999h" }) },
			`folders/a/line-1/app.cue:3:2: app "hmi": update.deadline: 99999h is more than a week (168h) (on gw-1)`},
		{"image without digest", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Image = "registry.example/web:1" })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": image: "registry.example/web:1" is not a reference with a digest (@sha256:…) (on gw-1)`},
		{"memory", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Resources.Memory = "999999TiB" })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": resources.memory: 999999TiB is more than 1024TiB (on gw-1)`},
		{"cpu", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Resources.CPU = 0.0001 })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": resources.cpu: 0.0001 cores; the least is 0.001 (on gw-1)`},

		{"field unknown", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Env = map[string]string{"A": "x {{node.ip}}"} })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": env A: unknown field {{node.ip}}; there are node.name, node.workspace and node.labels.KEY; write {{{{ for two braces (on gw-1)`},
		{"field open", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Args = []string{"a", "{{node.name"} })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": args[1]: {{ without }}; write {{{{ for two braces (on gw-1)`},
		{"label absent", func(u *fleet.Unit) {
			u.Node["gw-2"] = node(2, "role", "gateway")
			container(u, "hmi", "web", func(c *fleet.Container) { c.Command = []string{"{{node.labels.line}}"} })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": command[0]: {{node.labels.line}}: the node has no label "line"; set it, or place the app by it (on gw-2)`},
		{"label absent in a file, on many nodes", func(u *fleet.Unit) {
			for i := range 5 {
				u.Node[fmt.Sprint("x", i)] = node(10+i, "role", "gateway")
			}
			u.Config["one"] = fleet.Config{File: map[string]string{"a": "{{node.labels.line}}"}}
			inApp(u, "hmi", func(a *fleet.App) { a.Config = map[string]fleet.ConfigRef{"one": {Mount: "/etc"}} })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": file /etc/a: {{node.labels.line}}: the node has no label "line"; set it, or place the app by it (on x0, x1, x2 and 2 more)`},
		{"too long after interpolation", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) {
				c.Env = map[string]string{"A": strings.Repeat("x", 128<<10-513) + "{{node.name}}"}
			})
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": env A: longer than 130560 bytes, not UTF-8, or with a NUL (on gw-1)`},

		{"port clash in one app", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Port = port(8080) })
			container(u, "hmi", "db", func(c *fleet.Container) { c.Port = port(8080, "10.0.0.1") })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": port "http" wants 0.0.0.0:8080/tcp of the node, which container "db" of app "hmi" takes (port "http"); choose another host port, or place the apps on different nodes (on gw-1)`},
		{"port clash between apps", func(u *fleet.Unit) {
			u.App["logger"] = appOn("gateway")
			container(u, "hmi", "web", func(c *fleet.Container) { c.Port = port(8080) })
			container(u, "logger", "web", func(c *fleet.Container) { c.Port = port(8080) })
		}, `folders/a/line-1/app.cue:3:2: app "logger": container "web": port "http" wants 0.0.0.0:8080/tcp of the node, which container "web" of app "hmi" takes (port "http"); choose another host port, or place the apps on different nodes (on gw-1)`},
		{"port clash with all of IPv6", func(u *fleet.Unit) {
			u.App["logger"] = appOn("gateway")
			container(u, "hmi", "web", func(c *fleet.Container) { c.Port = port(8080) })
			container(u, "logger", "web", func(c *fleet.Container) { c.Port = port(8080, "::") })
		}, `folders/a/line-1/app.cue:3:2: app "logger": container "web": port "http" wants [::]:8080/tcp of the node, which container "web" of app "hmi" takes (port "http"); choose another host port, or place the apps on different nodes (on gw-1)`},
		{"port clash with the host's network", func(u *fleet.Unit) {
			u.App["logger"] = appOn("gateway")
			container(u, "hmi", "web", func(c *fleet.Container) { c.Port = port(80) })
			container(u, "logger", "web", func(c *fleet.Container) { c.Port = port(80); c.Network = "host" })
		}, `folders/a/line-1/app.cue:3:2: app "logger": container "web": port "http" wants 0.0.0.0:80/tcp of the node, which container "web" of app "hmi" takes (port "http"); choose another host port, or place the apps on different nodes (on gw-1)`},
		{"no clash: protocols", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Port = port(8080) })
			container(u, "hmi", "db", func(c *fleet.Container) { c.Port = port(8080, "udp") })
		}, ""},
		{"no clash: addresses", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Port = port(8080, "10.0.0.2") })
			container(u, "hmi", "db", func(c *fleet.Container) { c.Port = port(8080, "10.0.0.1") })
			container(u, "hmi", "x", func(c *fleet.Container) { c.Port = port(8080, "fd00::1") })
		}, ""},
		{"no clash: not published", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Port = port(0) })
			container(u, "hmi", "db", func(c *fleet.Container) { c.Port = port(0) })
		}, ""},
		{"no clash: different nodes", func(u *fleet.Unit) {
			u.Node["pc-1"] = node(2, "role", "pc")
			u.App["logger"] = appOn("pc")
			container(u, "hmi", "web", func(c *fleet.Container) { c.Port = port(8080) })
			container(u, "logger", "web", func(c *fleet.Container) { c.Port = port(8080) })
		}, ""},
		{"no clash: probes on the host's network", func(u *fleet.Unit) {
			for _, name := range []string{"web", "db"} {
				container(u, "hmi", name, func(c *fleet.Container) {
					c.Network = "host"
					c.Probe = &fleet.Probe{TCP: &fleet.TCPProbe{Port: 80}, Interval: "5s", Timeout: "2s", Failures: 3}
				})
			}
		}, ""},
		{"port without a network", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Network = "none"; c.Port = port(80) })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": port "http": host 80, but the network is none; remove host, or set network to bridge (on gw-1)`},
		{"port on the host's network", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Network = "host"; c.Port = port(81) })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": port "http": host 81 and container 80, but on the network of the host they are one; make them equal, or set network to bridge (on gw-1)`},
		{"port address", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Port = port(81, "999.0.0.1") })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": port "http": address "999.0.0.1" is not an IP address (on gw-1)`},

		{"cpu exceeded", func(u *fleet.Unit) {
			n := u.Node["gw-1"]
			n.Capacity = &fleet.Capacity{CPU: 2, Memory: "1GiB"}
			u.Node["gw-1"] = n
			container(u, "hmi", "web", func(c *fleet.Container) { c.Resources = fleet.Resources{CPU: 0.5, Memory: "512MiB"} })
			container(u, "hmi", "db", func(c *fleet.Container) { c.Resources = fleet.Resources{CPU: 1.75, Memory: "512MiB"} })
		}, `folders/a/line-1/node.cue:3:2: node "gw-1": its apps may use 2.25 cores (hmi/db 1.75 + hmi/web 0.5), and it has 2; lower their limits, or run fewer apps on it`},
		{"memory exceeded", func(u *fleet.Unit) {
			n := u.Node["gw-1"]
			n.Capacity = &fleet.Capacity{Memory: "1GiB"}
			u.Node["gw-1"] = n
			container(u, "hmi", "web", func(c *fleet.Container) { c.Resources = fleet.Resources{CPU: 50, Memory: "1G"} })
			container(u, "hmi", "db", func(c *fleet.Container) { c.Resources = fleet.Resources{Memory: "128MiB"} })
			container(u, "hmi", "free", func(*fleet.Container) {})
		}, `folders/a/line-1/node.cue:3:2: node "gw-1": its apps may use 1.06GiB of memory (hmi/web 953.67MiB + hmi/db 128MiB), and it has 1GiB; lower their limits, or run fewer apps on it`},
		{"drained node has room", func(u *fleet.Unit) {
			n := u.Node["gw-1"]
			n.Capacity, n.Drain = &fleet.Capacity{CPU: 1}, true
			u.Node["gw-1"] = n
			container(u, "hmi", "web", func(c *fleet.Container) { c.Resources.CPU = 50 })
		}, ""},
		{"awaiting node is checked too", func(u *fleet.Unit) {
			n := node(0, "role", "gateway")
			n.Capacity = &fleet.Capacity{CPU: 1}
			u.Node["gw-2"] = n
			container(u, "hmi", "web", func(c *fleet.Container) { c.Resources.CPU = 2 })
		}, `folders/a/line-1/node.cue:3:2: node "gw-2": its apps may use 2 cores (hmi/web 2), and it has 1; lower their limits, or run fewer apps on it`},
		{"cpuset backwards", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Resources.CPUSet = "0,3-1" })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": resources.cpuset: 3-1 ends before it begins; write 1-3 (on gw-1)`},
		{"user beyond all", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.User = "1000:4294967295" })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": user: 4294967295 is beyond 2147483647, the largest that there is; choose a smaller one (on gw-1)`},
		{"signal", func(u *fleet.Unit) {
			container(u, "hmi", "web", func(c *fleet.Container) { c.Stop.Signal = "SIGTREM" })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": stop.signal: unknown signal "SIGTREM"; write one such as SIGTERM, SIGINT or SIGUSR1 (on gw-1)`},
		{"selector that matches nothing", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) { a.Placement.Selector = fleet.Selector{"role": "gatway"} })
		}, `folders/a/line-1/app.cue:3:2: warning: app "hmi": placement.selector matches no node of this workspace; check it against the labels of the nodes`},
		{"override of nothing", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) { a.Override = []fleet.Override{{}} })
		}, `folders/a/line-1/app.cue:3:2: warning: app "hmi": override[0]: it changes nothing; set its selector or its nodes`},
		{"key mistyped", func(u *fleet.Unit) {
			u.Node["gw-1"].Identity.PublicKey = "UDXU5CRSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
		}, `folders/a/line-1/node.cue:3:2: node "gw-1": identity.publicKey: "UDXU5CRSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4" is mistyped or cut; copy it again from what 'selvedge-edge init' prints`},
		{"key of a wrong shape", func(u *fleet.Unit) { u.Node["gw-1"].Identity.PublicKey = "U123" },
			`folders/a/line-1/node.cue:3:2: node "gw-1": identity.publicKey: "U123" is not an nkey of type user`},
		{"state too large", func(u *fleet.Unit) {
			files := map[string]string{}
			for i := range 5 {
				files[fmt.Sprint("f", i)] = strings.Repeat("x", 1<<20-100)
			}
			u.Config["big"] = fleet.Config{File: files}
			inApp(u, "hmi", func(a *fleet.App) { a.Config = map[string]fleet.ConfigRef{"big": {Mount: "/etc/big"}} })
		}, `folders/a/line-1/node.cue:3:2: node "gw-1": its state has 5243039 bytes, and a node takes at most 4194304; move large config files into images, or run fewer apps on it`},

		{"model of device", func(u *fleet.Unit) { u.Device["d"] = device("gw-1", "chiller", "10.0.0.1:502") },
			`folders/a/line-1/device.cue:3:2: device "d": unknown deviceModel "chiller"; declare it under deviceModel: in this workspace or a folder above`},
		{"node of device", func(u *fleet.Unit) {
			u.DeviceModel["chiller"] = fleet.DeviceModel{}
			u.Device["d"] = device("gw-9", "chiller", "10.0.0.1:502")
		}, `folders/a/line-1/device.cue:3:2: device "d": node: unknown node "gw-9"; declare it under node: in this workspace, or remove it here`},
		{"desired of device", func(u *fleet.Unit) {
			u.DeviceModel["chiller"] = fleet.DeviceModel{Property: map[string]fleet.Property{"setpoint": property("int16", "rw", "holding", 1)}}
			d := device("gw-1", "chiller", "10.0.0.1:502")
			d.Desired = map[string]any{"setpint": 1.0}
			u.Device["d"] = d
		}, `folders/a/line-1/device.cue:3:2: device "d": desired: device model "chiller" has no property "setpint"; it has "setpoint"`},
		{"desired of device, read only", func(u *fleet.Unit) {
			u.DeviceModel["chiller"] = fleet.DeviceModel{Property: map[string]fleet.Property{"t": property("int16", "r", "holding", 1)}}
			d := device("gw-1", "chiller", "10.0.0.1:502")
			d.Desired = map[string]any{"t": 1.0}
			u.Device["d"] = d
		}, `folders/a/line-1/device.cue:3:2: device "d": desired: property "t" of device model "chiller" is only read; remove it here, or set its access to rw`},
		{"two writers, two devices", func(u *fleet.Unit) {
			u.DeviceModel["a"] = fleet.DeviceModel{Property: map[string]fleet.Property{"x": property("float32", "rw", "holding", 10)}}
			u.DeviceModel["b"] = fleet.DeviceModel{Property: map[string]fleet.Property{"y": property("int16", "w", "holding", 11)}}
			u.Device["d1"] = device("gw-1", "a", "PLC:502")
			u.Device["d2"] = device("gw-1", "b", "plc:502")
		}, `folders/a/line-1/device.cue:3:2: device "d2": property "y" writes holding 11 of unit 3 at tcp plc:502, and so does property "x" of device "d1"; let one of them write it`},
		{"two writers, one model", func(u *fleet.Unit) {
			u.DeviceModel["a"] = fleet.DeviceModel{Property: map[string]fleet.Property{"x": property("float32", "rw", "holding", 10), "y": property("int16", "w", "holding", 11)}}
			u.Device["d1"] = device("gw-1", "a", "plc:502")
		}, `folders/a/line-1/deviceModel.cue:3:2: deviceModel "a": properties "x" and "y" both write holding 11; let one of them write it`},
		{"one writer each", func(u *fleet.Unit) {
			u.DeviceModel["a"] = fleet.DeviceModel{Property: map[string]fleet.Property{
				"x": property("float32", "rw", "holding", 10), "y": property("int16", "w", "holding", 12), "r": property("float64", "r", "holding", 10),
				"c": property("bool", "rw", "coil", 10), "b0": property("bool", "rw", "holding", 20, 0), "b1": property("bool", "rw", "holding", 20, 1),
			}}
			u.Node["gw-2"] = node(2)
			u.Device["d1"] = device("gw-1", "a", "plc:502")
			u.Device["d2"] = device("gw-1", "a", "plc-2:502")
			u.Device["d3"] = device("gw-2", "a", "plc:502")
			rtu := device("gw-1", "a", "")
			rtu.Modbus.RTU = &fleet.ModbusRTU{Port: "/dev/ttyUSB0"}
			u.Device["d4"] = rtu
			other := device("gw-1", "a", "plc:502")
			other.Modbus.Unit = 4
			u.Device["d5"] = other
		}, ""},
		{"two writers of one bit", func(u *fleet.Unit) {
			u.DeviceModel["a"] = fleet.DeviceModel{Property: map[string]fleet.Property{"x": property("bool", "w", "holding", 1, 4), "y": property("bool", "w", "holding", 1, 4)}}
			u.Device["d1"] = device("gw-1", "a", "plc:502")
		}, `folders/a/line-1/deviceModel.cue:3:2: deviceModel "a": properties "x" and "y" both write bit 4 of holding register 1; let one of them write it`},

		{"endpoint of route", func(u *fleet.Unit) { u.Route["r"] = fleet.Route{To: fleet.RouteTo{Endpoint: "mes"}} },
			`folders/a/line-1/route.cue:3:2: route "r": unknown endpoint "mes"; declare it under endpoint: in this workspace or a folder above`},
		{"secret of endpoint", func(u *fleet.Unit) {
			u.Endpoint["mes"] = fleet.Endpoint{REST: &fleet.RESTEndpoint{Secret: "token"}}
		}, `folders/a/line-1/endpoint.cue:3:2: endpoint "mes": unknown secret "token"; declare it under secret: in this workspace or a folder above`},
		{"secret of app", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) { a.Secret = map[string]fleet.SecretRef{"token": {Env: "T"}} })
		}, `folders/a/line-1/app.cue:3:2: app "hmi": unknown secret "token"; declare it under secret: in this workspace or a folder above`},
		{"model of app", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) {
				a.Model = map[string]fleet.ModelRef{"defects": {Mount: "/m"}, "own": {Mount: "/o", Artifact: "x"}}
			})
		}, `folders/a/line-1/app.cue:3:2: app "hmi": unknown model "defects"; declare it under model: in this workspace or a folder above`},
		{"one key twice", func(u *fleet.Unit) { u.Node["gw-2"] = node(1) },
			`folders/a/line-1/node.cue:3:2: node "gw-1": node "gw-2" at folders/a/line-1/node.cue:3:2 has the same public key; every node has a key of its own: run selvedge-edge init on this one and put its public key here
folders/a/line-1/node.cue:3:2: node "gw-2": node "gw-1" at folders/a/line-1/node.cue:3:2 has the same public key; every node has a key of its own: run selvedge-edge init on this one and put its public key here`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := one(t, tt.change)
			if got := texts(res.Problems); got != tt.want {
				t.Fatalf("problems:\n got %s\nwant %s", got, tt.want)
			}
			wrong := firstError(res.Problems) != ""
			if refused := len(res.Refused) > 0; refused != wrong {
				t.Fatalf("refused: %v", res.Refused)
			}
			if wrong && (len(res.Nodes) > 0 || len(res.Accepted.Nodes) > 0) {
				t.Fatalf("a refused workspace has states: %v, %v", res.Nodes, res.Accepted)
			}
			for name, n := range res.Nodes {
				s, err := nodestate.Decode(n.Bytes())
				if err != nil {
					t.Fatal(err)
				}
				if s.Node != name || nodestate.Digest(n.Bytes()) != n.Digest {
					t.Fatalf("state of %s: %+v", name, s)
				}
			}
		})
	}
}

// state resolves one workspace and returns the state of gw-1.
func state(t *testing.T, change func(*fleet.Unit)) *nodestate.State {
	t.Helper()
	res := one(t, change)
	if firstError(res.Problems) != "" {
		t.Fatal(texts(res.Problems))
	}
	s, err := nodestate.Decode(res.Nodes["gw-1"].Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPlacement(t *testing.T) {
	apps := func(change func(*fleet.Unit)) string {
		var out []string
		for _, a := range state(t, change).Apps {
			out = append(out, a.Name)
		}
		return strings.Join(out, " ")
	}
	for _, tt := range []struct {
		name   string
		change func(*fleet.Unit)
		want   string
	}{
		{"by label", func(*fleet.Unit) {}, "hmi"},
		{"by name", func(u *fleet.Unit) {
			u.App["b"] = fleet.App{Placement: fleet.Placement{Nodes: []string{"gw-1"}}, Container: map[string]fleet.Container{"x": web()}, Update: fleet.Update{Deadline: "1s"}}
		}, "b hmi"},
		{"by both", func(u *fleet.Unit) { inApp(u, "hmi", func(a *fleet.App) { a.Placement.Nodes = []string{"gw-1"} }) }, "hmi"},
		{"all labels must match", func(u *fleet.Unit) {
			inApp(u, "hmi", func(a *fleet.App) { a.Placement.Selector = fleet.Selector{"role": "gateway", "line": "2"} })
		}, ""},
		{"no placement", func(u *fleet.Unit) { inApp(u, "hmi", func(a *fleet.App) { a.Placement = fleet.Placement{} }) }, ""},
		{"drained", func(u *fleet.Unit) { n := u.Node["gw-1"]; n.Drain = true; u.Node["gw-1"] = n }, ""},
		{"not schedulable matters for replicas alone", func(u *fleet.Unit) { n := u.Node["gw-1"]; n.Schedulable = false; u.Node["gw-1"] = n }, "hmi"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := apps(tt.change); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestInterpolation(t *testing.T) {
	s := state(t, func(u *fleet.Unit) {
		n := u.Node["gw-1"]
		n.Labels["tricky"] = `{{node.name}} "x"\`
		n.Labels["a.b-c_d"] = "dots"
		u.Config["conf"] = fleet.Config{File: map[string]string{"a.conf": "site={{node.labels.line}}\n{{{{ jinja }}\n"}}
		inApp(u, "hmi", func(a *fleet.App) { a.Config = map[string]fleet.ConfigRef{"conf": {Mount: "/etc/hmi"}} })
		container(u, "hmi", "web", func(c *fleet.Container) {
			c.Command = []string{"{{node.name}}", "{{ node.workspace }}"}
			c.Args = []string{"{{node.labels.line}}{{node.labels.line}}", "{{{{", "a {{{{{{node.name}}}}"}
			c.Env = map[string]string{"A": "{{node.labels.tricky}}", "B": "}}", "C": "{{node.labels.a.b-c_d}}", "D": "{"}
			c.User = "u"
		})
	})
	c := s.Apps[0].Containers[0]
	for _, tt := range []struct{ got, want string }{
		{fmt.Sprintf("%q", c.Command), `["gw-1" "folders/a/line-1"]`},
		{fmt.Sprintf("%q", c.Args), `["11" "{{" "a {{gw-1}}"]`},
		{c.Env["A"], `{{node.name}} "x"\`}, // a value is not looked at again
		{c.Env["B"], "}}"}, {c.Env["C"], "dots"}, {c.Env["D"], "{"},
		{c.Files[0].Content, "site=1\n{{ jinja }}\n"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %s, want %s", tt.got, tt.want)
		}
	}
}

func TestRendering(t *testing.T) {
	s := state(t, func(u *fleet.Unit) {
		n := u.Node["gw-1"]
		n.Remote = fleet.Remote{Logs: true, Exec: true}
		u.Node["gw-1"] = n
		u.Config["conf"] = fleet.Config{File: map[string]string{"b": "2", "a": "1"}}
		inApp(u, "hmi", func(a *fleet.App) {
			a.Config = map[string]fleet.ConfigRef{"conf": {Mount: "/etc/hmi", Container: "db"}}
			a.Update = fleet.Update{Order: []string{"web", "db"}, Deadline: "1h30m"}
			a.Override = []fleet.Override{
				{Selector: fleet.Selector{"line": "1"}, Container: map[string]json.RawMessage{"web": json.RawMessage(`{"env":{"A":"2","C":"3"},"resources":{"cpu":1.5}}`)}},
				{Nodes: []string{"gw-1"}, Container: map[string]json.RawMessage{"web": json.RawMessage(`{"env":{"A":"4","B":null}}`)}},
				{Selector: fleet.Selector{"line": "2"}, Container: map[string]json.RawMessage{"web": json.RawMessage(`{"env":{"A":"no"}}`)}},
			}
		})
		container(u, "hmi", "aux", func(c *fleet.Container) {
			c.Network = "host"
			c.Port = map[string]fleet.Port{"p": {Container: 99, Host: 99, Protocol: "udp", Address: "0.0.0.0"}}
		})
		container(u, "hmi", "db", func(c *fleet.Container) { c.Log.MaxSize = "500k"; c.Stop.Timeout = "500ms" })
		container(u, "hmi", "web", func(c *fleet.Container) {
			c.Env = map[string]string{"A": "1", "B": "1"}
			c.Resources = fleet.Resources{CPU: 0.25, Memory: "64MiB", PIDs: 10, CPUSet: "0-1"}
			c.Port = map[string]fleet.Port{"z": {Container: 1, Protocol: "tcp", Address: "0.0.0.0"}, "y": {Container: 2, Host: 3, Protocol: "udp", Address: "::0"}, "a": {Container: 2, Host: 3, Protocol: "tcp", Address: "10.0.0.1"}}
			c.Mount = map[string]fleet.Mount{"/b": {Host: "/hb"}, "/a": {Host: "/ha", ReadOnly: true}}
		})
	})
	if s.Remote != (nodestate.Remote{Logs: true, Exec: true}) {
		t.Errorf("remote: %+v", s.Remote)
	}
	a := s.Apps[0]
	var names []string
	for _, c := range a.Containers {
		names = append(names, c.Name)
	}
	web := a.Containers[0]
	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"order", strings.Join(names, " "), "web db aux"},
		{"ordered", a.Ordered, 2},
		{"deadline", a.DeadlineMS, int64(5400000)},
		{"env", fmt.Sprint(web.Env), "map[A:4 C:3]"},
		{"cpu", web.MilliCPU, int64(1500)},
		{"memory", web.Memory, int64(64 << 20)},
		{"ports", fmt.Sprint(web.Ports), "[{a 2 3 tcp 10.0.0.1} {y 2 3 udp ::}]"},
		{"mounts", fmt.Sprint(web.Mounts), "[{/a /ha true} {/b /hb false}]"},
		{"files", fmt.Sprint(a.Containers[1].Files), "[{/etc/hmi/a 1} {/etc/hmi/b 2}]"},
		{"files elsewhere", len(web.Files) + len(a.Containers[2].Files), 0},
		{"log", a.Containers[1].LogBytes, int64(500000)},
		{"stop", a.Containers[1].StopMS, int64(500)},
		{"ports of the host's network", len(a.Containers[2].Ports), 0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.what, tt.got, tt.want)
		}
	}
}

func TestUnits(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64
	}{{"", 0}, {"65536", 65536}, {"1k", 1000}, {"64M", 64e6}, {"4G", 4e9}, {"1KiB", 1024}, {"64MiB", 64 << 20}, {"4GiB", 4 << 30}, {"1024TiB", 1 << 50},
		{"1025TiB", -1}, {"x", -1}, {"-1", -1}, {"1.5GiB", -1}, {"MiB", -1}, {"1 MiB", -1}, {"9999999999999999999999", -1}, {"1e3", -1}, {"+1", -1}} {
		got, err := bytesOf(tt.in)
		if err != nil {
			got = -1
		}
		if got != tt.want {
			t.Errorf("bytesOf(%q) = %d, %v, want %d", tt.in, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		in   float64
		want int64
	}{{0, 0}, {0.001, 1}, {0.0004, -1}, {0.1, 100}, {1.0 / 3, 333}, {1024, 1024000}, {1025, -1}, {-1, -1}, {math.NaN(), -1}, {math.Inf(1), -1}, {0.29, 290}, {1.005, 1005}} {
		got, err := milli(tt.in)
		if err != nil {
			got = -1
		}
		if got != tt.want {
			t.Errorf("milli(%v) = %d, %v, want %d", tt.in, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		in   string
		want int64
	}{{"500ms", 500}, {"1m30s", 90000}, {"168h", 604800000}, {"169h", -1}, {"0s", -1}, {"-1s", -1}, {"", -1}, {"500us", -1}, {"1d", -1}, {"99999h99999h99999h", -1}} {
		got, err := millis(tt.in)
		if err != nil {
			got = -1
		}
		if got != tt.want {
			t.Errorf("millis(%q) = %d, %v, want %d", tt.in, got, err, tt.want)
		}
	}
}

// TestInherited shows that an entity from above is judged where it is used, and that
// removing a node does not refuse the neighbours.
func TestInherited(t *testing.T) {
	inherit := func(s *fleet.Source, kind, name, scope string) *fleet.Source {
		s.Entities[kind+"/"+name] = fleet.Origin{Position: fleet.Position{File: scope + "/folder.cue", Line: 7, Column: 1}, Scope: scope}
		return s
	}
	from := func(scope, path string, k int, nodes ...string) *fleet.Source {
		s := ws(path, func(u *fleet.Unit) {
			u.Node[fmt.Sprint("n", k)] = node(k)
			a := appOn("none")
			a.Placement.Nodes = nodes
			a.Config = map[string]fleet.ConfigRef{"conf": {Mount: "/etc/x"}}
			u.App["agent"] = a
			if k == 1 {
				u.Config["conf"] = fleet.Config{File: map[string]string{"a": ""}}
			}
		})
		return inherit(s, "app", "agent", scope)
	}
	f := fleetOf(from("folders/a", "folders/a/l1", 1, "n1", "gone"), from("folders/a", "folders/a/l2", 2, "n1", "gone"), ws("folders/b/l3", func(u *fleet.Unit) { u.Node["gone"] = node(3) }))
	res := New(Config{}).Resolve(f, Accepted{})
	want := `folders/a/folder.cue:7:1: warning: app "agent": placement.nodes: no workspace below has a node "gone"; remove the name, or declare the node`
	if got := texts(res.Problems); got != want || len(res.Refused) > 0 || len(res.Nodes) != 3 {
		t.Fatalf("got %s, refused %v", got, res.Refused)
	}
	if s := string(res.Nodes["n1"].Bytes()); !strings.Contains(s, `"agent"`) {
		t.Errorf("n1 has no agent: %s", s)
	}
	// A workspace that cannot be evaluated may have the node.
	f.Workspaces["folders/a/l4"] = refusedWS("folders/a/l4")
	if res := New(Config{}).Resolve(f, Accepted{}); len(res.Problems) > 0 {
		t.Errorf("got %s", texts(res.Problems))
	}
	// A folder's app that clashes with one of the workspace: the workspace can mend its own.
	s := base(func(u *fleet.Unit) {
		u.App["zz"] = appOn("gateway")
		container(u, "hmi", "web", func(c *fleet.Container) { c.Port = port(80) })
		container(u, "zz", "web", func(c *fleet.Container) { c.Port = port(80) })
	})
	res = New(Config{}).Resolve(fleetOf(inherit(s, "app", "zz", "")), Accepted{})
	if got := texts(res.Problems); !strings.HasPrefix(got, `folders/a/line-1/app.cue:3:2: app "hmi": container "web": port "http" wants`) {
		t.Errorf("got %s", got)
	}
}

func TestBounds(t *testing.T) {
	f := fleetOf(base(func(u *fleet.Unit) {
		for i := range 300 {
			u.Route[fmt.Sprintf("r%03d", i)] = fleet.Route{To: fleet.RouteTo{Endpoint: "none"}}
		}
	}))
	res := New(Config{MaxProblems: 10}).Resolve(f, Accepted{})
	if len(res.Problems) != 11 || !strings.Contains(texts(res.Problems), "290 more problems; mend these first") {
		t.Errorf("%d problems: %s", len(res.Problems), texts(res.Problems))
	}
	res = New(Config{MaxWorkspaceBytes: 1000}).Resolve(fleetOf(base(func(u *fleet.Unit) {
		for i := range 9 {
			u.Node[fmt.Sprint("x", i)] = node(i+10, "role", "gateway")
		}
	})), Accepted{})
	if got := texts(res.Problems); !strings.Contains(got, "workspace: its states have more than 1000 bytes together") {
		t.Error(got)
	}
}

func TestEveryEngineIsKnown(t *testing.T) {
	for v := 1; v <= nodestate.Engine; v++ {
		if engines[v].app == nil {
			t.Errorf("engine %d is missing", v)
		}
	}
	if got := slices.Max(slices.Collect(maps.Keys(engines))); got != nodestate.Engine {
		t.Errorf("engine %d is newer than nodestate.Engine", got)
	}
}

func TestRender(t *testing.T) {
	f := fleetOf(base(func(u *fleet.Unit) { u.Node["gw-2"] = node(0) }), refusedWS("folders/b"),
		ws("folders/c", func(u *fleet.Unit) { u.Node["x"] = node(5); u.Platform.Engine = 9 }),
		ws("folders/d", func(u *fleet.Unit) { u.Node["twin"] = node(6) }), ws("folders/e", func(u *fleet.Unit) { u.Node["twin"] = node(7) }))
	got, err := Render(f, "gw-1")
	if err != nil {
		t.Fatal(err)
	}
	if want := New(Config{}).Resolve(f, Accepted{}).Nodes["gw-1"]; want.Digest != got.Digest || string(want.Bytes()) != string(got.Bytes()) {
		t.Error("one node rendered alone differs")
	}
	for name, want := range map[string]string{
		"gw-2": "no identity yet", "gone": "no accepted workspace declares it", "x": "its workspace is refused: platform.cue: platform: engine 9", "twin": "declared in [folders/d folders/e]",
	} {
		if _, err := Render(f, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	if (Rendered{}).Bytes() != nil {
		t.Error("bytes of nothing")
	}
}
