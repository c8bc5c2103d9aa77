package containerd_test

import (
	"os/exec"
	"testing"

	"selvedge/edge/apply"
	"selvedge/edge/apply/runtimetest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	runtimetest.Run(t, runtimetest.Bed{Runtime: b.Runtime, Image: b.image,
		Missing: b.host + "/nothing@sha256:0000000000000000000000000000000000000000000000000000000000000000",
		Kill:    func(t *testing.T, i apply.Instance) { b.ctr(t, "tasks", "kill", "-s", "SIGKILL", i.ID) },
		Pause:   func(t *testing.T, i apply.Instance) { b.ctr(t, "tasks", "pause", i.ID) },
		Delete: func(t *testing.T, i apply.Instance) {
			b.ctr(t, "tasks", "delete", "-f", i.ID)
			b.ctr(t, "containers", "delete", i.ID)
		},
	})
}

// ctr is another person's hand on our containers.
func (b *bed) ctr(t *testing.T, args ...string) string {
	t.Helper()
	return b.ctrIn(t, b.conf.Namespace, args...)
}

func (b *bed) ctrIn(t *testing.T, namespace string, args ...string) string {
	t.Helper()
	out, err := exec.Command("ctr", append([]string{"-a", b.daemon.Address, "-n", namespace}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ctr %v: %v: %s", args, err, out)
	}
	return string(out)
}
