package validate

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestConfined looks at a child from outside.
func TestConfined(t *testing.T) {
	t.Setenv("SELVEDGE_SECRET", "hunter2")
	v := validator(t, Config{Workers: 1})
	check(t, v, repoDir(t, baseRepo()))
	if len(v.pool.idle) != 1 {
		t.Fatalf("%d idle children", len(v.pool.idle))
	}
	proc := fmt.Sprintf("/proc/%d/", v.pool.idle[0].cmd.Process.Pid)
	read := func(name string) string {
		b, err := os.ReadFile(proc + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if env := read("environ"); env != "" {
		t.Errorf("environment: %q", env)
	}
	limits := read("limits")
	want := []string{`Max file size\s+0\s+0`, `Max core file size\s+0\s+0`, `Max open files\s+16\s+16`, `Max cpu time\s+\d+\s+\d+`}
	if !raceEnabled {
		want = append(want, `Max data size\s+805306368\s+805306368`, `Max address space\s+\d+\s+\d+`)
	}
	for _, w := range want {
		if !regexp.MustCompile(w).MatchString(limits) {
			t.Errorf("no %s in\n%s", w, limits)
		}
	}
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, err := os.Readlink(proc + "fd/" + fd.Name())
		if err == nil && !strings.HasPrefix(to, "pipe:") && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/sys/fs/cgroup/") {
			t.Errorf("open: %s → %s", fd.Name(), to)
		}
	}
	bound := false
	tasks, _ := filepath.Glob(proc + "task/*/status")
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		bound = bound || strings.Contains(string(b), "NoNewPrivs:\t1")
	}
	if !bound {
		t.Error("it may gain privileges")
	}
	if os.Geteuid() == 0 {
		own, _ := os.Readlink("/proc/self/ns/net")
		if its, err := os.Readlink(proc + "ns/net"); err != nil || its == own {
			t.Errorf("it shares the network: %s (%v)", its, err)
		}
	}
}
