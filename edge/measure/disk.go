package measure

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"selvedge/schema/wire"
)

func (m *Meter) exists(parts ...string) bool {
	_, err := os.Lstat(m.path(parts...))
	return err == nil
}

// devType reads DEVTYPE of an interface; most have none.
func (m *Meter) devType(dev string) string {
	f, err := os.Open(m.path(dev, "uevent"))
	if err != nil {
		return ""
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for n := 0; sc.Scan() && n < 50; n++ {
		if v, ok := strings.CutPrefix(sc.Text(), "DEVTYPE="); ok {
			return v
		}
	}
	return ""
}

// disk is the state of a file system.
type disk struct {
	used, free         int64  // bytes; free for us
	inodes, freeInodes uint64 // zero: it has no such bound
	device             uint64
}

func diskOf(dir string) (disk, bool) {
	var s unix.Statfs_t
	var f unix.Stat_t
	if unix.Statfs(dir, &s) != nil || unix.Stat(dir, &f) != nil || s.Blocks == 0 {
		return disk{}, false
	}
	block := int64(s.Frsize)
	if block <= 0 {
		block = int64(s.Bsize)
	}
	return disk{used: int64(s.Blocks-s.Bfree) * block, free: int64(s.Bavail) * block, inodes: s.Files, freeInodes: s.Ffree, device: uint64(f.Dev)}, true
}

// Where pressure begins and, a little further up, ends.
const (
	diskShare, diskShareEnd     = 0.10, 0.12
	diskEnough, diskEnoughEnd   = 10 << 30, 12 << 30 // bytes, however large the disk is
	inodeShare, inodeShareEnd   = 0.05, 0.07
	memoryShare, memoryShareEnd = 0.05, 0.08
)

// diskPressure looks at the file systems of folders, at each once, and says which have little room.
func (m *Meter) diskPressure(dirs []string) *wire.Condition {
	seen := map[uint64]bool{}
	var full []string
	for _, dir := range dirs {
		d, ok := m.disk(dir)
		if !ok || seen[d.device] {
			continue
		}
		seen[d.device] = true
		why := little(d, dir, m.tight[dir])
		if m.tight[dir] = why != ""; why != "" {
			full = append(full, why)
		}
	}
	if len(full) == 0 {
		delete(m.pressure, wire.ConditionDiskPressure)
		return nil
	}
	return m.hold(wire.ConditionDiskPressure, strings.Join(full, "; "))
}

// little says that a file system has little room, or "". One that had little has to get more.
func little(d disk, dir string, had bool) string {
	share, enough, inodes := diskShare, float64(diskEnough), inodeShare
	if had {
		share, enough, inodes = diskShareEnd, diskEnoughEnd, inodeShareEnd
	}
	size := d.used + d.free
	switch {
	case float64(d.free) < min(share*float64(size), enough):
		return fmt.Sprintf("%s of %s are free on the file system of %s; remove what is not needed, or give it more", human(d.free), human(size), dir)
	case d.inodes > 0 && float64(d.freeInodes) < inodes*float64(d.inodes):
		return fmt.Sprintf("%d of %d inodes are free on the file system of %s; remove folders with many small files", d.freeInodes, d.inodes, dir)
	}
	return ""
}

func (m *Meter) memoryPressure(free, size int64) *wire.Condition {
	share := memoryShare
	if m.holds(wire.ConditionMemoryPressure) {
		share = memoryShareEnd
	}
	if size > 0 && float64(free) < share*float64(size) {
		return m.hold(wire.ConditionMemoryPressure, fmt.Sprintf("%s of %s of memory are available; give containers memory limits, or run fewer here", human(free), human(size)))
	}
	delete(m.pressure, wire.ConditionMemoryPressure)
	return nil
}

func (m *Meter) holds(kind string) bool {
	_, ok := m.pressure[kind]
	return ok
}

func (m *Meter) hold(kind, message string) *wire.Condition {
	if !m.holds(kind) {
		m.pressure[kind] = time.Now()
	}
	return &wire.Condition{Type: kind, Message: message, Since: m.pressure[kind]}
}

// human writes bytes for people, in powers of 1024.
func human(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
