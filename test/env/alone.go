package env

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// alone is set for a process that Alone started.
const alone = "SELVEDGE_TEST_ALONE"

// LAN is the only address beyond loopback that a process under Alone has.
const LAN = "192.0.2.1"

// Alone runs the tests of a package with a network, firewall rules and CNI files of
// their own, so that they may look at all of these while tests of other packages change
// theirs. Call it from TestMain. Where containers cannot run it just runs the tests.
func Alone(m *testing.M) int {
	if os.Getenv(alone) == "" {
		if CanContainerd() != nil {
			return m.Run()
		}
		code, err := again()
		if err != nil {
			fmt.Fprintln(os.Stderr, "run the tests in a network of their own:", err)
			return 1
		}
		return code
	}
	if err := errors.Join(os.Unsetenv(alone), ownLinks(), ownFolders()); err != nil {
		fmt.Fprintln(os.Stderr, "set up a network for the tests:", err)
		return 1
	}
	return m.Run()
}

// again runs this process once more, in namespaces of its own.
func again() (int, error) {
	runtime.LockOSThread() // the child ends with this thread
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), alone+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return max(ended.ExitCode(), 1), nil
	}
	return 0, err
}

// ownLinks brings up loopback and one network to be reached at.
func ownLinks() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	lan := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(lan), netlink.LinkSetUp(lan)); err != nil {
		return fmt.Errorf("links: %w", err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(LAN), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(lan, addr); err != nil {
		return fmt.Errorf("address of %s: %w", lan.Name, err)
	}
	return nil
}

// ownFolders hides the folders that CNI plugins and nerdctl share over a machine.
func ownFolders() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	for _, dir := range []string{"/run/nerdctl", "/var/lib/cni"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	return nil
}
