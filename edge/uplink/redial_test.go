package uplink

import (
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
)

func TestRedial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hubs []nats.Server
		for _, h := range []string{"a", "b"} {
			hubs = append(hubs, nats.Server{URL: &url.URL{Scheme: "wss", Host: h}})
		}
		r := redial{most: 30 * time.Second}
		tried, longest := "", time.Duration(0)
		for n := range 40 {
			s, pause := r.next(hubs, nats.ServerInfo{})
			if pause < 50*time.Millisecond || pause > 31*time.Second || n == 0 && pause > 3*time.Second {
				t.Errorf("a pause of %v after %d attempts", pause, n)
			}
			tried, longest = tried+s.URL.Host, max(longest, pause)
			time.Sleep(pause)
			r.connected(s.URL.String()) // for a moment
		}
		if tried[:4] != "abab" || longest < 5*time.Second {
			t.Errorf("tried %s, with pauses of %v at most", tried, longest)
		}
		r.connected("wss://b")
		time.Sleep(2 * time.Minute)
		if s, pause := r.next(hubs, nats.ServerInfo{}); s.URL.Host != "a" || pause > 3*time.Second {
			t.Errorf("after a connection that stood: %s, %v", s.URL.Host, pause)
		}
		r.connected("wss://b")
		r.again()
		if s, pause := r.next(hubs, nats.ServerInfo{}); s.URL.Host != "b" || pause != 0 {
			t.Errorf("on purpose: %s, %v", s.URL.Host, pause)
		}
		if s, pause := r.next(hubs, nats.ServerInfo{}); s.URL.Host != "a" || pause == 0 {
			t.Errorf("and after that: %s, %v", s.URL.Host, pause)
		}
	})
}
