package containerd

import (
	"context"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/nerdctl/v2/pkg/namestore"
	"github.com/containerd/nerdctl/v2/pkg/store"

	"selvedge/edge/apply"
)

// containerID is what nerdctl names containers: everything swept must look like it.
var containerID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// note remembers a container before it gets rules and ports, so that a later
// process can sweep after it even if this one dies.
func (r *Runtime) note(id string, k apply.Key) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.journal(), 0o700); err != nil {
		return fmt.Errorf("note container %.12s: %w", id, err)
	}
	if err := os.WriteFile(filepath.Join(r.journal(), id), b, 0o600); err != nil {
		return fmt.Errorf("note container %.12s: %w", id, err)
	}
	return nil
}

func (r *Runtime) journal() string { return filepath.Join(r.c.DataDir, "journal") }

// sweepOnce cleans up after earlier processes, at the first look.
func (r *Runtime) sweepOnce(ctx context.Context, c *client.Client, dataStore string) error {
	r.mu.Lock()
	done := r.swept
	r.mu.Unlock()
	if done {
		return nil
	}
	r.making.Lock()
	defer r.making.Unlock()
	list, err := c.ContainerService().List(ctx)
	if err != nil {
		return r.wrap("list containers", err)
	}
	alive := map[string]bool{}
	for _, x := range list {
		alive[x.ID] = true
	}
	var errs []error
	for _, dir := range []string{r.journal(), filepath.Join(dataStore, "containers", r.c.Namespace), filepath.Join(dataStore, "etchosts", r.c.Namespace), r.runFolder()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if containerID.MatchString(e.Name()) && !alive[e.Name()] {
				r.log.Info("sweeping what an interrupted run left", "id", e.Name())
				errs = append(errs, r.sweepOne(e.Name()))
			}
		}
	}
	names, err := os.ReadDir(filepath.Join(dataStore, "names", r.c.Namespace))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), ".") || n.IsDir() {
			continue
		}
		errs = append(errs, r.freeName(ctx, c, n.Name()))
	}
	errs = append(errs, r.sweepCommands(ctx, c, list))
	if err := errors.Join(errs...); err != nil {
		r.log.Warn("some leftovers stay", "error", err)
	}
	r.mu.Lock()
	r.swept = true
	r.mu.Unlock()
	return nil
}

// sweepGone cleans up after containers that somebody else deleted.
func (r *Runtime) sweepGone(ctx context.Context, c *client.Client, list []containers.Container) error {
	entries, err := os.ReadDir(r.journal())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	alive := map[string]bool{}
	for _, x := range list {
		alive[x.ID] = true
	}
	for _, e := range entries {
		if alive[e.Name()] || !containerID.MatchString(e.Name()) {
			continue
		}
		if !r.making.TryLock() {
			return err // something is being made or removed: at the next look
		}
		_, gerr := c.ContainerService().Get(ctx, e.Name())
		if errdefs.IsNotFound(gerr) {
			r.log.Info("sweeping after a container that was deleted from outside", "id", e.Name())
			err = errors.Join(err, r.sweepOne(e.Name()))
		}
		r.making.Unlock()
	}
	return err
}

// freeName releases a name whose container does not exist: a crash between taking
// the name and making the container leaves such a ghost.
func (r *Runtime) freeName(ctx context.Context, c *client.Client, name string) error {
	dataStore, err := r.store()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dataStore, "names", r.c.Namespace, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check the name %s: %w", name, err)
	}
	id := strings.TrimSpace(string(b))
	if id != "" {
		list, err := c.ContainerService().List(ctx, "id=="+strconv.Quote(id))
		if err != nil {
			return r.wrap("check the name "+name, err)
		}
		if len(list) > 0 {
			return nil
		}
	}
	ns, err := namestore.New(dataStore, r.c.Namespace)
	if err != nil {
		return fmt.Errorf("free the name %s: %w", name, err)
	}
	if err := ns.Release(name, id); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("free the name %s: %w", name, err)
	}
	return nil
}

// runFolder is where nerdctl keeps the pids of the processes that hold ports.
func (r *Runtime) runFolder() string { return filepath.Join("/run/nerdctl", r.c.Namespace) }

// sweepOne removes what nerdctl and the CNI plugins leave of a removed container.
// Everything is found by the container's own ID.
func (r *Runtime) sweepOne(id string) error {
	if !containerID.MatchString(id) {
		return fmt.Errorf("sweep %q: not a container's ID", id)
	}
	dataStore, err := r.store()
	if err != nil {
		return err
	}
	full := r.c.Namespace + "-" + id
	errs := []error{r.sweepNetwork(id)}
	folder := filepath.Join(dataStore, "containers", r.c.Namespace, id)
	awaitLogger(folder)
	if k, err := r.noted(id); err == nil { // its log is there still if others removed it
		if err := r.keep(folder, run{ID: id, App: k.App, Container: k.Container, Ended: time.Now()}); err != nil {
			r.log.Warn("the log of a removed container is not kept", "id", id, "error", err)
		}
	}
	for _, path := range []string{
		filepath.Join(r.runFolder(), id),
		folder,
		filepath.Join(dataStore, "etchosts", r.c.Namespace, id),
		cniResult(full),
		filepath.Join("/var/lib/cni/results", "cni-loopback-"+full+"-lo"),
	} {
		errs = append(errs, os.RemoveAll(path))
	}
	_ = os.Remove(r.runFolder()) // if it is empty
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep after container %.12s: %w", id, err)
	}
	if err := os.Remove(filepath.Join(r.journal(), id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep after container %.12s: %w", id, err)
	}
	return nil
}

// awaitLogger waits a moment for a container's logger to end: one that is writing the last
// lines, as after its shim was killed, would make the folder again.
func awaitLogger(dir string) {
	f, err := os.Open(filepath.Join(dir, loggerLock))
	if err != nil {
		return // there is none
	}
	defer f.Close()
	for range 40 {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// sweepNetwork gives back the ports, address and rules of a container that does not run.
func (r *Runtime) sweepNetwork(id string) error {
	full := r.c.Namespace + "-" + id
	return errors.Join(endReserver(r.reserver(id)), r.dropLease(full),
		again(func() error { return r.dropChains(full) }), again(r.dropForwards))
}

// reserverFile names the process that holds a container's ports, as nerdctl calls it.
const reserverFile = "port-reserver.pid"

// reserver is the file that names the process which holds a container's ports.
func (r *Runtime) reserver(id string) string {
	return filepath.Join(r.runFolder(), id, reserverFile)
}

// again tries a second time, from a new look: a late hook of the same container may
// have removed in between what the first look saw.
func again(do func() error) error {
	if do() == nil {
		return nil
	}
	return do()
}

// endReserver ends the process that held a container's ports, if it still does.
func endReserver(pidFile string) error {
	pid, err := reserving(pidFile)
	if err != nil || pid == 0 {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// reserving returns the process that a file names if it holds ports still, or 0.
func reserving(pidFile string) (pid int, err error) {
	b, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, nil // nothing that could be ended safely
	}
	// the number may be another's by now
	cmd, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || string(cmd) != "sleep\x00infinity\x00" {
		return 0, nil
	}
	return pid, nil
}

// dropLease frees the address that host-local noted for a container.
func (r *Runtime) dropLease(full string) error {
	held, err := leasesOf(filepath.Join(r.c.RunDir, "leases", networkName), full)
	for _, name := range held {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// leasesOf lists the files in which host-local notes a container's addresses.
func leasesOf(dir, full string) (held []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if b, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(b), full) {
			held = append(held, name)
		}
	}
	return held, err
}

// cniResult is where the CNI library notes the network that a container has.
func cniResult(full string) string {
	return filepath.Join("/var/lib/cni/results", networkName+"-"+full+"-eth0")
}

// dropForwards removes the firewall plugin's rules for addresses of our subnet that
// nobody leases: it forgets them when a container's network is gone before it is asked.
func (r *Runtime) dropForwards() error {
	out, err := iptables("-t", "filter", "-S")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		rule, ok := strings.CutPrefix(strings.TrimSpace(line), "-A CNI-FORWARD ")
		if !ok {
			continue
		}
		f := strings.Fields(rule) // -s 10.203.7.2/32 -j ACCEPT, or -d …
		p, err := netip.ParsePrefix(f[min(1, len(f)-1)])
		if err != nil || p.Bits() != 32 || !r.subnet.Contains(p.Addr()) {
			continue
		}
		if _, err := os.Stat(filepath.Join(r.c.RunDir, "leases", networkName, p.Addr().String())); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if _, err := iptables(append([]string{"-t", "filter", "-D", "CNI-FORWARD"}, words(rule)...)...); err != nil {
			return err
		}
	}
	return nil
}

// chainNames are the names that the bridge and portmap plugins give a container's
// chains (containernetworking/plugins pkg/utils: prefix and hash, 28 bytes).
func chainNames(full string) []string {
	sum := fmt.Sprintf("%x", sha512.Sum512([]byte(networkName+full)))
	return []string{"CNI-" + sum[:24], "CNI-DN-" + sum[:21]}
}

// dropChains removes the chains of a container from the nat table, with the rules
// that lead to them.
func (r *Runtime) dropChains(full string) error {
	out, err := iptables("-t", "nat", "-S")
	if err != nil {
		return err
	}
	for _, chain := range chainNames(full) {
		if !strings.Contains(out, "-N "+chain+"\n") {
			continue
		}
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "-A ") && strings.HasSuffix(strings.TrimSpace(line), "-j "+chain) {
				if _, err := iptables(append([]string{"-t", "nat", "-D"}, words(strings.TrimSpace(line)[3:])...)...); err != nil {
					return err
				}
			}
		}
		for _, do := range []string{"-F", "-X"} {
			if _, err := iptables("-t", "nat", do, chain); err != nil {
				return err
			}
		}
	}
	return nil
}

// words splits a rule as iptables prints it, with its quoted comments.
func words(s string) []string {
	var out []string
	var b strings.Builder
	quoted, some := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
			some = true
		case c == '"':
			quoted, some = !quoted, true
		case c == ' ' && !quoted:
			if some {
				out = append(out, b.String())
			}
			b.Reset()
			some = false
		default:
			b.WriteByte(c)
			some = true
		}
	}
	if some {
		out = append(out, b.String())
	}
	return out
}

func iptables(args ...string) (string, error) {
	out, err := exec.Command("iptables", append([]string{"-w", "5"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("iptables %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
