package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"selvedge/schema/hubapi"
)

// terminalExec runs a command of this machine in a terminal, as a node does in a container.
func terminalExec(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	ctx := r.Context()
	pty, name, err := console.NewPty()
	if err != nil {
		return
	}
	defer pty.Close()
	tty, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return
	}
	defer tty.Close()
	argv := r.URL.Query()["command"]
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "PS1=> ", "TERM=dumb"}
	c.Stdin, c.Stdout, c.Stderr = tty, tty, tty
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	size := func(m hubapi.ExecMessage) { _ = pty.Resize(console.WinSize{Height: m.Rows, Width: m.Columns}) }
	rows, _ := strconv.ParseUint(r.URL.Query().Get("rows"), 10, 16)
	columns, _ := strconv.ParseUint(r.URL.Query().Get("columns"), 10, 16)
	size(hubapi.ExecMessage{Rows: uint16(rows), Columns: uint16(columns)})
	if c.Start() != nil {
		return
	}
	var out sync.WaitGroup
	out.Go(func() {
		b := make([]byte, 32<<10)
		for {
			n, err := pty.Read(b)
			if err != nil || conn.Write(ctx, websocket.MessageBinary, append([]byte{hubapi.ChannelOut}, b[:n]...)) != nil {
				return
			}
		}
	})
	go func() {
		for {
			kind, b, err := conn.Read(ctx)
			if err != nil {
				_ = c.Process.Kill()
				return
			}
			var m hubapi.ExecMessage
			if kind == websocket.MessageBinary {
				_, _ = pty.Write(b[1:])
			} else if json.Unmarshal(b, &m) == nil && m.Rows > 0 {
				size(m)
			}
		}
	}()
	_ = c.Wait()
	tty.Close()
	out.Wait()
	code := c.ProcessState.ExitCode()
	if s, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		code = 128 + int(s.Signal())
	}
	b, _ := json.Marshal(hubapi.ExecMessage{ExitCode: &code})
	_ = conn.Write(ctx, websocket.MessageText, b)
	_ = conn.Close(websocket.StatusNormalClosure, "")
}

// person sits at a terminal in which a command runs.
type person struct {
	t    *testing.T
	pty  console.Console
	tty  *os.File
	cmd  *exec.Cmd
	mu   sync.Mutex
	seen bytes.Buffer
	all  bytes.Buffer // also of what was waited for
	more chan struct{}
}

// at starts the command at a terminal of that size.
func at(t *testing.T, env []string, rows, columns uint16, args ...string) *person {
	t.Helper()
	return running(t, env, rows, columns, "selvedge", args...)
}

// running starts any program there.
func running(t *testing.T, env []string, rows, columns uint16, program string, args ...string) *person {
	t.Helper()
	pty, name, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, pty: pty, more: make(chan struct{}, 1)}
	t.Cleanup(func() { pty.Close() })
	if p.tty, err = os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.tty.Close() })
	p.resize(rows, columns)
	p.cmd = exec.CommandContext(t.Context(), program, args...)
	p.cmd.Env = env
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.tty, p.tty, p.tty
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 32<<10)
		for {
			n, err := pty.Read(b)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.seen.Write(b[:n])
			p.all.Write(b[:n])
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
		}
	}()
	return p
}

func (p *person) resize(rows, columns uint16) {
	if err := p.pty.Resize(console.WinSize{Height: rows, Width: columns}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) types(s string) {
	p.t.Helper()
	if _, err := p.pty.Write([]byte(s)); err != nil {
		p.t.Fatal(err)
	}
}

// sees waits for a text, and forgets what came up to its end.
func (p *person) sees(want string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	for {
		p.mu.Lock()
		if i := bytes.Index(p.seen.Bytes(), []byte(want)); i >= 0 {
			p.seen.Next(i + len(want))
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		select {
		case <-p.more:
		case <-ctx.Done():
			p.mu.Lock()
			defer p.mu.Unlock()
			p.t.Fatalf("waited for %q in vain; saw %q", want, p.seen.String())
		}
	}
}

func (p *person) ends(code int) {
	p.t.Helper()
	err := p.cmd.Wait()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		p.t.Fatal(err)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.t.Fatalf("exit code %d, want %d; saw %q", got, code, p.seen.String())
	}
}

// settings are the terminal's: raw or not.
func (p *person) settings() unix.Termios {
	p.t.Helper()
	s, err := unix.IoctlGetTermios(int(p.tty.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return *s
}

// TestExecTerminal sits at a real terminal, with a shell in another one behind a hub.
func TestExecTerminal(t *testing.T) {
	env := atHub(t)
	execShell := []string{"exec", "-it", "gw-1/shell", "--", "sh"}

	t.Run("a session", func(t *testing.T) {
		p := at(t, env, 24, 80, execShell...)
		p.sees("> ")
		p.types("stty size\r")
		p.sees("24 80\r\n")
		p.types("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.02; done; echo res''ized\r")
		p.resize(50, 132)
		p.sees("resized\r\n")
		p.types(`sh -c 'trap "echo cau""ght; exit" INT; echo be""gun; while :; do sleep 0.02; done'` + "\r")
		p.sees("begun")
		p.types("\x03")
		p.sees("caught")
		p.types("echo $((40 + 2)); cat\r") // and the client is still there
		p.sees("42\r\n")
		p.types("\x04")
		p.sees("> ")
		p.types("exit 7\r")
		p.ends(7)
	})
	t.Run("a large paste", func(t *testing.T) {
		p := at(t, env, 24, 80, execShell...)
		p.sees("> ")
		const size = 2 << 20
		p.types("stty raw -echo; echo rea''dy; head -c 2097152 | cksum; stty sane; exit\r")
		p.sees("ready")
		p.types(strings.Repeat("\x00\x03\x1b~", size/4)) // bytes that mean something to a terminal
		c := exec.CommandContext(t.Context(), "cksum")
		c.Stdin = strings.NewReader(strings.Repeat("\x00\x03\x1b~", size/4))
		want, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		p.sees(strings.TrimSpace(string(want)))
		p.ends(0)
	})
	t.Run("the terminal is given back", func(t *testing.T) {
		for _, end := range []struct {
			name string
			do   func(p *person)
			code int
		}{
			{"at the end", func(p *person) { p.types("exit\r") }, 0},
			{"when it is killed over there", func(p *person) { p.types("kill -9 $$\r") }, 137},
			{"when it is told to stop", func(p *person) { _ = p.cmd.Process.Signal(syscall.SIGTERM) }, interrupted},
		} {
			t.Run(end.name, func(t *testing.T) {
				p := at(t, env, 24, 80, execShell...)
				p.sees("> ")
				raw := p.settings()
				if raw.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
					t.Fatal("the terminal is not raw: keys do not get through")
				}
				end.do(p)
				p.ends(end.code)
				if s := p.settings(); s.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != unix.ICANON|unix.ECHO|unix.ISIG {
					t.Fatal("the terminal was left raw")
				}
			})
		}
	})
	t.Run("the reader of the output leaves", func(t *testing.T) {
		p := running(t, env, 24, 80, "sh", "-c", "selvedge exec -it gw-1/shell -- sh | head -c 1; exit 9")
		p.sees(">")
		p.types("echo one\r")
		p.ends(9)
		if p.settings().Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != unix.ICANON|unix.ECHO|unix.ISIG {
			t.Error("the terminal was left raw")
		}
	})
	t.Run("an error is readable", func(t *testing.T) {
		p := at(t, env, 24, 80, "exec", "-it", "gw-2/web", "--", "sh")
		p.sees("does not grant it")
		p.sees("\r\n")
		p.ends(3)
	})
}

// TestWatchOnTerminal stays in its place, and within the terminal.
func TestWatchOnTerminal(t *testing.T) {
	env := append(atHub(t), "TERM=xterm")
	p := at(t, env, 6, 40, "status", "--watch")
	p.sees("\x1b[H")
	p.sees("more lines; ")
	p.sees("\x1b[H")
	p.sees("2 of 3 nodes run")
	p.sees("the token expired")
	p.ends(3)

	p = at(t, append(env, "TERM=dumb"), 6, 40, "status", "--watch")
	p.sees("1 of 3 nodes run")
	p.sees("2 of 3 nodes run")
	p.sees("the token expired")
	p.ends(3)
	p.mu.Lock()
	defer p.mu.Unlock()
	if bytes.ContainsRune(p.all.Bytes(), 0x1b) {
		t.Errorf("a dumb terminal got %q", p.all.String())
	}
}

// TestQuestionInterrupted presses Ctrl-C where the command waits for somebody to type.
func TestQuestionInterrupted(t *testing.T) {
	env := append(atHub(t), "SELVEDGE_TOKEN=", "SELVEDGE_HUB=", "SELVEDGE_CA=")
	p := at(t, env, 24, 80, "login", "https://127.0.0.1:1")
	p.sees("Token for 127.0.0.1:1: ")
	p.types("\x03")
	p.ends(interrupted)
	if p.settings().Lflag&unix.ECHO == 0 {
		t.Error("the terminal shows nothing of what is typed any more")
	}
}

// TestInterrupted presses Ctrl-C at commands that are not done, and at ones that never are.
func TestInterrupted(t *testing.T) {
	env := atHub(t)
	for _, c := range []struct {
		sees string
		code int
		args []string
	}{
		{"begun", interrupted, []string{"exec", "gw-1/shell", "--", "sh", "-c", "echo begun; sleep 1000"}},
		{"say how", interrupted, []string{"logs", "gw-3/slow"}},
		{"say how", 0, []string{"logs", "-f", "gw-3/slow"}},
		{"say how", interrupted, []string{"logs", "gw-2/slow", "gw-3/slow"}},
		{"say how", 0, []string{"logs", "-f", "gw-2/slow", "gw-3/slow"}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			p := at(t, env, 24, 80, c.args...)
			p.sees(c.sees)
			p.types("\x03")
			p.ends(c.code)
		})
	}
}
