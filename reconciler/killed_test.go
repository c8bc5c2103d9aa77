package reconciler_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestEvaluatorsKilled holds that a commit whose evaluation was killed from outside, as by
// a kernel without memory, is taken once that ends, without another commit.
func TestEvaluatorsKilled(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs /proc to find the evaluators")
	}
	w := newWorld(t)
	w.push("one", nil)
	w.run()
	w.until("the push", func() bool { return w.value("gw-1") == "one" })

	// something that takes a while, to be found at it
	slow := strings.Replace(app("two"), "package fleet\n", "package fleet\n\nimport \"list\"\n\n_slow: [for i in list.Range(0, 4000, 1) {i * i}]\n", 1)
	w.push("two", map[string]string{app1: slow})
	w.until("a refusal", func() bool {
		for range 100 {
			killEvaluators(t)
		}
		s := w.r.Status()
		return len(s.Held) > 0 && strings.Contains(fmt.Sprint(s.Problems), "the evaluator died twice")
	})
	if w.value("gw-1") != "one" {
		t.Error("a killed evaluation changed a state")
	}
	w.until("the push, after all", func() bool { return w.value("gw-1") == "two" })
}

// killEvaluators kills the children of this process that evaluate.
func killEvaluators(t *testing.T) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it is gone
		}
		var state string
		var parent, pid int
		_, after, _ := bytes.Cut(stat, []byte(") "))
		if _, err := fmt.Sscan(string(after), &state, &parent); err != nil || parent != os.Getpid() {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if _, err := fmt.Sscan(string(stat), &pid); err == nil && bytes.Contains(line, []byte("evaluate-untrusted")) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
