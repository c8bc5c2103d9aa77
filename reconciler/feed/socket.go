package feed

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// Socket is the name of the hubs' socket in a reconciler's directory.
const Socket = "hub.sock"

const maxPath = 107 // sun_path of unix(7), less the zero byte

// Listen opens the hubs' socket in a directory, for its owner alone. The caller holds the
// directory's lock: a socket that is there was left by a crash.
func Listen(dir string) (net.Listener, error) {
	name := filepath.Join(dir, Socket)
	if len(name) > maxPath {
		return nil, fmt.Errorf("hub socket: %s: %d bytes, a unix socket's path has at most %d; choose a shorter directory", name, len(name), maxPath)
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("hub socket: %w", err)
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, fmt.Errorf("hub socket: %w", err)
	}
	if err := os.Chmod(name, 0o600); err != nil { // the directory is its owner's alone, too
		return nil, errors.Join(fmt.Errorf("hub socket: %w", err), l.Close())
	}
	return l, nil
}
