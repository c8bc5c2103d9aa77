package resolve

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"selvedge/schema/fleet"
)

// signals are those of Linux by name; apps are asked to end by one of them.
var signals = strings.Fields(`SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGIOT SIGBUS SIGFPE SIGKILL
	SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCLD SIGCONT SIGSTOP SIGTSTP SIGTTIN
	SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPOLL SIGPWR SIGSYS SIGRTMIN SIGRTMAX`)

// maxID is the largest user and group that runtimes take.
const maxID = 1<<31 - 1

// sane refuses what has the right shape and that no node could run.
func sane(a *fleet.App) error {
	for _, name := range slices.Sorted(maps.Keys(a.Container)) {
		c := a.Container[name]
		if err := saneContainer(&c); err != nil {
			return fmt.Errorf("container %q: %w", name, err)
		}
	}
	return nil
}

func saneContainer(c *fleet.Container) error {
	for r := range strings.SplitSeq(c.Resources.CPUSet, ",") {
		first, last, ok := strings.Cut(r, "-")
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if ok && err1 == nil && err2 == nil && from > to {
			return fmt.Errorf("resources.cpuset: %s ends before it begins; write %d-%d", clip(r), to, from)
		}
	}
	for id := range strings.SplitSeq(c.User, ":") {
		if n, err := strconv.ParseUint(id, 10, 64); err == nil && n > maxID {
			return fmt.Errorf("user: %s is beyond %d, the largest that there is; choose a smaller one", clip(id), maxID)
		}
	}
	if s := c.Stop.Signal; s != "" && !slices.Contains(signals, s) {
		return fmt.Errorf("stop.signal: unknown signal %q; write one such as SIGTERM, SIGINT or SIGUSR1", clip(s))
	}
	return nil
}

// idle warns of what an app says in this workspace and what reaches no node: a label
// that is misspelt is found by that. What is inherited may be meant for others.
func (r *renderer) idle(a *app) {
	if r.inherited("app", a.name) {
		return
	}
	p := a.fleet.Placement
	switch {
	case len(p.Selector) == 0 && len(p.Nodes) == 0:
		r.warnf("app", a.name, "it runs nowhere; set placement.selector or placement.nodes")
	case len(p.Nodes) == 0 && !r.matches(p.Selector):
		r.warnf("app", a.name, "placement.selector matches no node of this workspace; check it against the labels of the nodes")
	}
	for i, o := range a.fleet.Override {
		if len(o.Selector) == 0 && len(o.Nodes) == 0 {
			r.warnf("app", a.name, "override[%d]: it changes nothing; set its selector or its nodes", i)
		}
	}
}

// matches reports whether a selector matches a node of the workspace.
func (r *renderer) matches(s fleet.Selector) bool {
	for _, n := range r.unit.Node {
		if s.Matches(n.Labels) {
			return true
		}
	}
	return false
}
