package validate

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// selfPath starts this very program again, even after its file was replaced.
func selfPath() (string, error) { return "/proc/self/exe", nil }

// isolate gives a child, where the kernel allows, a network namespace with nothing in it.
func isolate(cmd *exec.Cmd) bool {
	if os.Geteuid() != 0 {
		return false
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWIPC}
	return true
}

// confine puts limits on this process that it cannot lift, before it reads anything.
// RLIMIT_NPROC is left alone: it counts threads of the whole user, and the Go
// runtime dies when it cannot start one. There is no program to start anyway: the
// evaluator has no code that does.
func confine(memory int64) error {
	closeInherited()
	// The runtime's first timer opens its poller: before there are no more descriptors to open.
	time.Sleep(time.Microsecond)
	runtime.GOMAXPROCS(2)    // one to evaluate, one to collect garbage
	debug.SetGCPercent(1000) // a workspace of usual size is evaluated without a collection
	debug.SetMemoryLimit(memory / 2)
	debug.SetMaxStack(64 << 20)
	switch _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno {
	case 0:
	case syscall.ENOTSUP: // with cgo no call reaches all threads: bind the evaluator's alone
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no new privileges: %w", err)
		}
	default:
		return fmt.Errorf("no new privileges: %w", errno)
	}
	// The runtime reserves address space that it never touches: the limit is on top of it.
	space := uint64(memory) + 256<<20 + vmSize()
	for _, l := range []struct {
		what     string
		resource int
		max      uint64
	}{
		{"memory", unix.RLIMIT_DATA, uint64(memory)},
		{"address space", unix.RLIMIT_AS, space},
		{"open files", unix.RLIMIT_NOFILE, 16},
		{"file size", unix.RLIMIT_FSIZE, 0},
		{"core dump", unix.RLIMIT_CORE, 0},
	} {
		if raceEnabled && (l.resource == unix.RLIMIT_AS || l.resource == unix.RLIMIT_DATA) {
			continue // the race detector maps terabytes
		}
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.max, Max: l.max}); err != nil {
			return fmt.Errorf("limit %s: %w", l.what, err)
		}
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGXCPU) // the runtime would ignore it
	go func() {
		<-c
		os.Exit(exitCPU)
	}()
	return nil
}

// closeInherited closes what the parent was given open by whoever started it: sockets
// of a service manager, say. The runtime's own descriptors stay.
func closeInherited() {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range fds {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(to, "anon_inode:") || strings.HasPrefix(to, "/sys/fs/cgroup/") {
			continue
		}
		_ = unix.Close(fd)
	}
}

// renewCPU allows this process another d of processor time.
func renewCPU(d time.Duration) error {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return fmt.Errorf("processor time used: %w", err)
	}
	used := time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	secs := uint64((used + d + time.Second - 1) / time.Second)
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CPU, &l); err != nil {
		return fmt.Errorf("limit processor time: %w", err)
	}
	l.Cur = min(secs, l.Max)
	if err := unix.Setrlimit(unix.RLIMIT_CPU, &l); err != nil {
		return fmt.Errorf("limit processor time: %w", err)
	}
	return nil
}

// capCPU sets the processor time of this process's whole life: past it the kernel kills.
func capCPU(d time.Duration) error {
	secs := uint64(d/time.Second) + 1
	if err := unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: secs, Max: secs}); err != nil {
		return fmt.Errorf("limit processor time: %w", err)
	}
	return nil
}

func vmSize() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 2 << 30
	}
	var pages uint64
	if _, err := fmt.Sscan(string(b), &pages); err != nil {
		return 2 << 30
	}
	return pages * uint64(os.Getpagesize())
}

// residentSize returns how much memory a process holds, 0 if that is unknown.
func residentSize(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var total, resident int64
	if _, err := fmt.Fscan(strings.NewReader(string(b)), &total, &resident); err != nil {
		return 0
	}
	return resident * int64(os.Getpagesize())
}
