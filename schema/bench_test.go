package schema_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/load"
)

// BenchmarkWorkspace evaluates a workspace of 100 nodes and 100 devices, in YAML, that
// inherits ten apps and ten device models of 20 registers: a fresh context, build,
// validate, marshal. cpu-ms/op is user and system time.
func BenchmarkWorkspace(b *testing.B) {
	b.Setenv("CUE_REGISTRY", "none")
	r := repo{dir: b.TempDir()}
	r.write(b, platform())
	var shared, nodes, devices strings.Builder
	shared.WriteString("package fleet\n\n")
	for i := range 10 {
		fmt.Fprintf(&shared, "app: \"app-%d\": {placement: selector: role: \"r%d\", container: web: {image: \"x.example/y@sha256:%064d\", port: http: {container: 8080, host: %d}, env: {A: \"b\", C: \"d\"}, resources: {cpu: 0.5, memory: \"64MiB\"}, probe: http: port: 8080}}\n", i, i%5, i, 18000+i)
		fmt.Fprintf(&shared, "deviceModel: \"m%d\": property: {\n", i)
		for p := range 20 {
			fmt.Fprintf(&shared, "\tp%d: {type: \"int16\", modbus: {table: \"holding\", address: %d}}\n", p, p)
		}
		shared.WriteString("}\n")
	}
	for i := range 100 {
		fmt.Fprintf(&nodes, "gw-%d:\n  labels: {role: r%d, line: \"%d\"}\n  identity: {publicKey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4}\n  capacity: {cpu: 4, memory: 4GiB}\n", i, i%5, i%3)
		fmt.Fprintf(&devices, "d-%d: {model: m%d, node: gw-%d, modbus: {tcp: \"10.0.0.%d:502\", unit: 3}, desired: {p1: 4}}\n", i, i%10, i, i%250)
	}
	r.write(b, map[string]string{
		"folders/a/apps.cue":         shared.String(),
		"folders/a/ws/nodes.yaml":    nodes.String(),
		"folders/a/ws/devices.yaml":  devices.String(),
		"folders/a/ws/workspace.cue": "@extern(embed)\n\npackage fleet\n\nworkspace: title: \"W\"\nnode: _ @embed(file=nodes.yaml)\ndevice: _ @embed(file=devices.yaml)\n",
	})
	var size int
	start := cpu()
	for b.Loop() {
		inst := load.Instances([]string{"./folders/a/ws"}, &load.Config{Dir: r.dir})[0]
		if inst.Err != nil {
			b.Fatal(inst.Err)
		}
		v := cuecontext.New().BuildInstance(inst)
		if err := v.Validate(cue.Concrete(true), cue.Final()); err != nil {
			b.Fatal(err)
		}
		out, err := v.MarshalJSON()
		if err != nil {
			b.Fatal(err)
		}
		size = len(out)
	}
	b.ReportMetric(float64((cpu()-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(size), "json-bytes")
}

func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// write puts files into the repo.
func (r repo) write(tb testing.TB, files map[string]string) {
	tb.Helper()
	for name, data := range files {
		p := filepath.Join(r.dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}
