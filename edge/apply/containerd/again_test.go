package containerd_test

import (
	"errors"
	"os"
	"testing"

	"selvedge/edge/apply/containerd"
)

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
