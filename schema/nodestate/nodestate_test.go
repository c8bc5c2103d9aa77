package nodestate

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	testKey   = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
	testImage = "registry.example/hmi:1.2@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// full is a valid state with every field in use.
func full() *State {
	return &State{
		APIVersion: APIVersion, Engine: 1, Node: "gw-7", Workspace: "folders/plant-a/line-1",
		Identity: Identity{PublicKey: testKey},
		Remote:   Remote{Logs: true, Restart: true, Exec: true, Write: true},
		Apps: []App{{
			Name: "hmi", DeadlineMS: 300000, Ordered: 1,
			Containers: []Container{{
				Name: "web", Image: testImage, Command: []string{"/bin/hmi", ""}, Args: []string{"--title", "Ofen \"3\"\n<&>\u2028€\x7f\x01😀"},
				Env:      map[string]string{"SITE": "1", "B": "", "A_B": "\\", "a": "é"},
				Ports:    []Port{{Name: "http", Container: 8080, Host: 18080, Protocol: "tcp", Address: "0.0.0.0"}, {Name: "mdns", Container: 5353, Host: 5353, Protocol: "udp", Address: "::"}},
				Mounts:   []Mount{{Path: "/data", Host: "/var/lib/hmi"}, {Path: "/etc/ssl", Host: "/etc/ssl", ReadOnly: true}},
				Files:    []File{{Path: "/etc/hmi/a.conf", Content: "site = 1\n"}, {Path: "/etc/hmi/b.conf", Content: ""}},
				MilliCPU: 500, CPUSet: "0-1,3", Memory: 64 << 20, PIDs: 100, User: "1000:1000", Privileged: true, ReadOnly: true,
				Network: "bridge", Restart: "always", StopSignal: "SIGTERM", StopMS: 10000, LogBytes: 10 << 20, LogFiles: 3,
				Probe: &Probe{HTTP: &HTTPProbe{Port: 8080, Path: "/healthz?x=1"}, IntervalMS: 5000, TimeoutMS: 2000, Failures: 3},
			}, plain("db", &Probe{Exec: &ExecProbe{Command: []string{"pg_isready"}}, IntervalMS: 1, TimeoutMS: 1, Failures: 1}),
				plain("exporter", &Probe{TCP: &TCPProbe{Port: 9100}, IntervalMS: 1, TimeoutMS: 1, Failures: 1})},
		}, {Name: "logger", DeadlineMS: 1, Containers: []Container{plain("logger", nil)}}},
	}
}

func plain(name string, p *Probe) Container {
	return Container{Name: name, Image: testImage, Network: "host", Restart: "on-failure", StopSignal: "SIGINT", LogBytes: 1, LogFiles: 1, Probe: p}
}

func TestGolden(t *testing.T) {
	for name, s := range map[string]*State{
		"full":  full(),
		"empty": {APIVersion: APIVersion, Engine: 1, Node: "gw-7", Workspace: "w", Identity: Identity{PublicKey: testKey}},
	} {
		got, err := s.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: canonical bytes changed: nodes in the field would see a new state\n got %s\nwant %s", name, got, want)
		}
		back, err := Decode(got)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(s, back); d != "" {
			t.Errorf("%s: decoded state differs: %s", name, d)
		}
	}
}

// TestCanonicalIsRFC8785 holds the hand-written form against an independent
// implementation, on states of every shape that the types allow, valid or not: a field
// that is added to a type and not to the encoder fails here.
func TestCanonicalIsRFC8785(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for range 1000 {
		s := new(State)
		fill(rnd, reflect.ValueOf(s).Elem())
		plain, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		want, err := jcs.Transform(plain)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.append(nil); !bytes.Equal(got, want) {
			t.Fatalf("differs %s\n got %s\nwant %s", differ(want, got), got, want)
		}
		apps := make([][]byte, len(s.Apps))
		for i := range s.Apps {
			apps[i] = s.Apps[i].Append(nil)
		}
		head := *s
		head.Apps = nil
		if got := head.Join([]byte("x"), apps); string(got) != "x"+string(want) {
			t.Fatal("joined bytes differ from those of the whole")
		}
	}
}

// fill sets a value at random; about a third of everything stays zero.
func fill(rnd *rand.Rand, v reflect.Value) {
	if v.Kind() != reflect.Struct && rnd.Intn(3) == 0 {
		if v.Kind() == reflect.Slice { // required lists are never nil in a state
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(rnd, v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(rnd, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rnd.Intn(3), 3))
		for i := range v.Len() {
			fill(rnd, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rnd.Intn(4) {
			v.SetMapIndex(reflect.ValueOf(fmt.Sprintf("%c%d", "aZ_"[rnd.Intn(3)], rnd.Intn(100))), reflect.ValueOf(anyText(rnd)))
		}
	case reflect.String:
		v.SetString(anyText(rnd))
	case reflect.Int, reflect.Int64:
		v.SetInt(rnd.Int63n(1<<54) - 1<<53)
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic("state holds a " + v.Kind().String())
	}
}

func anyText(rnd *rand.Rand) string {
	alphabet := []rune("abZ09 \"\\/\b\f\n\r\t\x00\x01\x1f\x7f<>&'é€\u2028\u2029\ufeff\ufffd😀\U0010ffff")
	out := make([]rune, rnd.Intn(12))
	for i := range out {
		out[i] = alphabet[rnd.Intn(len(alphabet))]
	}
	return string(out)
}

func TestRefuseForm(t *testing.T) {
	good, err := full().Canonical()
	if err != nil {
		t.Fatal(err)
	}
	rep := func(old, new string) string {
		if !strings.Contains(string(good), old) {
			t.Fatalf("no %s in the state", old)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", "unexpected end"},
		{"null", "null", `apiVersion is ""`},
		{"list", "[]", "cannot unmarshal array"},
		{"cut off", string(good[:len(good)-1]), "unexpected end"},
		{"more after it", string(good) + "{}", "invalid character '{' after top-level value"},
		{"newline after it", string(good) + "\n", "not in canonical form"},
		{"space", rep(`,"engine"`, `, "engine"`), "not in canonical form"},
		{"order", `{"engine":1,` + strings.Replace(string(good[1:]), `"engine":1,`, "", 1), "not in canonical form"},
		{"unknown field", rep(`"engine":1`, `"engine":1,"extra":1`), `unknown field "extra"`},
		{"unknown field deep", rep(`"failures":3`, `"extra":{},"failures":3`), `unknown field "extra"`},
		{"field in capitals", rep(`"engine":1`, `"ENGINE":1`), "not in canonical form"},
		{"duplicate", rep(`"engine":1`, `"engine":1,"engine":1`), `field "engine" is there twice`},
		{"duplicate deep", rep(`"failures":3`, `"failures":3,"failures":3`), `field "failures" is there twice`},
		{"duplicate variable", rep(`"SITE":"1"`, `"SITE":"1","SITE":"1"`), `field "SITE" is there twice`},
		{"duplicate version", `{"apiVersion":"x",` + string(good[1:]), `field "apiVersion" is there twice`},
		{"empty field kept", rep(`"cpuset":"0-1,3"`, `"cpuset":""`), "not in canonical form"},
		{"null field", rep(`"cpuset":"0-1,3"`, `"cpuset":null`), "not in canonical form"},
		{"null list", rep(`,"engine"`, `,"engine"`)[:0] + `{"apiVersion":"` + APIVersion + `","apps":null,"engine":1,"identity":{"publicKey":"` + testKey + `"},"node":"a","workspace":"w"}`, "not in canonical form"},
		{"needless escape", rep(`"gw-7"`, `"g\u0077-7"`), "not in canonical form"},
		{"lone surrogate", rep(`"site = 1\n"`, `"\ud800"`), "not in canonical form"},
		{"fraction", rep(`"engine":1`, `"engine":1.5`), "cannot unmarshal number 1.5"},
		{"exponent", rep(`"engine":1`, `"engine":1e0`), "cannot unmarshal number 1e0"},
		{"beyond 2^63", rep(`"memory":67108864`, `"memory":9223372036854775808`), "cannot unmarshal number"},
		{"beyond the bound", rep(`"memory":67108864`, `"memory":9007199254740993`), "memory: 9007199254740993 is not in"},
		{"other version", rep(APIVersion, "selvedge.dev/node-state/v2"), `apiVersion is "selvedge.dev/node-state/v2"`},
		{"invalid UTF-8", rep("site = 1", "site = \xff"), "not valid UTF-8"},
		{"deep", strings.Repeat("[", 1000) + strings.Repeat("]", 1000), "nested deeper than 16 levels"},
		{"deep in an unknown field", rep(`"engine":1`, `"engine":1,"x":`+strings.Repeat(`{"a":`, 20)+"1"+strings.Repeat("}", 20)), "nested deeper"},
		{"many objects", `{"apps":[` + strings.Repeat("{},", 1<<17) + "{}]}", "more than 65536 objects"},
		{"large", strings.Repeat(" ", MaxStateSize+1), "4194305 bytes; at most 4194304 are allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Decode([]byte(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
			if s != nil {
				t.Error("a state with an error")
			}
			if len(err.Error()) > 400 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestRefuseValues(t *testing.T) {
	c := func(change func(*Container)) func(*State) { return func(s *State) { change(&s.Apps[0].Containers[0]) } }
	for _, tt := range []struct {
		want   string
		change func(*State)
	}{
		{"engine: 0", func(s *State) { s.Engine = 0 }},
		{`node: "GW" is not a name`, func(s *State) { s.Node = "GW" }},
		{`node: "gw\n" is not a name`, func(s *State) { s.Node = "gw\n" }},
		{`node: "../x" is not a name`, func(s *State) { s.Node = "../x" }},
		{`workspace: "../x"`, func(s *State) { s.Workspace = "../x" }},
		{`workspace: "/x"`, func(s *State) { s.Workspace = "/x" }},
		{`workspace: "a//b"`, func(s *State) { s.Workspace = "a//b" }},
		{`workspace: "a\x00b"`, func(s *State) { s.Workspace = "a\x00b" }},
		{"identity.publicKey", func(s *State) { s.Identity.PublicKey = "" }},
		{"apps: 1001", func(s *State) { s.Apps = make([]App, 1001) }},
		{`app "a": not sorted`, func(s *State) { s.Apps[1].Name = "a" }},
		{`app "hmi": not sorted by name, or twice`, func(s *State) { s.Apps[1].Name = "hmi" }},
		{`app "": name`, func(s *State) { s.Apps[0].Name = "" }},
		{`app "hmi": containers: none`, func(s *State) { s.Apps[0].Containers = nil; s.Apps[0].Ordered = 0 }},
		{"containers: 33", func(s *State) { s.Apps[0].Containers = make([]Container, 33) }},
		{"ordered: 4 of 3", func(s *State) { s.Apps[0].Ordered = 4 }},
		{"ordered: -1 of 3", func(s *State) { s.Apps[0].Ordered = -1 }},
		{`container "db": not sorted`, func(s *State) { s.Apps[0].Ordered = 0 }},
		{`container "db": twice`, func(s *State) { s.Apps[0].Containers[2].Name = "db" }},
		{"deadlineMs: 0", func(s *State) { s.Apps[0].DeadlineMS = 0 }},
		{"deadlineMs: -1", func(s *State) { s.Apps[0].DeadlineMS = -1 }},
		{"deadlineMs: 604800001", func(s *State) { s.Apps[0].DeadlineMS = 604800001 }},
		{`container "web/x": name`, c(func(c *Container) { c.Name = "web/x" })},
		{"image: ", c(func(c *Container) { c.Image = "registry.example/hmi:1.2" })},
		{"image: ", c(func(c *Container) { c.Image += "0" })},
		{"image: ", c(func(c *Container) { c.Image = "Registry" + c.Image })},
		{"image: ", c(func(c *Container) { c.Image = "-" + c.Image })},
		{"command[0]", c(func(c *Container) { c.Command = []string{"a\x00"} })},
		{"args[1]", c(func(c *Container) { c.Args = []string{"a", "\xff"} })},
		{"args[0]", c(func(c *Container) { c.Args = []string{strings.Repeat("x", 1<<17)} })},
		{"args: 257", c(func(c *Container) { c.Args = make([]string, 257) })},
		{`env: "A=B"`, c(func(c *Container) { c.Env = map[string]string{"A=B": ""} })},
		{`env: ""`, c(func(c *Container) { c.Env = map[string]string{"": ""} })},
		{"env A: ", c(func(c *Container) { c.Env = map[string]string{"A": "\x00"} })},
		{"env: 257", c(func(c *Container) {
			for i := range 257 {
				c.Env[fmt.Sprint("E", i)] = ""
			}
			for _, k := range []string{"SITE", "B", "A_B", "a"} {
				delete(c.Env, k)
			}
		})},
		{"ports: 65", c(func(c *Container) { c.Ports = make([]Port, 65) })},
		{`port: "" is not`, c(func(c *Container) { c.Ports[0].Name = "" })},
		{"not sorted by name, or twice", c(func(c *Container) { slices.Reverse(c.Ports) })},
		{"not in 1–65535", c(func(c *Container) { c.Ports[0].Host = 0 })},
		{"not in 1–65535", c(func(c *Container) { c.Ports[0].Container = 65536 })},
		{`protocol "sctp"`, c(func(c *Container) { c.Ports[0].Protocol = "sctp" })},
		{`address "localhost"`, c(func(c *Container) { c.Ports[0].Address = "localhost" })},
		{`address "0:0::0"`, c(func(c *Container) { c.Ports[0].Address = "0:0::0" })},
		{`address "fe80::1%eth0"`, c(func(c *Container) { c.Ports[0].Address = "fe80::1%eth0" })},
		{`address "::ffff:1.2.3.4"`, c(func(c *Container) { c.Ports[0].Address = "::ffff:1.2.3.4" })},
		{`published, but the network is "host"`, c(func(c *Container) { c.Network = "host" })},
		{"65 mounts", c(func(c *Container) { c.Mounts = make([]Mount, 65) })},
		{`mount: "data"`, c(func(c *Container) { c.Mounts[0].Path = "data" })},
		{`mount: "/data/"`, c(func(c *Container) { c.Mounts[0].Path = "/data/" })},
		{`mount: "/"`, c(func(c *Container) { c.Mounts[0].Path = "/" })},
		{`host "/a/../b"`, c(func(c *Container) { c.Mounts[0].Host = "/a/../b" })},
		{`host "/a:b"`, c(func(c *Container) { c.Mounts[0].Host = "/a:b" })},
		{"not sorted by path, or twice", c(func(c *Container) { c.Mounts[1].Path = "/data" })},
		{`file: "x"`, c(func(c *Container) { c.Files[0].Path = "x" })},
		{`file: "/a\x00"`, c(func(c *Container) { c.Files[0].Path = "/a\x00" })},
		{"not sorted by path, or twice", c(func(c *Container) { c.Files[1].Path = c.Files[0].Path })},
		{"its path is a mount too", c(func(c *Container) { c.Mounts[0].Path = "/etc/hmi/a.conf" })},
		{"needs a directory there", c(func(c *Container) { c.Files[1].Path = "/etc/hmi/a.conf/x" })},
		{"needs a directory there", c(func(c *Container) { c.Mounts[1].Path = "/etc/hmi/a.conf/x/y" })},
		{`file "/etc/hmi/a.conf": longer`, c(func(c *Container) { c.Files[0].Content = "\x00" })},
		{`file "/etc/hmi/a.conf": longer`, c(func(c *Container) { c.Files[0].Content = strings.Repeat("x", 1<<20+1) })},
		{"milliCpu: -1", c(func(c *Container) { c.MilliCPU = -1 })},
		{`cpuset: "a"`, c(func(c *Container) { c.CPUSet = "a" })},
		{"memory: -1", c(func(c *Container) { c.Memory = -1 })},
		{"memory: 9223372036854775807", c(func(c *Container) { c.Memory = math.MaxInt64 })},
		{"pids: -1", c(func(c *Container) { c.PIDs = -1 })},
		{`user: "a b"`, c(func(c *Container) { c.User = "a b" })},
		{`network: ""`, c(func(c *Container) { c.Network = "" })},
		{`network: "container:x"`, c(func(c *Container) { c.Network = "container:x" })},
		{`restart: "no"`, c(func(c *Container) { c.Restart = "no" })},
		{`stopSignal: "9"`, c(func(c *Container) { c.StopSignal = "9" })},
		{"stopMs: -1", c(func(c *Container) { c.StopMS = -1 })},
		{"logBytes: 0", c(func(c *Container) { c.LogBytes = 0 })},
		{"logFiles: 1001", c(func(c *Container) { c.LogFiles = 1001 })},
		{"probe: 0 of http, tcp and exec", c(func(c *Container) { c.Probe.HTTP = nil })},
		{"probe: 2 of http, tcp and exec", c(func(c *Container) { c.Probe.TCP = &TCPProbe{Port: 1} })},
		{"probe.http.port: 0", c(func(c *Container) { c.Probe.HTTP.Port = 0 })},
		{"probe.http.path", c(func(c *Container) { c.Probe.HTTP.Path = "/a b" })},
		{"probe.http.path", c(func(c *Container) { c.Probe.HTTP.Path = "http://x/" })},
		{"probe.intervalMs: 0", c(func(c *Container) { c.Probe.IntervalMS = 0 })},
		{"probe.timeoutMs: -5", c(func(c *Container) { c.Probe.TimeoutMS = -5 })},
		{"probe.failures: 0", c(func(c *Container) { c.Probe.Failures = 0 })},
		{"probe.exec.command: empty", func(s *State) { s.Apps[0].Containers[1].Probe.Exec.Command = nil }},
		{"probe.tcp.port: 70000", func(s *State) { s.Apps[0].Containers[2].Probe.TCP.Port = 70000 }},
	} {
		t.Run(tt.want, func(t *testing.T) {
			s := full()
			tt.change(s)
			_, err := s.Canonical()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Canonical: got %v, want an error with %q", err, tt.want)
			}
			b := s.append(nil)
			if _, err := Decode(b); err == nil {
				t.Fatal("Decode takes what Canonical refuses")
			}
		})
	}
}

func TestNothingPanicsOnHalfAState(t *testing.T) {
	b, err := full().Canonical()
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		if _, err := Decode(b[:i]); err == nil {
			t.Fatalf("took %d of %d bytes", i, len(b))
		}
	}
	for i := range b { // one flipped byte is another state or none, and never another form of this one
		c := bytes.Clone(b)
		c[i] ^= 0x20
		if s, err := Decode(c); err == nil {
			if again, err := s.Canonical(); err != nil || !bytes.Equal(again, c) {
				t.Fatalf("byte %d flipped: %v", i, err)
			}
		}
	}
}

func TestStateSize(t *testing.T) {
	s := full()
	for i := range 5 {
		s.Apps[0].Containers[0].Files = append(s.Apps[0].Containers[0].Files, File{Path: fmt.Sprint("/f", i), Content: strings.Repeat("x", 1<<20)})
	}
	if _, err := s.Canonical(); err == nil || !strings.Contains(err.Error(), "at most 4194304 are allowed") {
		t.Fatalf("got %v", err)
	}
}

func TestNextGeneration(t *testing.T) {
	for _, tt := range []struct{ previous, now, want int64 }{
		{0, 1000, 1000},
		{0, 0, 1},
		{0, -5, 1},
		{999, 1000, 1000},
		{1000, 1000, 1001},
		{5000, 1000, 5001}, // the clock went back
		{1000, 5000, 5000},
	} {
		if got := NextGeneration(tt.previous, time.Unix(tt.now, 999)); got != tt.want {
			t.Errorf("NextGeneration(%d, %d) = %d, want %d", tt.previous, tt.now, got, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := full().Canonical()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"apiVersion":"` + APIVersion + `","engine":1,"identity":{"publicKey":"` + testKey + `"},"node":"a","workspace":"w"}`))
	f.Add([]byte(`{"apiVersion":"` + APIVersion + `","apiVersion":"` + APIVersion + `"}`))
	f.Add([]byte("[[[[{}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := Decode(in)
		if err != nil {
			return
		}
		out, err := s.Canonical()
		if err != nil || !bytes.Equal(in, out) {
			t.Fatalf("accepted %q, canonical form is %q, %v", in, out, err)
		}
		plain, _ := json.Marshal(s)
		if want, err := jcs.Transform(plain); err != nil || !bytes.Equal(want, in) {
			t.Fatalf("accepted %q, by RFC 8785 it is %q, %v", in, want, err)
		}
	})
}

func BenchmarkCanonical(b *testing.B) {
	s := full()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Canonical(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCanonicalByJCS(b *testing.B) {
	s := full()
	b.ReportAllocs()
	for b.Loop() {
		plain, err := json.Marshal(s)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := jcs.Transform(plain); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	in, err := full().Canonical()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(in); err != nil {
			b.Fatal(err)
		}
	}
}
