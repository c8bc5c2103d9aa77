// Package measure tells what this machine is and how much of it is used.
//
// In: /proc, /sys and /etc/os-release, and the file systems of folders. Out: wire.Machine,
// wire.Usage and the conditions DiskPressure and MemoryPressure, each in less than 1 ms on a
// usual node.
//
// What the kernel does not tell is left zero or nil; nothing here fails. It remembers the
// last look, so that CPU is over the time since then, and conditions do not flap.
package measure

import (
	"bufio"
	"cmp"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/procfs"

	"selvedge/schema/wire"
)

// Config says what to look at.
type Config struct {
	Root string // below which proc, sys and etc lie; empty means /
	Dir  string // whose file system is measured; empty: none
}

// Meter measures.
type Meter struct {
	root string
	dir  string
	proc *procfs.FS                    // nil: there is none
	disk func(dir string) (disk, bool) // a test may answer itself

	mu       sync.Mutex
	busy     float64 // processor seconds at the last look
	total    float64
	inner    map[string]bool // interfaces that are not counted
	pressure map[string]time.Time
	tight    map[string]bool // folders whose file systems have little room
}

// New returns a Meter.
func New(c Config) *Meter {
	m := &Meter{root: cmp.Or(c.Root, "/"), dir: c.Dir, disk: diskOf, inner: map[string]bool{}, pressure: map[string]time.Time{}, tight: map[string]bool{}}
	if p, err := procfs.NewFS(m.path("proc")); err == nil {
		m.proc = &p
	}
	return m
}

func (m *Meter) path(parts ...string) string {
	return filepath.Join(append([]string{m.root}, parts...)...)
}

// maxText bounds what is taken from files as text.
const maxText = 256

// text returns the first line of a file, without what does not print.
func (m *Meter) text(parts ...string) string {
	f, err := os.Open(m.path(parts...))
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, maxText)
	n, _ := f.Read(b) // nothing is as good as an error
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	return printable(line)
}

func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	return strings.TrimSpace(s[:min(len(s), maxText)])
}

// Machine tells what the machine is.
func (m *Meter) Machine() wire.Machine {
	w := wire.Machine{Hostname: m.text("proc/sys/kernel/hostname"), OS: m.osName(), Kernel: m.text("proc/sys/kernel/osrelease"),
		Arch: runtime.GOARCH, CPUs: runtime.NumCPU()}
	if m.proc == nil {
		return w
	}
	w.Memory, _ = m.memory()
	if st, err := m.proc.Stat(); err == nil && st.BootTime > 0 {
		w.Booted = time.Unix(int64(st.BootTime), 0).UTC()
	}
	return w
}

// osName reads PRETTY_NAME of os-release(5).
func (m *Meter) osName() string {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		f, err := os.Open(m.path(name))
		if err != nil {
			continue
		}
		defer f.Close()
		sc := bufio.NewScanner(f)
		for n := 0; sc.Scan() && n < 100; n++ {
			v, ok := strings.CutPrefix(sc.Text(), "PRETTY_NAME=")
			if !ok {
				continue
			}
			if plain, err := strconv.Unquote(v); err == nil {
				v = plain
			}
			return printable(strings.Trim(v, `'`))
		}
	}
	return ""
}

// Usage tells how much of the machine is used, and which conditions hold. The file systems of
// other folders count for DiskPressure alone.
func (m *Meter) Usage(others ...string) (wire.Usage, []wire.Condition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var u wire.Usage
	var list []wire.Condition
	if m.proc != nil {
		u.CPU = m.cores()
		if l, err := m.proc.LoadAvg(); err == nil {
			u.Load = l.Load1
		}
		if size, free := m.memory(); size > 0 {
			u.MemoryLimit, u.Memory = size, max(size-free, 0)
			if c := m.memoryPressure(free, size); c != nil {
				list = append(list, *c)
			}
		}
		u.NetRx, u.NetTx = m.network()
	}
	if m.dir != "" {
		if d, ok := m.disk(m.dir); ok {
			u.Disk, u.DiskLimit = d.used, d.used+d.free
		}
	}
	if c := m.diskPressure(append([]string{m.dir}, others...)); c != nil {
		list = append(list, *c)
	}
	u.Temperature = m.hottest()
	return u, list
}

// memory reads the bytes of the machine, and those that programs can get without swapping;
// procfs panics on lines that it does not know.
func (m *Meter) memory() (size, free int64) {
	f, err := os.Open(m.path("proc/meminfo"))
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	known := false
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		fields := strings.Fields(sc.Text())
		if len(fields) < 2 {
			continue
		}
		kib, err := strconv.ParseUint(fields[1], 10, 50)
		switch {
		case err != nil:
		case fields[0] == "MemTotal:":
			size = int64(kib) << 10
		case fields[0] == "MemAvailable:":
			free, known = int64(kib)<<10, true
		}
	}
	if !known {
		return size, size
	}
	return size, free
}

// bounded is a counter of the kernel as we tell it.
func bounded(n uint64) int64 { return int64(min(n, 1<<62)) }

// cores returns the processors in use since the last look; the first time, since the boot.
func (m *Meter) cores() float64 {
	st, err := m.proc.Stat()
	if err != nil {
		return 0
	}
	c := st.CPUTotal // guests are in user already
	busy := c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal
	total := busy + c.Idle + c.Iowait
	spent, took := busy-m.busy, total-m.total
	m.busy, m.total = busy, total
	if took <= 0 || spent < 0 {
		return 0
	}
	return float64(int(spent/took*float64(max(len(st.CPU), 1))*1e4+0.5)) / 1e4
}

// Temperatures beyond these are of broken sensors.
const (
	coldest = -60.0
	warmest = 200.0
)

// coreDrivers are those of package hwmon that measure the processor, which on some machines is
// no thermal zone. Others measure what is not connected, too.
var coreDrivers = []string{"coretemp", "k8temp", "k10temp", "zenpower", "via_cputemp"}

// hottest returns the temperature of the hottest thermal zone or core; nil if there is none.
func (m *Meter) hottest() *float64 {
	sensors := m.glob("sys/class/thermal/thermal_zone*/temp")
	for _, chip := range m.glob("sys/class/hwmon/hwmon*") {
		if slices.Contains(coreDrivers, m.text(chip, "name")) {
			sensors = append(sensors, m.glob(chip+"/temp*_input")...)
		}
	}
	var out *float64
	for _, s := range sensors {
		milli, err := strconv.ParseInt(m.text(s), 10, 64)
		if c := float64(milli) / 1000; err == nil && c > coldest && c < warmest && (out == nil || c > *out) {
			out = &c
		}
	}
	return out
}

// glob lists files below the root, not too many.
func (m *Meter) glob(pattern string) (names []string) {
	found, _ := filepath.Glob(m.path(pattern)) // our patterns are well formed
	for _, f := range found[:min(len(found), 64)] {
		if rel, err := filepath.Rel(m.root, f); err == nil {
			names = append(names, rel)
		}
	}
	return names
}
