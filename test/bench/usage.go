package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// userHZ is the unit of /proc/PID/stat: 100 a second wherever Linux runs.
const userHZ = 100

// used is what a process used with all its children.
type used struct {
	cpu  time.Duration
	peak int64 // bytes resident, summed over processes: pages that they share count in each
}

// meter watches a process and its children, the same way for us and for peers.
type meter struct {
	pid   int
	cpu   time.Duration // used before
	mu    sync.Mutex
	peak  int64
	stop  chan struct{}
	ended chan struct{}
}

// between two looks; a peak that is shorter may be missed.
const meterTick = 5 * time.Millisecond

func watch(pid int) *meter {
	m := &meter{pid: pid, cpu: cpuOf(pid), stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(m.ended)
		t := time.NewTicker(meterTick)
		defer t.Stop()
		for {
			m.look()
			select {
			case <-m.stop:
				return
			case <-t.C:
			}
		}
	}()
	return m
}

func (m *meter) look() {
	var sum int64
	for _, pid := range family(m.pid) {
		sum += resident(pid)
	}
	m.mu.Lock()
	m.peak = max(m.peak, sum)
	m.mu.Unlock()
}

// end returns what was used since watch; cpu is none if the process has ended.
func (m *meter) end() used {
	u := used{cpu: cpuOf(m.pid) - m.cpu}
	close(m.stop)
	<-m.ended
	u.peak = m.peak
	return u
}

// family lists a process and all that come from it and live.
func family(pid int) []int {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, list := range lists {
			b, _ := os.ReadFile(list) // gone by now: no children
			for field := range strings.FieldsSeq(string(b)) {
				if child, err := strconv.Atoi(field); err == nil {
					pids = append(pids, child)
				}
			}
		}
	}
	return pids
}

// cpuOf returns the processor time of a process, its children that live, and those
// that it waited for.
func cpuOf(pid int) time.Duration {
	var ticks int64
	for _, p := range family(pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 15 {
			continue
		}
		for _, f := range fields[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.ParseInt(f, 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / userHZ
}

func resident(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// proportional is the memory of a process with shared pages divided by who shares them.
func proportional(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// running finds the processes whose command line has all of the parts.
func running(parts ...string) []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
next:
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		line := strings.ReplaceAll(string(b), "\x00", " ")
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}
