package measure

import (
	"strings"
)

// inside are kinds of interfaces (DEVTYPE of their uevent) whose traffic passes another one
// of this node, which is counted, or never leaves it.
var inside = map[string]bool{"bridge": true, "vlan": true, "bond": true, "vxlan": true, "macvlan": true, "ipvlan": true,
	"wireguard": true, "geneve": true, "gretap": true, "team": true, "dummy": true}

// network adds up what went through the interfaces that lead out of the node.
func (m *Meter) network() (rx, tx int64) {
	list, err := m.proc.NetDev()
	if err != nil {
		return 0, 0
	}
	for name := range m.inner {
		if _, ok := list[name]; !ok {
			delete(m.inner, name) // the name may come back as another
		}
	}
	for name, d := range list {
		if name == "lo" || m.inner[name] {
			continue
		}
		if m.isInner(name) {
			m.inner[name] = true
			continue
		}
		rx, tx = rx+bounded(d.RxBytes), tx+bounded(d.TxBytes)
	}
	return rx, tx
}

// isInner tells containers' ends from the node's own: a veth is one if it is in a bridge, and
// may be the way out if the node itself is in a network namespace.
func (m *Meter) isInner(name string) bool {
	if strings.ContainsAny(name, "/") || name == "." || name == ".." {
		return true
	}
	dev := "sys/class/net/" + name
	if inside[m.devType(dev)] || m.text(dev, "tun_flags") != "" {
		return true
	}
	if m.text(dev, "ifindex") == m.text(dev, "iflink") {
		return false
	}
	return m.exists(dev, "master")
}
