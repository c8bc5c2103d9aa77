package containerd

import (
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// netCheck remembers how the networks of running containers looked at first, to notice
// that somebody took part of them away: a firewall that was loaded anew empties our
// chains, a network service removes our bridge. Only what was there once is missed, so a
// node whose rules look other than expected gets no restarts for it.
type netCheck struct {
	next time.Time
	seen map[string]*netLook // by container
}

type netLook struct {
	pid    uint32 // of the run
	bridge int    // index of the link
	rules  rules
	fault  string
	twice  bool // fault was found by two checks: no reload that was caught half-way
}

// rules are the parts of a container's network in the nat table.
type rules uint8

const (
	masqueradeRules rules = 1 << iota
	masqueradeJump
	portRules
	portJump
	allPortsJump // shared by all containers
)

// netPause is from one check to the next; a node with very many rules is asked more seldom.
const (
	netPause = 1500 * time.Millisecond
	netShare = 100 // of the time is spent on it at most
)

// damaged returns what is missing from the networks of running containers, given their
// processes by ID.
func (r *Runtime) damaged(running map[string]uint32) map[string]string {
	r.checking.Lock()
	defer r.checking.Unlock()
	n := &r.net
	if now := time.Now(); len(running) > 0 && (n.news(running) || !now.Before(n.next)) {
		n.check(r.c.Bridge, r.c.Namespace, running)
		n.next = time.Now().Add(max(netPause, netShare*time.Since(now)))
	}
	out := map[string]string{}
	for id, l := range n.seen {
		if running[id] == l.pid && l.twice {
			out[id] = l.fault
		}
	}
	return out
}

// news tells whether a container runs that was not looked at since its start.
func (n *netCheck) news(running map[string]uint32) bool {
	for id, pid := range running {
		if l := n.seen[id]; l == nil || l.pid != pid {
			return true
		}
	}
	return false
}

func (n *netCheck) check(bridge, namespace string, running map[string]uint32) {
	nat, err := iptables("-t", "nat", "-S")
	if err != nil {
		return // it tells nothing
	}
	index := 0
	if l, err := netlink.LinkByName(bridge); err == nil {
		index = l.Attrs().Index
	}
	seen := map[string]*netLook{}
	for id, pid := range running {
		now, was := netLook{pid: pid, bridge: index, rules: rulesOf(nat, namespace+"-"+id)}, n.seen[id]
		if was == nil || was.pid != pid {
			seen[id] = &now
			continue
		}
		fault := ""
		switch {
		case was.bridge != now.bridge:
			fault = "the bridge " + bridge + " was removed from this node"
		case was.rules&^now.rules != 0:
			fault = "its iptables rules were removed from this node"
		}
		was.twice = fault != "" && was.fault != ""
		was.fault = fault
		was.rules |= now.rules // a first look may have come too early
		seen[id] = was
	}
	n.seen = seen
}

// rulesOf finds a container's parts in the nat table as iptables lists it.
func rulesOf(nat, full string) rules {
	var out rules
	names := chainNames(full)
	for line := range strings.Lines(nat) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "-A "+names[0]+" "):
			out |= masqueradeRules
		case strings.HasSuffix(line, " -j "+names[0]):
			out |= masqueradeJump
		case strings.HasPrefix(line, "-A "+names[1]+" "):
			out |= portRules
		case strings.HasSuffix(line, " -j "+names[1]):
			out |= portJump
		}
	}
	if out&portJump != 0 {
		for line := range strings.Lines(nat) {
			if strings.HasPrefix(line, "-A PREROUTING ") && strings.HasSuffix(strings.TrimSpace(line), " -j CNI-HOSTPORT-DNAT") {
				out |= allPortsJump
			}
		}
	}
	return out
}
