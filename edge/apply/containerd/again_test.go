package containerd_test

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"selvedge/edge/apply"
	"selvedge/edge/apply/containerd"
)

// A command whose agent was killed ends with the return of the agent, and no other: not a person's,
// and none of the agent's own.
func TestCommandsOfAKilledAgent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	i := b.start(t, b.spec("tool", "main", runs(b.shellImage(t), "idle")))
	var out screen
	ended := make(chan error, 1)
	go func() {
		_, err := b.ExecStream(t.Context(), i.ID, apply.ExecOptions{Command: []string{"/hello", "child", "mark-of-killed", "stay"}, Stdout: &out})
		ended <- err
	}()
	out.shows(t, "idles")
	person := exec.CommandContext(t.Context(), "ctr", "--address", b.daemon.Address, "-n", b.conf.Namespace, "task", "exec", "--exec-id", "mine", i.ID, "/hello", "idle", "mark-of-person")
	if err := person.Start(); err != nil {
		t.Fatal(err)
	}
	defer person.Wait()
	eventually(t, "the person's command", func() bool { return running("idle\x00mark-of-person") })
	if b.one(t, b.spec("tool", "main")).State != apply.Running || !running("idle\x00mark-of-killed") {
		t.Error("an agent that looks ends its own command")
	}
	r := containerd.New(b.conf) // as after a crash
	defer r.Close()
	if _, err := r.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the command is gone", func() bool { return !running("idle\x00mark-of-killed") })
	<-ended
	if !running("idle\x00mark-of-person") || b.one(t, b.spec("tool", "main")).State != apply.Running {
		t.Error("more than that was ended")
	}
	b.stop(t, i, false)
}

// An agent that was set up anew finds the bridge of the one before it, and uses it.
func TestBridgeOfAnEarlierAgent(t *testing.T) {
	b := newBed(t)
	i := b.start(t, b.spec("web", "main", published(port(t))))
	b.stop(t, i, false)
	for _, subnet := range []string{"", "10.203.251.0/24"} { // chosen, and set
		anew := b.conf
		anew.DataDir, anew.RunDir, anew.Subnet = b.conf.DataDir+"-anew"+subnet[:min(1, len(subnet))], b.conf.RunDir+"-anew", subnet
		r := containerd.New(anew)
		second := &bed{Runtime: r, conf: anew, daemon: b.daemon, host: b.host, image: b.image}
		p := port(t)
		i := second.start(t, second.spec("web", "main", published(p)))
		get(t, url(p, "/"))
		second.stop(t, i, false)
		if err := errors.Join(r.Close(), os.RemoveAll(anew.RunDir)); err != nil {
			t.Error(err)
		}
	}
}
