package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"selvedge/schema/nodestate"
)

// freePorts tries every host port before anything is made: nerdctl only warns, and
// its rules would then take the traffic of whoever has the port.
func freePorts(ports []nodestate.Port) error {
	var errs []error
	for _, p := range ports {
		proto := orDefault(p.Protocol, "tcp")
		addr := net.JoinHostPort(orDefault(p.Address, "0.0.0.0"), strconv.Itoa(p.Host))
		err := tryBind(proto, addr)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			errs = append(errs, fmt.Errorf("port %d/%s of the node is taken%s; end that program, or give %q another host port", p.Host, proto, holder(proto, p.Host), p.Name))
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			errs = append(errs, fmt.Errorf("port %q cannot be published on %s: the node has no such address; correct its address", p.Name, p.Address))
		case err != nil:
			errs = append(errs, fmt.Errorf("port %d/%s of the node: %w", p.Host, proto, err))
		}
	}
	return errors.Join(errs...)
}

func tryBind(proto, addr string) error {
	var lc net.ListenConfig
	if proto == "udp" {
		c, err := lc.ListenPacket(context.Background(), proto, addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := lc.Listen(context.Background(), proto, addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// holder names the process that has a port: " by nginx (pid 7)", or nothing if it
// cannot be found.
func holder(proto string, port int) string {
	inodes := map[string]bool{}
	for _, name := range []string{"/proc/net/" + proto, "/proc/net/" + proto + "6"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(b), "\n") {
			f := strings.Fields(line)
			if len(f) < 10 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			if proto == "tcp" && f[3] != "0A" { // 0A: listening
				continue
			}
			inodes["socket:["+f[9]+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is right
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && inodes[to] {
			pid := strings.Split(fd, "/")[2]
			comm, _ := os.ReadFile("/proc/" + pid + "/comm") // gone by now: no name then
			return fmt.Sprintf(" by %s (pid %s)", strings.TrimSpace(string(comm)), pid)
		}
	}
	return ""
}
