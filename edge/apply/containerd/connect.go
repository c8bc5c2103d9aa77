package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	gocni "github.com/containerd/go-cni"
	"github.com/containerd/nerdctl/v2/pkg/apparmorutil"
	"github.com/containerd/nerdctl/v2/pkg/defaults"
	"github.com/containerd/nerdctl/v2/pkg/dnsutil/hostsstore"
	"github.com/containerd/nerdctl/v2/pkg/labels"
	"github.com/containerd/nerdctl/v2/pkg/namestore"
	"github.com/containerd/nerdctl/v2/pkg/ocihook/state"
	"github.com/containerd/nerdctl/v2/pkg/portutil"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// connection is one container that gets its network: what nerdctl's createRuntime hook
// does for a container of our bridge, but for clearing a network first, which takes as
// long as making one. It is for containers that have none to clear.
type connection struct {
	state     specs.State
	dataStore string
	cniPath   string
	confDir   string
	conf      []byte // of the network
}

// unconnected returns the connection of a container on our bridge that has no network
// yet; nil for all others.
func unconnected(s specs.State, dataStore, cniPath, confDir string) *connection {
	var networks []string
	if json.Unmarshal([]byte(s.Annotations[labels.Networks]), &networks) != nil || !slices.Equal(networks, []string{networkName}) {
		return nil
	}
	if s.Pid == 0 || s.Annotations[labels.StateDir] == "" || s.Annotations[labels.PIDFile] != "" {
		return nil
	}
	c := &connection{state: s, dataStore: dataStore, cniPath: cniPath, confDir: confDir}
	var err error
	if c.conf, err = os.ReadFile(filepath.Join(confDir, confFile)); err != nil {
		return nil
	}
	if c.leftovers() {
		return nil
	}
	return c
}

func (c *connection) namespace() string { return c.state.Annotations[labels.Namespace] }

func (c *connection) fullID() string { return c.namespace() + "-" + c.state.ID }

// leftovers tells whether there may be something to clear: the CNI library keeps a result
// until the network is gone, and host-local a lease from before the first rule.
func (c *connection) leftovers() bool {
	if _, err := os.Lstat(cniResult(c.fullID())); !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	dir := leaseDir(c.conf)
	if dir == "" {
		return true
	}
	held, err := leasesOf(filepath.Join(dir, networkName), c.fullID())
	return err != nil || len(held) > 0
}

// run makes the network and notes what nerdctl looks for later.
func (c *connection) run() error {
	lock, err := os.OpenFile(filepath.Join(c.confDir, ".cni-concurrency.lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil { // as nerdctl's own hooks do
		return fmt.Errorf("lock the network: %w", err)
	}
	if apparmorutil.CanLoadNewProfile() {
		// without it runc fails and says so
		_ = apparmor.LoadDefaultProfile(defaults.AppArmorProfileName)
	}
	names, err := namestore.New(c.dataStore, c.namespace())
	if err == nil {
		err = names.Acquire(c.state.Annotations[labels.Name], c.state.ID) // its last end released it
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "take the container's name again:", err)
	}
	made := c.network()
	life, err := state.New(c.state.Annotations[labels.StateDir])
	if err == nil {
		err = life.Transform(func(s *state.Store) error {
			s.StartedAt, s.CreateError = time.Now(), made != nil
			return nil
		})
	}
	return errors.Join(made, err)
}

func (c *connection) network() (err error) {
	ports, err := portutil.LoadPortMappings(c.dataStore, c.namespace(), c.state.ID, c.state.Annotations)
	if err != nil {
		return err
	}
	reserver, err := c.reserve(ports)
	if err != nil {
		return err
	}
	hosts, err := hostsstore.New(c.dataStore, c.namespace())
	if err != nil {
		return errors.Join(err, end(reserver))
	}
	cni, err := gocni.New(gocni.WithPluginDir([]string{c.cniPath}), gocni.WithConfListBytes(c.conf))
	if err != nil {
		return errors.Join(err, end(reserver))
	}
	opts := []gocni.NamespaceOpts{
		gocni.WithLabels(map[string]string{"IgnoreUnknown": "1"}),
		gocni.WithArgs("NERDCTL_CNI_DHCP_HOSTNAME", c.state.Annotations[labels.Hostname]),
	}
	if len(ports) > 0 {
		opts = append(opts, gocni.WithCapabilityPortMap(ports))
	}
	ctx := context.Background()
	ns := fmt.Sprintf("/proc/%d/ns/net", c.state.Pid)
	res, err := cni.Setup(ctx, c.fullID(), ns, opts...)
	if err != nil {
		err = fmt.Errorf("failed to call cni.Setup: %w", err) // nerdctl's words: whoever explains them knows one form
	} else {
		err = hosts.Acquire(hostsstore.Meta{
			ID: c.state.ID, Networks: map[string]*types100.Result{networkName: res.Raw()[0]}, Name: c.state.Annotations[labels.Name],
			Hostname: c.state.Annotations[labels.Hostname], Domainname: c.state.Annotations[labels.Domainname],
		})
	}
	if err != nil {
		_ = cni.Remove(ctx, c.fullID(), ns, opts...) // what it did not make cannot be removed
		return errors.Join(err, end(reserver))
	}
	return nil
}

// reserve starts the process that holds the container's ports, so that nothing else of
// the node binds them.
func (c *connection) reserve(ports []gocni.PortMapping) (*exec.Cmd, error) {
	if len(ports) == 0 {
		return nil, nil
	}
	cmd := exec.Command("sleep", "infinity")
	for _, p := range ports {
		f, err := listen(p.Protocol+"4", net.JoinHostPort(p.HostIP, strconv.Itoa(int(p.HostPort))))
		if err != nil {
			fmt.Fprintf(os.Stderr, "hold port %d/%s: %v\n", p.HostPort, p.Protocol, err)
			continue
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("hold ports: %w", err)
	}
	dir := filepath.Join("/run/nerdctl", c.namespace(), c.state.ID)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, reserverFile), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("note who holds the ports: %w", err), end(cmd))
	}
	return cmd, nil
}

func listen(protocol, addr string) (*os.File, error) {
	if strings.HasPrefix(protocol, "udp") {
		l, err := net.ListenPacket(protocol, addr)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		return l.(*net.UDPConn).File()
	}
	l, err := net.Listen(protocol, addr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

func end(cmd *exec.Cmd) error {
	if cmd == nil {
		return nil
	}
	return cmd.Process.Kill()
}
