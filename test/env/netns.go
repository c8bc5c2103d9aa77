package env

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
)

// Netns is a network namespace with one link to this one: a machine apart, as far as the
// network is concerned.
type Netns struct {
	Name string
	Here string // address of this end of the link
	Far  string // address of the other end
	link string // name of this end
}

// NewNetns makes a network namespace, linked to this one. Close it after use.
func NewNetns(name string) (*Netns, error) {
	for range 20 {
		net24 := fmt.Sprintf("10.%d.%d.", 180+rand.IntN(70), rand.IntN(256))
		n := &Netns{Name: name, Here: net24 + "1", Far: net24 + "2", link: strings.TrimSuffix(("sv-" + name)[:min(15, len(name)+3)], "-")}
		if taken(net.ParseIP(n.Here)) {
			continue
		}
		for _, args := range [][]string{
			{"netns", "add", name},
			{"link", "add", n.link, "type", "veth", "peer", "name", "eth0", "netns", name},
			{"addr", "add", n.Here + "/30", "dev", n.link},
			{"link", "set", n.link, "up"},
			{"-n", name, "addr", "add", n.Far + "/30", "dev", "eth0"},
			{"-n", name, "link", "set", "lo", "up"},
			{"-n", name, "link", "set", "eth0", "up"},
			{"-n", name, "route", "add", "default", "via", n.Here},
		} {
			if err := ip(args...); err != nil {
				return nil, errors.Join(err, n.Close())
			}
		}
		return n, nil
	}
	return nil, errors.New("no free network for a link")
}

// taken tells whether an address is in a network that this machine is in already.
func taken(addr net.IP) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.Contains(addr) {
			return true
		}
	}
	return false
}

// Cut takes the link down.
func (n *Netns) Cut() error { return ip("link", "set", n.link, "down") }

// Mend brings the link up again.
func (n *Netns) Mend() error { return ip("link", "set", n.link, "up") }

// Close removes the namespace with its link; what runs in it must have ended.
func (n *Netns) Close() error {
	_ = ip("link", "del", n.link) // goes with the namespace otherwise
	return ip("netns", "del", n.Name)
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// InNetns is a command that runs in a network namespace, with the file systems of this one
// (ip-netns(8) would hide the cgroups). An empty name is the namespace of this process.
func InNetns(netns, name string, args ...string) *exec.Cmd {
	if netns == "" {
		return exec.Command(name, args...)
	}
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + netns, name}, args...)...)
}

// Link is the name of this end of the link.
func (n *Netns) Link() string { return n.link }
