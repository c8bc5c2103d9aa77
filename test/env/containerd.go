package env

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Daemon is a containerd of our own.
type Daemon struct {
	Address string // its socket
	Dir     string // root, state and log
	Netns   string // network namespace (ip-netns(8)) that it and its containers live in; empty: this one
	cmd     *exec.Cmd
	ended   <-chan struct{}
}

// CanContainerd says why this machine cannot run one, or nil.
func CanContainerd() error {
	if os.Geteuid() != 0 {
		return errors.New("containers need root: run as root")
	}
	for _, bin := range []string{"containerd", "runc", "iptables", "containerd-shim-runc-v2"} {
		if _, err := exec.LookPath(bin); err != nil {
			return fmt.Errorf("%w: run make deps", err)
		}
	}
	return nil
}

// Containerd starts a private containerd for a test.
func Containerd(t testing.TB) *Daemon {
	t.Helper()
	Need(t, CanContainerd())
	d, err := StartContainerd()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(d.Dir, "log"))
			t.Logf("containerd's log ends with:\n%s", b[max(len(b)-4000, 0):])
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// StartContainerd starts a private containerd below the temporary folder. Stop it after use.
func StartContainerd() (*Daemon, error) { return StartContainerdIn("") }

// StartContainerdIn is StartContainerd in a network namespace.
func StartContainerdIn(netns string) (*Daemon, error) {
	// a socket's path is short: t.TempDir would be too long
	dir, err := os.MkdirTemp("", "selvedge-ctd-")
	if err != nil {
		return nil, err
	}
	d := &Daemon{Address: filepath.Join(dir, "c.sock"), Dir: dir, Netns: netns}
	conf := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = %q
[ttrpc]
address = %q
[plugins."io.containerd.internal.v1.restart"]
interval = "1s"
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), d.Address, d.Address+".ttrpc")
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	if err := d.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return d, nil
}

// Start starts a stopped daemon and waits until it answers.
func (d *Daemon) Start() error {
	log, err := os.OpenFile(filepath.Join(d.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = InNetns(d.Netns, "containerd", "--config", filepath.Join(d.Dir, "config.toml"))
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if d.ended, err = Start(d.cmd); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		c, err := client.New(d.Address)
		if err == nil {
			_, err = c.Version(ctx)
			err = errors.Join(err, c.Close())
		}
		if err == nil {
			return nil
		}
		select {
		case <-d.ended:
			b, _ := os.ReadFile(filepath.Join(d.Dir, "log"))
			return fmt.Errorf("containerd ended: %s", bytes.TrimSpace(b[max(len(b)-1000, 0):]))
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("containerd does not answer: %w", err), d.Halt())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the daemon alone without a chance to tidy up: its containers go on.
func (d *Daemon) Kill() error {
	err := d.cmd.Process.Kill()
	<-d.ended
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Halt ends the daemon alone: its containers go on.
func (d *Daemon) Halt() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.ended:
		return nil
	case <-time.After(10 * time.Second):
		err := d.cmd.Process.Kill()
		<-d.ended
		return err
	}
}

// Freeze stops the daemon alone where it is, until Thaw: it takes connections and answers nothing.
func (d *Daemon) Freeze() error {
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if stopped(d.cmd.Process.Pid) { // some of its threads answer still for a moment
			return nil
		}
	}
	return errors.New("the daemon does not stop where it is")
}

// stopped tells whether all threads of a process are, see proc_pid_stat(5).
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, t := range threads {
		b, rerr := os.ReadFile(t)
		_, state, _ := strings.Cut(string(b), ") ") // behind the program's name
		if rerr != nil || !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return err == nil && len(threads) > 0
}

// Thaw lets a frozen daemon go on.
func (d *Daemon) Thaw() error { return d.cmd.Process.Signal(syscall.SIGCONT) }

// Stop ends all its containers and the daemon, and removes its files.
func (d *Daemon) Stop() error {
	var errs []error
	select {
	case <-d.ended:
		errs = append(errs, d.Start())
	default:
	}
	errs = append(errs, d.clear(), d.Halt(), d.endShims(), d.unmount(), os.RemoveAll(d.Dir))
	return errors.Join(errs...)
}

// clear removes the containers of every namespace.
func (d *Daemon) clear() error {
	c, err := client.New(d.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	list, err := c.NamespaceService().List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, ns := range list {
		nctx := namespaces.WithNamespace(ctx, ns)
		containers, err := c.Containers(nctx)
		errs = append(errs, err)
		for _, x := range containers {
			if t, err := x.Task(nctx, nil); err == nil {
				_, err = t.Delete(nctx, client.WithProcessKill)
				errs = append(errs, unlessGone(err))
			}
			errs = append(errs, unlessGone(x.Delete(nctx, client.WithSnapshotCleanup)))
		}
	}
	return errors.Join(errs...)
}

// unlessGone is err, unless somebody else has removed what was to be removed.
func unlessGone(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// endShims ends shims that a killed daemon forgot.
func (d *Daemon) endShims() error {
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		args := strings.Split(string(b), "\x00")
		if err != nil || !strings.Contains(args[0], "containerd-shim") || !slices.Contains(args, d.Address) {
			continue // it has ended, or is another's
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
	}
	return nil
}

// unmount undoes mounts that a killed shim left.
func (d *Daemon) unmount() error {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], d.Dir+"/") {
			errs = append(errs, unix.Unmount(f[1], unix.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}
