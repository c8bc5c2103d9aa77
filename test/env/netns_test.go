package env

import (
	"net"
	"os"
	"testing"
	"time"
)

// TestNetns needs the link to carry, to be cut, and to carry again.
func TestNetns(t *testing.T) {
	if os.Geteuid() != 0 {
		Need(t, os.ErrPermission)
	}
	n, err := NewNetns("svtest")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	l, err := net.Listen("tcp", n.Here+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reach := func() error {
		return InNetns(n.Name, "timeout", "1", "bash", "-c", `exec 3<>"/dev/tcp/$0/$1"`, n.Here, port(l)).Run()
	}
	if err := reach(); err != nil {
		t.Fatal(err)
	}
	if err := n.Cut(); err != nil {
		t.Fatal(err)
	}
	if err := reach(); err == nil {
		t.Error("the link carries though it was cut")
	}
	if err := n.Mend(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); reach() != nil; {
		if time.Now().After(end) {
			t.Fatal("the link does not come back")
		}
	}
}

func port(l net.Listener) string {
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}
