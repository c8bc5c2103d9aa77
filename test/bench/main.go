// Command bench measures Selvedge end to end beside peers on the same machine.
//
// In: the built commands and, in $SELVEDGE_TOOLS or the PATH, the peers' programs. Out: a
// table a benchmark, with a ratio to the peer. Everything real runs: Git, the commands,
// containerd, a registry. Nothing is asserted but that the work was done; a slow
// machine prints larger numbers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

func main() {
	if what := os.Getenv(peerEnv); what != "" {
		if err := peer(what); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(run())
}

// bench is what all benchmarks share.
type bench struct {
	bin   string // directory of our commands
	quick bool   // few of everything: shows that it works, measures little
	out   io.Writer
}

type benchmark struct {
	name, what string
	run        func(context.Context, *bench) error
}

func benchmarks() []benchmark {
	return []benchmark{
		{"publish", "commit to published states, beside cue vet -c", publishing},
		{"sign", "signed states a second, beside a registry and the cosign command", signing},
		{"start", "push to a container that answers, beside ctr run and nerdctl run", starting},
		{"fleet", "the hub with a fleet connected: memory, notices, pages, a log", connecting},
		{"idle", "memory of an idle node", idling},
	}
}

func run() int {
	var b bench
	var names []string
	for _, x := range benchmarks() {
		names = append(names, x.name)
	}
	flag.StringVar(&b.bin, "bin", "bin", "directory of the commands")
	only := flag.String("only", "", "run these alone: "+strings.Join(names, ","))
	flag.BoolVar(&b.quick, "quick", false, "few of everything: shows that the benchmarks work")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	var err error
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	b.out = os.Stdout
	fmt.Fprintln(b.out, machine())
	wanted := names
	if *only != "" {
		wanted = strings.Split(*only, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(names, name) {
			fmt.Fprintf(os.Stderr, "bench: there is no benchmark %q; there are %s\n", name, strings.Join(names, ", "))
			return 2
		}
	}
	code := 0
	for _, x := range benchmarks() {
		if !slices.Contains(wanted, x.name) {
			continue
		}
		fmt.Fprintf(b.out, "\n%s: %s\n", x.name, x.what)
		if err := x.run(ctx, &b); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", x.name, err)
			code = 1
		}
		if ctx.Err() != nil {
			break
		}
	}
	return code
}

// pick returns the first in a quick run, and else the second.
func (b *bench) pick(quick, full int) int {
	if b.quick {
		return quick
	}
	return full
}

// errMissing marks a peer that this machine does not have.
var errMissing = errors.New("is missing: run make tools deps")

// tool finds a peer's program.
func tool(name string) (string, error) {
	if dir := os.Getenv("SELVEDGE_TOOLS"); dir != "" {
		if p := filepath.Join(dir, name); executable(p) {
			return p, nil
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s %w", name, errMissing)
	}
	return p, nil
}

func executable(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// machine says what the figures were made on.
func machine() string {
	system := runtime.GOOS
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
				system = strings.Trim(name, `"`)
			}
		}
	}
	load := "unknown"
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = strings.Fields(string(b))[0]
	}
	return fmt.Sprintf("%d cores, %s, %s, %s, load before %s", runtime.NumCPU(), runtime.GOARCH, system, runtime.Version(), load)
}
