// Package script runs the testscripts beside a command.
//
// Scripts are the files testdata/script/*.txtar of the test's package, in the form of
// github.com/rogpeppe/go-internal/testscript, with the commands of Run besides. Each
// runs in a folder of its own, with HOME, caches and Git's settings inside of it. The
// test's main has to hand the commands to testscript.Main.
package script

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Password is COSIGN_PASSWORD in scripts.
const Password = "correct horse"

// Run runs the scripts. They know these commands besides those of testscript:
//
//	exits CODE COMMAND ARG…      run it; its exit code must be CODE
//	until PATTERN COMMAND ARG…   run it until its output matches, at most for a minute
//	seen PATTERN FILE            wait until the file holds a match, at most for a minute
//	free NAME                    set the variable to a free address of loopback
//	listen NAME                  set it to one that something listens on, until the script ends
//	fill FILE SIZE [BEGINNING]   write a file of that many bytes, '#' after the beginning
//	hex FILE DIGITS…             append bytes to a file
//	replace FILE OLD NEW         replace the one place in a file that says OLD
func Run(t *testing.T) { RunWith(t, func(*testscript.Env) error { return nil }) }

// RunWith is Run with files or variables put into each script's folder first.
func RunWith(t *testing.T, setup func(*testscript.Env) error) {
	t.Helper()
	if testing.Short() {
		t.Skip("scripts run whole commands, which takes a while")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		ContinueOnError:     true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, ".home"))
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, ".cache"))
			e.Setenv("COSIGN_PASSWORD", Password)
			e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			for _, who := range []string{"AUTHOR", "COMMITTER"} {
				e.Setenv("GIT_"+who+"_NAME", "Ana")
				e.Setenv("GIT_"+who+"_EMAIL", "ana@example.com")
			}
			if err := os.Mkdir(filepath.Join(e.WorkDir, ".home"), 0o700); err != nil {
				return err
			}
			return setup(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "until": until, "seen": seen, "free": free, "listen": listen, "fill": fill, "hex": appendHex, "replace": replace,
		},
	})
}

// patience is far above what anything here takes.
const patience = time.Minute

func need(ts *testscript.TestScript, neg bool, args []string, n int, usage string) {
	if neg || len(args) < n {
		ts.Fatalf("usage: %s", usage)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "exits CODE COMMAND ARG…")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "until PATTERN COMMAND ARG…")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...) // what it says is what counts
		if re.MatchString(ts.ReadFile("stdout") + ts.ReadFile("stderr")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("waited for %q in vain", args[0])
		}
	}
}

func seen(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "seen PATTERN FILE")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(ts.MkAbs(args[1]))
		if err == nil && re.Match(b) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s: waited for %q in vain:\n%s", args[1], args[0], b)
		}
	}
}

func open(ts *testscript.TestScript) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	return l
}

func free(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "free NAME")
	l := open(ts)
	ts.Setenv(args[0], l.Addr().String())
	ts.Check(l.Close())
}

func listen(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "listen NAME")
	l := open(ts)
	ts.Setenv(args[0], l.Addr().String())
	ts.Defer(func() { l.Close() })
}

func fill(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "fill FILE SIZE [BEGINNING]")
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	var b []byte
	if len(args) > 2 {
		b = append(b, args[2]+"\n"...)
	}
	b = append(b, bytes.Repeat([]byte("#"), max(size-len(b), 0))...)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
}

func appendHex(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "hex FILE DIGITS…")
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	ts.Check(err)
	defer f.Close()
	for _, digits := range args[1:] {
		b, err := hex.DecodeString(digits)
		ts.Check(err)
		_, err = f.Write(b)
		ts.Check(err)
	}
}

func replace(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, "replace FILE OLD NEW")
	name := ts.MkAbs(args[0])
	b, err := os.ReadFile(name)
	ts.Check(err)
	if n := bytes.Count(b, []byte(args[1])); n != 1 {
		ts.Fatalf("%s says %q %d times", args[0], args[1], n)
	}
	ts.Check(os.WriteFile(name, bytes.Replace(b, []byte(args[1]), []byte(args[2]), 1), 0o644))
}
