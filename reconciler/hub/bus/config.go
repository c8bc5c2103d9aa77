package bus

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// Bounds of a server's stores: only small buckets are kept there.
const (
	maxDisk   = 4 << 30
	maxMemory = 64 << 20
)

// External describes one server of a cluster, for ServerConfig. Addresses are host:port.
type External struct {
	Name      string   // other than that of any other server
	Listen    string   // for hubs, and nodes without WebSocket
	WebSocket string   // for hubs that pass nodes on
	Cluster   string   // for other servers; "" with a single one
	Routes    []string // Cluster of all servers as they reach each other
	Store     string   // folder
	Cert, Key string   // PEM files for all three; "" leaves traffic plain: on a private network only
	CA        string   // PEM file with who signs certificates of the other servers
}

// ServerConfig returns the configuration file of an external nats-server (2.10 or newer) for
// the keys in dir, which is a Config.Dir. It holds the cluster's password, and no seed.
func ServerConfig(dir string, e External) (string, error) {
	k, err := loadKeys(filepath.Join(dir, "keys"))
	if err != nil {
		return "", err
	}
	var missing []error
	for what, text := range map[string]string{"a name": e.Name, "an address for hubs": e.Listen, "an address for WebSocket": e.WebSocket, "a folder": e.Store} {
		if text == "" {
			missing = append(missing, fmt.Errorf("bus server %q: give %s", e.Name, what))
		}
	}
	if (e.Cert == "") != (e.Key == "") {
		missing = append(missing, fmt.Errorf("bus server %q: a certificate needs its key, and a key its certificate", e.Name))
	}
	if e.Cluster == "" && len(e.Routes) > 0 {
		missing = append(missing, fmt.Errorf("bus server %q: routes to other servers need an address for them", e.Name))
	}
	for _, r := range append([]string{e.Listen, e.WebSocket, e.Cluster}, e.Routes...) {
		if _, _, err := net.SplitHostPort(r); r != "" && err != nil {
			missing = append(missing, fmt.Errorf("bus server %q: %w", e.Name, err))
		}
	}
	if err := errors.Join(missing...); err != nil {
		return "", err
	}
	return serverText(k, e), nil
}

// serverText is the configuration of any server of the fleet, embedded or not.
func serverText(k *keys, e External) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	q := strconv.Quote
	tls := ""
	if e.Cert != "" {
		tls = fmt.Sprintf("tls { cert_file: %s, key_file: %s, timeout: 10 }", q(e.Cert), q(e.Key))
	}
	line("server_name: %s", q(e.Name))
	line("listen: %s", q(e.Listen))
	if tls != "" {
		line("%s", tls)
	}
	line("max_payload: 1MB")
	line("max_pending: 64MB")
	line("max_connections: 65536")
	line("max_control_line: 4KB")
	line(`write_deadline: "10s"`)
	line(`ping_interval: "30s"`)
	line("ping_max: 2")
	// many nodes come back at once after a restart, and each checks signatures
	line("authorization { timeout: %d }", int(handshakeTime.Seconds()))
	line("operator: %s", q(k.operatorJWT))
	line("system_account: %s", k.systemID)
	line("resolver { type: full, dir: %s, allow_delete: false, interval: \"30s\", limit: 100 }", q(filepath.Join(e.Store, "accounts")))
	line("resolver_preload {\n  %s: %s\n  %s: %s\n}", k.systemID, q(k.systemJWT), k.accountID, q(k.accountJWT))
	// a stranger's account is refused without asking other servers for it
	line("resolver_pinned_accounts: [ %s, %s ]", k.systemID, k.accountID)
	// a bucket's value that was acknowledged is on disk, whatever happens to the power
	line("jetstream { store_dir: %s, max_mem: %d, max_file: %d, sync_interval: always }", q(e.Store), maxMemory, maxDisk)
	if e.WebSocket != "" {
		ws := "no_tls: true"
		if tls != "" {
			ws = tls
		}
		line("websocket {\n  listen: %s\n  %s\n  compression: false\n  handshake_timeout: \"10s\"\n  authorization { timeout: %d }\n}", q(e.WebSocket), ws, int(handshakeTime.Seconds()))
	}
	if e.Cluster == "" {
		return b.String()
	}
	line("cluster {\n  name: fleet\n  no_advertise: true\n  listen: %s\n  authorization { user: server, password: %s, timeout: 10 }", q(e.Cluster), q(k.routes))
	if tls != "" {
		ca := ""
		if e.CA != "" {
			ca = ", ca_file: " + q(e.CA)
		}
		line("  tls { cert_file: %s, key_file: %s%s, timeout: 10 }", q(e.Cert), q(e.Key), ca)
	}
	line("  routes: [")
	for _, r := range e.Routes {
		line("    %s", q("nats-route://server:"+k.routes+"@"+r))
	}
	line("  ]\n}")
	return b.String()
}
