package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/schema/wire"
)

// machine is a root with what a kernel tells.
type machine struct {
	t   *testing.T
	dir string
}

func (m machine) write(name, text string) {
	m.t.Helper()
	name = filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m machine) cpu(user, idle int) {
	m.write("proc/stat", fmt.Sprintf("cpu  %d 0 0 %d 0 0 0 0 0 0\ncpu0 1 0 0 1 0 0 0 0 0 0\ncpu1 1 0 0 1 0 0 0 0 0 0\nbtime 1700000000\n", user, idle))
}

func (m machine) memory(total, available int) {
	m.write("proc/meminfo", fmt.Sprintf("MemTotal: %d kB\nMemFree: 1 kB\nMemAvailable: %d kB\n", total, available))
}

func (m machine) iface(name string, index, link int, devtype string, master bool) {
	dir := "sys/class/net/" + name + "/"
	m.write(dir+"ifindex", fmt.Sprintln(index))
	m.write(dir+"iflink", fmt.Sprintln(link))
	uevent := "INTERFACE=" + name + "\n"
	if devtype != "" {
		uevent = "DEVTYPE=" + devtype + "\n" + uevent
	}
	m.write(dir+"uevent", uevent)
	if master {
		m.write(dir+"master/ifindex", "9\n")
	}
}

func newMachine(t *testing.T) machine {
	m := machine{t, t.TempDir()}
	m.cpu(100, 900)
	m.memory(1000, 600)
	m.write("proc/loadavg", "1.25 0.50 0.10 1/100 999\n")
	m.write("proc/sys/kernel/hostname", "edge-7\n")
	m.write("proc/sys/kernel/osrelease", "6.1.0\x1b[31m-test\n")
	m.write("etc/os-release", "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n")
	m.write("proc/net/dev", "Inter-| Receive | Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n"+
		"    lo: 1000000 0 0 0 0 0 0 0 1000000 0 0 0 0 0 0 0\n"+
		"  eth0: 100 0 0 0 0 0 0 0 200 0 0 0 0 0 0 0\n"+
		" wlan0: 10 0 0 0 0 0 0 0 20 0 0 0 0 0 0 0\n"+
		"eth0.5: 7000 0 0 0 0 0 0 0 7000 0 0 0 0 0 0 0\n"+
		"slv0: 8000 0 0 0 0 0 0 0 8000 0 0 0 0 0 0 0\n"+
		"veth1: 9000 0 0 0 0 0 0 0 9000 0 0 0 0 0 0 0\n"+
		"uplink: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n")
	m.iface("eth0", 2, 2, "", false)
	m.iface("wlan0", 3, 3, "wlan", false)
	m.iface("eth0.5", 4, 2, "vlan", false)
	m.iface("slv0", 5, 5, "bridge", false)
	m.iface("veth1", 6, 2, "", true)
	m.iface("uplink", 7, 12, "", false) // a veth: the way out of the node's own namespace
	return m
}

func TestMachine(t *testing.T) {
	m := newMachine(t)
	got := New(Config{Root: m.dir}).Machine()
	if got.Hostname != "edge-7" || got.OS != "Debian GNU/Linux 12 (bookworm)" || got.Kernel != "6.1.0[31m-test" || got.Memory != 1000<<10 ||
		!got.Booted.Equal(time.Unix(1700000000, 0)) || got.CPUs < 1 || got.Arch == "" {
		t.Errorf("%+v", got)
	}
}

func TestUsage(t *testing.T) {
	m := newMachine(t)
	meter := New(Config{Root: m.dir})
	u, list := meter.Usage()
	if u.CPU != 0.2 || u.Load != 1.25 || u.Memory != 400<<10 || u.MemoryLimit != 1000<<10 || u.NetRx != 111 || u.NetTx != 222 || u.Temperature != nil || u.DiskLimit != 0 || list != nil {
		t.Errorf("since the boot: %+v %v", u, list)
	}
	m.cpu(250, 950)
	if u, _ = meter.Usage(); u.CPU != 1.5 {
		t.Errorf("since the last look: %v cores", u.CPU)
	}
	if u, _ = meter.Usage(); u.CPU != 0 {
		t.Errorf("when no time went by: %v cores", u.CPU)
	}
	m.cpu(1, 1) // as after a suspend on some machines
	if u, _ = meter.Usage(); u.CPU != 0 {
		t.Errorf("when it went backwards: %v cores", u.CPU)
	}
}

func TestTemperature(t *testing.T) {
	for _, c := range []struct {
		zones []string
		want  float64
	}{
		{nil, -1000},
		{[]string{"45123\n"}, 45.123},
		{[]string{"41000\n", "-274000\n", "987654321\n", "junk\n", "52500\n", ""}, 52.5},
		{[]string{"-12500\n"}, -12.5},
		{[]string{"-274000\n", "x"}, -1000},
		{[]string{"99999999999999999999999\n"}, -1000},
	} {
		m := newMachine(t)
		for n, z := range c.zones {
			m.write(fmt.Sprintf("sys/class/thermal/thermal_zone%d/temp", n), z)
		}
		u, _ := New(Config{Root: m.dir}).Usage()
		if got := u.Temperature; c.want == -1000 && got != nil || c.want != -1000 && (got == nil || *got != c.want) {
			t.Errorf("%q: %v, not %v", c.zones, got, c.want)
		}
	}
}

// The processor of some machines is no thermal zone; what other chips measure may be nothing.
func TestTemperatureOfCores(t *testing.T) {
	m := newMachine(t)
	m.write("sys/class/thermal/thermal_zone0/temp", "27800\n")
	for n, driver := range []string{"k10temp", "nct6775", "nvme"} {
		dir := fmt.Sprintf("sys/class/hwmon/hwmon%d/", n)
		m.write(dir+"name", driver+"\n")
		m.write(dir+"temp1_input", fmt.Sprintf("%d\n", 61000+40000*n))
		m.write(dir+"temp1_crit", "95000\n")
	}
	u, _ := New(Config{Root: m.dir}).Usage()
	if u.Temperature == nil || *u.Temperature != 61 {
		t.Errorf("%v", u.Temperature)
	}
}

func TestMemoryPressureDoesNotFlap(t *testing.T) {
	m := newMachine(t)
	meter := New(Config{Root: m.dir})
	var since time.Time
	for _, c := range []struct {
		available int
		on        bool
	}{{60, false}, {49, true}, {60, true}, {79, true}, {81, false}, {60, false}, {10, true}} {
		m.memory(1000, c.available)
		_, list := meter.Usage()
		if on := len(list) == 1 && list[0].Type == wire.ConditionMemoryPressure; on != c.on {
			t.Errorf("%d of 1000 available: %v", c.available, list)
		}
		if c.on && c.available > 49 && !list[0].Since.Equal(since) {
			t.Error("it began anew")
		} else if c.on {
			since = list[0].Since
		}
	}
}

func TestDiskPressure(t *testing.T) {
	const g = 1 << 30
	meter := New(Config{Dir: "/data"})
	for _, c := range []struct {
		d    disk
		want string
	}{
		{disk{used: 50 * g, free: 50 * g}, ""},
		{disk{used: 91 * g, free: 9 * g}, "9.0 GiB of 100 GiB are free"},
		{disk{used: 89 * g, free: 11 * g}, "11 GiB of 100 GiB are free"}, // still
		{disk{used: 87 * g, free: 13 * g}, ""},
		{disk{used: 89 * g, free: 11 * g}, ""},
		{disk{used: g, free: g}, ""}, // half of a small one
		{disk{used: 2 * g, free: g / 5}, "204 MiB of 2.2 GiB"},
		{disk{used: 2 * g, free: 2 * g}, ""},
		{disk{used: 3700 * g, free: 390 * g}, ""}, // a tenth of a large one
		{disk{used: 4000 * g, free: 9 * g}, "9.0 GiB of 4009 GiB"},
		{disk{used: 4000 * g, free: 11 * g}, "11 GiB"}, // still
		{disk{used: 4000 * g, free: 13 * g}, ""},
		{disk{used: 1 * g, free: 99 * g, inodes: 1000, freeInodes: 40}, "40 of 1000 inodes"},
		{disk{used: 1 * g, free: 99 * g, inodes: 1000, freeInodes: 60}, "60 of 1000 inodes"},
		{disk{used: 1 * g, free: 99 * g, inodes: 1000, freeInodes: 80}, ""},
		{disk{used: 1 * g, free: 99 * g}, ""},
	} {
		meter.disk = func(string) (disk, bool) { return c.d, true }
		got := meter.diskPressure([]string{"/data"})
		if c.want == "" && got != nil || c.want != "" && (got == nil || !strings.Contains(got.Message, c.want) || got.Since.IsZero()) {
			t.Errorf("%+v: %+v", c.d, got)
		}
	}
}

// Each file system is looked at once, for itself, and named.
func TestDiskPressureOfSeveral(t *testing.T) {
	const g = 1 << 30
	full, half := disk{used: 99 * g, free: g}, disk{used: 50 * g, free: 50 * g}
	at := map[string]disk{}
	meter := New(Config{Root: t.TempDir(), Dir: "/data"})
	meter.disk = func(dir string) (disk, bool) { d, ok := at[dir]; return d, ok }
	var since time.Time
	for _, c := range []struct {
		data, images disk
		same         bool
		want         []string
	}{
		{half, half, false, nil},
		{half, full, false, []string{"/images"}},
		{full, full, false, []string{"/data", "/images"}},
		{full, full, true, []string{"/data"}},
		{half, half, true, nil},
	} {
		c.data.device, c.images.device = 1, 2
		if c.same {
			c.images.device = 1
		}
		at["/data"], at["/images"] = c.data, c.images
		u, list := meter.Usage("/images", "/gone")
		if u.Disk != c.data.used {
			t.Errorf("used %d, want the agent's", u.Disk)
		}
		if len(c.want) == 0 {
			if len(list) != 0 {
				t.Errorf("%+v", list)
			}
			continue
		}
		if len(list) != 1 || strings.Count(list[0].Message, "file system of ") != len(c.want) {
			t.Fatalf("%+v, want %v", list, c.want)
		}
		for _, dir := range c.want {
			if !strings.Contains(list[0].Message, "file system of "+dir+";") {
				t.Errorf("%q does not name %s", list[0].Message, dir)
			}
		}
		if !since.IsZero() && !list[0].Since.Equal(since) {
			t.Error("it began anew")
		}
		since = list[0].Since
	}
}

func TestNothingToRead(t *testing.T) {
	for _, root := range []string{t.TempDir(), filepath.Join(t.TempDir(), "gone")} {
		meter := New(Config{Root: root, Dir: filepath.Join(root, "gone")})
		if u, list := meter.Usage(); u != (wire.Usage{}) || list != nil {
			t.Errorf("%+v %v", u, list)
		}
		if m := meter.Machine(); m.Hostname != "" || m.CPUs < 1 {
			t.Errorf("%+v", m)
		}
	}
}

func TestJunk(t *testing.T) {
	m := newMachine(t)
	for _, name := range []string{"proc/stat", "proc/meminfo", "proc/loadavg", "proc/net/dev", "etc/os-release", "sys/class/net/eth0/uevent", "sys/class/net/eth0/ifindex"} {
		for _, junk := range []string{"", "\x00\xff\n", "cpu  a b c\n", strings.Repeat("9", 1<<20), "eth0: 1\n"} {
			m.write(name, junk)
			meter := New(Config{Root: m.dir})
			meter.Usage()
			meter.Machine()
		}
	}
}

// This machine tells something.
func TestThisMachine(t *testing.T) {
	meter := New(Config{Dir: t.TempDir()})
	u, _ := meter.Usage()
	if u.Memory <= 0 || u.MemoryLimit <= u.Memory || u.Disk <= 0 || u.DiskLimit < u.Disk {
		t.Errorf("%+v", u)
	}
	if m := meter.Machine(); m.Hostname == "" || m.Kernel == "" || m.Memory <= 0 || m.Booted.IsZero() {
		t.Errorf("%+v", m)
	}
}

func BenchmarkUsage(b *testing.B) {
	meter := New(Config{Dir: b.TempDir()})
	for b.Loop() {
		meter.Usage()
	}
}

func BenchmarkMachine(b *testing.B) {
	meter := New(Config{})
	for b.Loop() {
		meter.Machine()
	}
}
