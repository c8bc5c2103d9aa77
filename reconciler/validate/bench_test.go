package validate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// bigRepo writes a repo of so many workspaces with 100 nodes and 100 devices each, in
// YAML, below a platform with ten apps and ten device models of 20 registers.
func bigRepo(t testing.TB, workspaces int) string {
	files := baseRepo()
	for p := range files {
		if strings.HasPrefix(p, "folders/") {
			delete(files, p)
		}
	}
	var apps strings.Builder
	apps.WriteString("package fleet\n\n")
	for i := range 10 {
		fmt.Fprintf(&apps, "app: \"app-%d\": {\n\tplacement: selector: role: \"r%d\"\n\tcontainer: web: {\n\t\timage: \"x.example/y@sha256:%064d\"\n\t\tport: http: {container: 8080, host: %d}\n\t\tresources: {cpu: 0.5, memory: \"64MiB\"}\n\t\tenv: A: \"b\"\n\t\tprobe: http: port: 8080\n\t}\n}\n", i, i%5, i, 18000+i)
	}
	for m := range 10 {
		fmt.Fprintf(&apps, "deviceModel: m%d: property: {\n", m)
		for r := range 20 {
			fmt.Fprintf(&apps, "\tp%d: {type: \"int16\", modbus: {table: \"holding\", address: %d}}\n", r, r)
		}
		apps.WriteString("}\n")
	}
	files["apps.cue"] = apps.String()
	for w := range workspaces {
		plant := fmt.Sprintf("folders/plant-%d", w/10)
		files[plant+"/folder.cue"] = fmt.Sprintf("package fleet\n\nfolder: title: \"P%d\"\nnode: [string]: labels: plant: \"p%d\"\n", w/10, w/10)
		dir := fmt.Sprintf("%s/line-%d", plant, w)
		files[dir+"/workspace.cue"] = "@extern(embed)\n\npackage fleet\n\nworkspace: title: \"W\"\nnode: _ @embed(file=nodes.yaml)\ndevice: _ @embed(file=devices.yaml)\nroute: r1: {from: {topic: \"a/+\", selector: role: \"r1\"}, to: endpoint: \"mes\"}\n"
		var nodes, devices strings.Builder
		for i := range 100 {
			fmt.Fprintf(&nodes, "gw-%d-%d:\n  labels: {role: r%d, line: \"%d\"}\n  identity: {publicKey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4}\n  capacity: {cpu: 4, memory: 4GiB}\n", w, i, i%5, i%3)
			fmt.Fprintf(&devices, "d-%d: {model: m%d, node: gw-%d-%d, modbus: {tcp: \"10.0.0.%d:502\", unit: 3}, desired: {p1: 4}}\n", i, i%10, w, i, i%250)
		}
		files[dir+"/nodes.yaml"], files[dir+"/devices.yaml"] = nodes.String(), devices.String()
	}
	dir := t.TempDir()
	write(t, dir, files)
	return dir
}

func cpuOf(who int) float64 {
	var ru syscall.Rusage
	if err := syscall.Getrusage(who, &ru); err != nil {
		return 0
	}
	return float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e9
}

func BenchmarkCold(b *testing.B) {
	dir := bigRepo(b, 100)
	for b.Loop() {
		own, kids := cpuOf(syscall.RUSAGE_SELF), cpuOf(syscall.RUSAGE_CHILDREN)
		v := New(Config{CacheFile: filepath.Join(b.TempDir(), "cache")})
		f, repo := check(b, v, dir)
		peak := residentSize(os.Getpid())
		for _, c := range v.pool.idle {
			peak += residentSize(c.cmd.Process.Pid)
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
		n := 0
		for _, s := range f.Workspaces {
			if s.Unit == nil {
				b.Fatal(all(f, repo))
			}
			n += len(s.Unit.Node)
		}
		b.ReportMetric(float64(n), "nodes")
		b.ReportMetric(cpuOf(syscall.RUSAGE_SELF)-own, "own-cpu-s")
		b.ReportMetric(cpuOf(syscall.RUSAGE_CHILDREN)-kids, "child-cpu-s")
		b.ReportMetric(float64(peak>>20), "end-MiB")
	}
}

func BenchmarkUnchanged(b *testing.B) {
	dir := bigRepo(b, 100)
	v := validator(b, Config{CacheFile: filepath.Join(b.TempDir(), "cache")})
	check(b, v, dir)
	for b.Loop() {
		check(b, v, dir)
	}
}

func BenchmarkOneChanged(b *testing.B) {
	dir := bigRepo(b, 100)
	v := validator(b, Config{CacheFile: filepath.Join(b.TempDir(), "cache")})
	check(b, v, dir)
	i := 0
	for b.Loop() {
		i++
		write(b, dir, map[string]string{"folders/plant-3/line-33/extra.cue": fmt.Sprintf("package fleet\n\nnode: \"gw-33-1\": labels: change: \"%d\"\n", i)})
		check(b, v, dir)
	}
}

func BenchmarkRestart(b *testing.B) {
	dir := bigRepo(b, 100)
	file := filepath.Join(b.TempDir(), "cache")
	first := New(Config{CacheFile: file})
	check(b, first, dir)
	if err := first.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		v := New(Config{CacheFile: file})
		check(b, v, dir)
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUnit is one workspace in this process, without the pipe.
func BenchmarkUnit(b *testing.B) {
	dir := bigRepo(b, 1)
	x, err := readIndex(context.Background(), tree(b, dir))
	if err != nil {
		b.Fatal(err)
	}
	rec := &recorder{mu: new(sync.Mutex), x: x, limits: Limits{}.orDefaults(), reads: map[readRecord]struct{}{}}
	const ws = "folders/plant-0/line-0"
	for b.Loop() {
		a := newAskFS(nil, nil)
		for d := range x.dirs {
			a.dirs[d] = x.dirs[d]
			a.cue[d], _ = x.cueFiles(d)
		}
		for p := range x.files {
			data, err := rec.read(p)
			a.files[p] = &file{data: data, err: err}
		}
		res := evaluate(job{Dir: ws, Above: []string{".", "folders/plant-0"}, Problems: 100}, a)
		if res.Unit == nil {
			b.Fatal(res.Problems)
		}
	}
}
