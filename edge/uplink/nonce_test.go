package uplink_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"selvedge/edge/uplink"
	"selvedge/schema/wire"
)

// Whoever answers as a bus chooses what the node's key signs: a nonce, and nothing that means
// something elsewhere.
func TestSignsNoncesOnly(t *testing.T) {
	const other = "https://another-hub.example"
	const good = "Xk3-_0aBcDeFgHi"
	lines := make(chan string, 100) // what the node says, "" if nothing
	next := make(chan string, 100)
	r := newRig(t, func(r *rig, _ *uplink.Config) {
		r.hub.Before = func(w http.ResponseWriter, q *http.Request) bool {
			if q.URL.Path != wire.PathBus {
				return false
			}
			c, err := websocket.Accept(w, q, nil)
			if err != nil {
				return true
			}
			defer c.CloseNow()
			info, _ := json.Marshal(map[string]any{"server_id": "x", "version": "2.15.2", "proto": 1, "headers": true, "auth_required": true, "max_payload": 1 << 20, "nonce": <-next})
			nc := websocket.NetConn(q.Context(), c, websocket.MessageBinary)
			nc.Write([]byte("INFO " + string(info) + "\r\n"))
			line, _ := bufio.NewReader(nc).ReadString('\n')
			lines <- line
			return true
		}
	})
	said := func(nonce string) string {
		next <- nonce
		select {
		case line := <-lines:
			return line
		case <-time.After(patience):
			t.Fatal("the node does not come")
			panic("unreachable")
		}
	}
	for _, nonce := range []string{
		string(wire.TokenMessage(other, "nonce")),
		string(wire.JoinMessage(other, wire.JoinRequest{Token: "t", PublicKey: "U"})),
		string(wire.Introduction{}.Message()),
		"{}", good + "\n", "short", strings.Repeat("a", 65),
	} {
		if line := said(nonce); line != "" {
			t.Errorf("%q is signed: %s", nonce, line)
		}
	}
	r.until("the cause to be told", func() bool { return strings.Contains(r.up.Link().Why, "no nonce") })
	// positive control
	var m struct{ Sig string }
	json.Unmarshal([]byte(strings.TrimPrefix(said(good), "CONNECT ")), &m)
	signature, err := base64.RawURLEncoding.DecodeString(m.Sig)
	if err != nil || r.key.Verify([]byte(good), signature) != nil {
		t.Errorf("a nonce is not signed: %q, %v", m.Sig, err)
	}
	close(next)
}
