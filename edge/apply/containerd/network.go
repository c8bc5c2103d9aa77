package containerd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containerd/nerdctl/v2/pkg/labels"
	"github.com/vishvananda/netlink"

	"selvedge/internal/atomicfile"
)

// networkName names our one bridge network. It also stands in the comments of its
// iptables rules.
const networkName = "selvedge"

// confFile is its configuration, named as nerdctl expects it.
const confFile = "nerdctl-" + networkName + ".conflist"

// netConf is the network's configuration as the CNI plugins read it.
type netConf struct {
	CNIVersion string            `json:"cniVersion"`
	Name       string            `json:"name"`
	ID         string            `json:"nerdctlID"`
	Labels     map[string]string `json:"nerdctlLabels"`
	Plugins    []map[string]any  `json:"plugins"`
}

func (r *Runtime) netConfDir() string { return filepath.Join(r.c.DataDir, "cni", "net.d") }

func (r *Runtime) cniPath() string {
	if r.c.CNIPath != "" {
		return r.c.CNIPath
	}
	for _, dir := range []string{"/opt/cni/bin", "/usr/lib/cni"} {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			return dir
		}
	}
	return "/opt/cni/bin"
}

// prepareNetwork writes the network's configuration. The folder is ours alone, so
// that nerdctl's or anyone's default network is neither used nor changed. The
// subnet stays what it was first.
func (r *Runtime) prepareNetwork() error {
	for _, p := range []string{"bridge", "portmap", "firewall", "host-local", "loopback"} {
		if _, err := os.Stat(filepath.Join(r.cniPath(), p)); err != nil {
			return fmt.Errorf("CNI plugin %q is missing: %w; install containernetworking-plugins, or say where they are", p, err)
		}
	}
	if err := os.MkdirAll(r.netConfDir(), 0o755); err != nil {
		return fmt.Errorf("prepare the bridge network: %w", err)
	}
	name := filepath.Join(r.netConfDir(), confFile)
	subnet := r.c.Subnet
	if subnet == "" {
		subnet = storedSubnet(name)
	}
	if subnet == "" {
		s, err := freeSubnet(r.c.Bridge)
		if err != nil {
			return fmt.Errorf("prepare the bridge network: %w", err)
		}
		subnet = s
	}
	p, err := netip.ParsePrefix(subnet)
	if err != nil || !p.Addr().Is4() || p.Bits() > 29 {
		return fmt.Errorf("subnet %q of the bridge: give an IPv4 network such as 10.203.7.0/24", subnet)
	}
	r.subnet = p.Masked()
	b, err := json.MarshalIndent(r.conflist(r.subnet), "", "  ")
	if err != nil {
		return fmt.Errorf("prepare the bridge network: %w", err)
	}
	if old, err := os.ReadFile(name); err == nil && string(old) == string(b) {
		return nil
	}
	if err := atomicfile.Write(name, b, 0o644); err != nil {
		return fmt.Errorf("prepare the bridge network: %w", err)
	}
	return nil
}

func (r *Runtime) conflist(subnet netip.Prefix) netConf {
	id := sha256.Sum256([]byte(networkName))
	return netConf{
		CNIVersion: "1.0.0", Name: networkName, ID: hex.EncodeToString(id[:]),
		// so labelled, nerdctl takes it for its default and makes none
		Labels: map[string]string{labels.NerdctlDefaultNetwork: "true"},
		Plugins: []map[string]any{
			{"type": "bridge", "bridge": r.c.Bridge, "isGateway": true, "ipMasq": true, "hairpinMode": true,
				"forceAddress": true, // the subnet may have been set anew
				"ipam": map[string]any{"type": "host-local",
					// leases end with the containers that a reboot ends
					"dataDir": filepath.Join(r.c.RunDir, "leases"),
					"routes":  []any{map[string]any{"dst": "0.0.0.0/0"}},
					"ranges":  []any{[]any{map[string]any{"subnet": subnet.String(), "gateway": subnet.Addr().Next().String()}}}}},
			{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
			// lets traffic pass where another program (Docker, a distribution's firewall) drops what it does not know
			{"type": "firewall"},
		},
	}
}

// storedSubnet returns the subnet of an earlier start.
func storedSubnet(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	if i := ipamOf(b); i != nil && len(i.Ranges) > 0 && len(i.Ranges[0]) > 0 {
		return i.Ranges[0][0].Subnet
	}
	return ""
}

// ipam is what is read again of a network's configuration.
type ipam struct {
	DataDir string
	Ranges  [][]struct{ Subnet string }
}

func ipamOf(conf []byte) *ipam {
	var c struct{ Plugins []struct{ IPAM ipam } }
	if json.Unmarshal(conf, &c) != nil || len(c.Plugins) == 0 {
		return nil
	}
	return &c.Plugins[0].IPAM
}

// leaseDir is where the addresses of a network are noted; empty if that cannot be told.
func leaseDir(conf []byte) string {
	if i := ipamOf(conf); i != nil {
		return i.DataDir
	}
	return ""
}

// freeSubnet picks a /24 of 10.203.0.0/16 that no address or route of the node
// overlaps, beginning at a place that differs from bridge to bridge.
func freeSubnet(bridge string) (string, error) {
	used, err := usedPrefixes()
	if err != nil {
		return "", err
	}
	if p, ok := bridgeSubnet(bridge); ok {
		return p, nil
	}
	h := fnv.New32a()
	h.Write([]byte(bridge))
	first := h.Sum32()
	for n := range uint32(256) {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 203, byte(first + n), 0}), 24)
		free := true
		for _, u := range used {
			free = free && !p.Overlaps(u)
		}
		if free {
			return p.String(), nil
		}
	}
	return "", errors.New("every /24 of 10.203.0.0/16 is in use on this node; set the subnet of the bridge")
}

// bridgeSubnet returns the /24 of a bridge that is there already: ours, of an agent whose
// directory was since removed.
func bridgeSubnet(bridge string) (string, bool) {
	l, err := netlink.LinkByName(bridge)
	if err != nil {
		return "", false
	}
	addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 {
		return "", false
	}
	p, err := netip.ParsePrefix(addrs[0].IPNet.String())
	if err != nil || p.Bits() != 24 || !ours.Contains(p.Addr()) {
		return "", false
	}
	return p.Masked().String(), true
}

// ours is where subnets are chosen from.
var ours = netip.MustParsePrefix("10.203.0.0/16")

func usedPrefixes() ([]netip.Prefix, error) {
	var out []netip.Prefix
	add := func(s string) {
		if p, err := netip.ParsePrefix(s); err == nil && p.Bits() > 0 {
			out = append(out, p.Masked())
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		add(a.IPNet.String())
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, rt := range routes {
		if rt.Dst != nil {
			add(rt.Dst.String())
		}
	}
	return out, nil
}

// address returns where a container's ports answer from this node.
func address(dataStore, namespace, id, network string) string {
	switch network {
	case "host":
		return "127.0.0.1"
	case "none":
		return ""
	}
	b, err := os.ReadFile(filepath.Join(dataStore, "etchosts", namespace, id, "meta.json"))
	if errors.Is(err, fs.ErrNotExist) || err != nil {
		return ""
	}
	var m struct {
		Networks map[string]struct {
			IPs []struct{ Address string } `json:"ips"`
		}
	}
	if json.Unmarshal(b, &m) != nil {
		return ""
	}
	for _, n := range m.Networks {
		for _, ip := range n.IPs {
			if p, err := netip.ParsePrefix(ip.Address); err == nil {
				return p.Addr().String()
			}
		}
	}
	return ""
}
