package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Purge removes every container of ours, then what only they needed: the bridge, and
// the CNI plugins' shared chains if nobody had them before us and they are empty. It
// is for leaving a node; images and volumes stay.
func (r *Runtime) Purge(ctx context.Context) error {
	list, err := r.Observe(ctx)
	if err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	var errs []error
	for _, i := range list {
		errs = append(errs, r.Stop(ctx, i.ID, false))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	if err := os.RemoveAll(r.endedDir()); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	if l, err := netlink.LinkByName(r.c.Bridge); err == nil {
		if err := netlink.LinkDel(l); err != nil {
			return fmt.Errorf("purge: remove bridge %s: %w", r.c.Bridge, err)
		}
	}
	if err := r.dropShared(); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	return nil
}

// sharedChains are made by the CNI plugins once a node, whoever comes first; with
// the table and the rules that an unused one holds.
var sharedChains = []struct {
	table, name string
	empty       []string
}{
	{"nat", "CNI-HOSTPORT-DNAT", nil},
	{"nat", "CNI-HOSTPORT-MASQ", []string{"-m mark --mark 0x2000/0x2000 -j MASQUERADE"}},
	{"nat", "CNI-HOSTPORT-SETMARK", []string{`-m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000`}},
	{"filter", "CNI-FORWARD", []string{`-m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN`}},
	{"filter", "CNI-ADMIN", nil},
}

// foreignChains is the file that says which shared chains were there before ours.
// It lies in RunDir: a reboot clears both.
func (r *Runtime) foreignChains() string { return filepath.Join(r.c.RunDir, "foreign-chains") }

// noteShared writes down, before anything of ours, which shared chains exist.
func (r *Runtime) noteShared() error {
	if _, err := os.Stat(r.foreignChains()); err == nil {
		return nil
	}
	var have []string
	for _, table := range []string{"nat", "filter"} {
		out, err := iptables("-t", table, "-S")
		if err != nil {
			return err
		}
		for _, c := range sharedChains {
			if c.table == table && strings.Contains(out, "-N "+c.name+"\n") {
				have = append(have, c.name)
			}
		}
	}
	if err := os.MkdirAll(r.c.RunDir, 0o755); err != nil {
		return fmt.Errorf("note the chains of others: %w", err)
	}
	if err := os.WriteFile(r.foreignChains(), []byte(strings.Join(have, "\n")), 0o600); err != nil {
		return fmt.Errorf("note the chains of others: %w", err)
	}
	return nil
}

var builtin = regexp.MustCompile(`^-A (PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING) `)

func hasRules(out, chain string) bool { return strings.Contains(out, "\n-A "+chain+" ") }

// chainsFile is locked by whoever sets up a container's network, shared, and by whoever
// removes what all of them share.
const chainsFile = "/run/selvedge-cni.lock"

func lockChains(how int) (*os.File, error) {
	f, err := os.OpenFile(chainsFile, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", chainsFile, err), f.Close())
	}
	return f, nil
}

func (r *Runtime) dropShared() error {
	b, err := os.ReadFile(r.foreignChains())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing is known: leave them
	}
	if err != nil {
		return err
	}
	lock, err := lockChains(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	foreign := strings.Split(string(b), "\n")
	for _, c := range sharedChains {
		if slices.Contains(foreign, c.name) {
			continue
		}
		out, err := iptables("-t", c.table, "-S")
		if err != nil {
			return err
		}
		var into, rules []string
		used := c.table == "nat" && hasRules(out, "CNI-HOSTPORT-DNAT") // two of them hold the same rules, used or not
		for line := range strings.Lines(out) {
			line = strings.TrimSpace(line)
			switch {
			case strings.HasPrefix(line, "-A "+c.name+" "):
				rules = append(rules, strings.TrimPrefix(line, "-A "+c.name+" "))
			case strings.HasSuffix(line, "-j "+c.name):
				into = append(into, line)
				used = used || !builtin.MatchString(line) // from a chain of some container
			}
		}
		if !strings.Contains(out, "-N "+c.name+"\n") || !slices.Equal(rules, c.empty) || used {
			continue // absent, or somebody uses it by now: another agent, or anybody's CNI
		}
		for _, line := range into {
			if _, err := iptables(append([]string{"-t", c.table, "-D"}, words(line[3:])...)...); err != nil {
				return err
			}
		}
		for _, do := range []string{"-F", "-X"} {
			if _, err := iptables("-t", c.table, do, c.name); err != nil {
				return err
			}
		}
	}
	return nil
}
