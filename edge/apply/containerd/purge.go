package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
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

func (r *Runtime) dropShared() error {
	b, err := os.ReadFile(r.foreignChains())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing is known: leave them
	}
	if err != nil {
		return err
	}
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
		for line := range strings.Lines(out) {
			line = strings.TrimSpace(line)
			switch {
			case strings.HasPrefix(line, "-A "+c.name+" "):
				rules = append(rules, strings.TrimPrefix(line, "-A "+c.name+" "))
			case strings.HasSuffix(line, "-j "+c.name):
				into = append(into, line)
			}
		}
		if !strings.Contains(out, "-N "+c.name+"\n") || !slices.Equal(rules, c.empty) {
			continue // absent, or somebody uses it by now
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
