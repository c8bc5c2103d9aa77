package containerd_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"selvedge/edge/apply"
)

// A firewall that is loaded anew takes published ports away, a network service the
// bridge: that shows, and a restart mends it.
func TestDamagedNetworkIsToldAndMended(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := port(t)
	s := b.spec("web", "main", published(p))
	for _, d := range []struct {
		name, fault string
		do          func(i apply.Instance)
	}{
		{"rules flushed", "iptables rules were removed", func(i apply.Instance) {
			rules := output(t, "iptables", "-w", "-t", "nat", "-S")
			chain := regexp.MustCompile(i.ID + `.* -j (CNI-DN-[0-9a-f]+)\n`).FindStringSubmatch(rules)
			if chain == nil {
				t.Fatalf("no rule for %s in\n%s", i.ID, rules)
			}
			output(t, "iptables", "-w", "-t", "nat", "-F", chain[1])
		}},
		{"bridge removed", "bridge " + b.conf.Bridge + " was removed", func(apply.Instance) { output(t, "ip", "link", "del", b.conf.Bridge) }},
	} {
		i := b.start(t, s)
		if now := b.one(t, s); now.Fault != "" {
			t.Fatalf("%s: %q before anything was done", d.name, now.Fault)
		}
		d.do(i)
		eventually(t, d.name+": it is told", func() bool { return strings.Contains(b.one(t, s).Fault, d.fault) })
		if err := b.Stop(t.Context(), i.ID, true); err != nil {
			t.Fatal(err)
		}
		b.start(t, s)
		answers(t, url(p, "/"), "version v1")
		if now := b.one(t, s); now.Fault != "" || now.State != apply.Running {
			t.Errorf("%s: %+v after a restart", d.name, now)
		}
	}
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
