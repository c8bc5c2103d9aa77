package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/nerdctl/v2/pkg/api/types"
	"github.com/containerd/nerdctl/v2/pkg/clientutil"
	"github.com/containerd/nerdctl/v2/pkg/config"
	"github.com/containerd/nerdctl/v2/pkg/idgen"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"selvedge/edge/apply"
)

// Labels of our containers.
const (
	labelApp        = "dev.selvedge.app"
	labelContainer  = "dev.selvedge.container"
	labelHash       = "dev.selvedge.spec-hash"
	labelGeneration = "dev.selvedge.generation"
	labelImage      = "dev.selvedge.image"
	labelStopMS     = "dev.selvedge.stop-ms"
	labelNetwork    = "dev.selvedge.network"
	labelStarted    = "dev.selvedge.started"
)

const snapshotter = "overlayfs"

// Config says where containerd is and what may be used of the node.
type Config struct {
	Address   string        // containerd's socket; empty means /run/containerd/containerd.sock
	Namespace string        // empty means selvedge; must not be shared with another agent
	DataDir   string        // kept over reboots; empty means /var/lib/selvedge/containers
	RunDir    string        // emptied by a reboot; empty means /run/selvedge/containers
	VolumeDir string        // host paths of mounts below it are made when missing, all others must exist; empty means <DataDir>/volumes
	HostsDir  string        // registry settings, <host>/hosts.toml as containerd reads them; empty means <DataDir>/certs.d
	CNIPath   string        // CNI plugins; empty means /opt/cni/bin or /usr/lib/cni, whichever is there
	Bridge    string        // name of the bridge; empty means selvedge0
	Subnet    string        // of the bridge, as CIDR; empty means a free /24 below 10.203.0.0/16, chosen once
	Stall     time.Duration // a pull that gets nothing for this long ends; 0 means 2 min
	Log       *slog.Logger  // nil means slog.Default()
}

// Runtime implements apply.Runtime, Watcher, Execer, StreamExecer, Tailer, LogReader, Meter,
// Versioner, Rooted and Pruner.
type Runtime struct {
	c    Config
	log  *slog.Logger
	self string // this program, for hooks and loggers

	commands string // what the IDs of the commands begin with that this process runs

	mu     sync.Mutex
	conn   *client.Client
	plain  *client.Client // under conn's container store
	data   string         // nerdctl's data folder
	swept  bool
	making sync.RWMutex // held for reading while a container is made or removed: sweep must not see halves
	subnet netip.Prefix // set before conn

	checking sync.Mutex
	net      netCheck
	keeping  sync.Mutex // of logs of removed containers
	measured samples
	layers   layers
}

var (
	_ apply.Runtime = (*Runtime)(nil)
	_ apply.Watcher = (*Runtime)(nil)
	_ apply.Execer  = (*Runtime)(nil)
	_ apply.Tailer  = (*Runtime)(nil)
	_ apply.Pruner  = (*Runtime)(nil)

	_ apply.LogReader    = (*Runtime)(nil)
	_ apply.StreamExecer = (*Runtime)(nil)
	_ apply.Meter        = (*Runtime)(nil)
	_ apply.Versioner    = (*Runtime)(nil)
	_ apply.Rooted       = (*Runtime)(nil)
)

// New prepares a Runtime; it does not connect. Close it after use.
func New(c Config) *Runtime {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.Address, "/run/containerd/containerd.sock")
	def(&c.Namespace, "selvedge")
	def(&c.DataDir, "/var/lib/selvedge/containers")
	def(&c.RunDir, "/run/selvedge/containers")
	def(&c.VolumeDir, filepath.Join(c.DataDir, "volumes"))
	def(&c.HostsDir, filepath.Join(c.DataDir, "certs.d"))
	def(&c.Bridge, "selvedge0")
	if c.Stall <= 0 {
		c.Stall = 2 * time.Minute
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Address = strings.TrimPrefix(c.Address, "unix://")
	return &Runtime{c: c, log: c.Log, commands: commandPrefix + idgen.GenerateID()[:8] + "-"}
}

// Close ends the connection; containers go on.
func (r *Runtime) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil {
		return nil
	}
	err := errors.Join(r.conn.Close(), r.plain.Close())
	r.conn = nil
	return err
}

// open connects once and returns the context of our namespace. The connection comes
// back by itself when containerd does.
func (r *Runtime) open(ctx context.Context) (context.Context, *client.Client, error) {
	ctx = r.quiet(namespaces.WithNamespace(ctx, r.c.Namespace))
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := os.Stat(r.c.Address); err != nil {
		return nil, nil, fmt.Errorf("%w: %w; start containerd, or give the path of its socket", apply.ErrUnavailable, err)
	}
	if r.conn != nil {
		return ctx, r.conn, nil
	}
	if r.self == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, nil, fmt.Errorf("find this program: %w", err)
		}
		r.self = strings.TrimSuffix(self, " (deleted)") // replaced while running: the new one is at the same path
	}
	if err := r.noteShared(); err != nil {
		return nil, nil, err
	}
	if err := r.prepareNetwork(); err != nil {
		return nil, nil, err
	}
	plain, err := client.New(r.c.Address, dialOptions())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", apply.ErrUnavailable, err)
	}
	store := scrubbed{plain.ContainerService(), r.self}
	conn, err := client.New(r.c.Address, dialOptions(), client.WithServices(client.WithContainerStore(store)))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", apply.ErrUnavailable, errors.Join(err, plain.Close()))
	}
	r.conn, r.plain = conn, plain
	return ctx, r.conn, nil
}

// quiet keeps what the packages below log (there is no systemd here, and so on) out
// of the agent's output; errors are returned anyway.
func (r *Runtime) quiet(ctx context.Context) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return log.WithLogger(ctx, logrus.NewEntry(l))
}

// dialOptions reconnect within a second of containerd's return.
func dialOptions() client.Opt {
	slow := backoff.DefaultConfig
	slow.BaseDelay, slow.MaxDelay = 100*time.Millisecond, time.Second
	return client.WithExtraDialOpts([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a local socket
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: slow, MinConnectTimeout: 5 * time.Second}),
	})
}

// globals are nerdctl's global options for this Runtime.
func (r *Runtime) globals() types.GlobalCommandOptions {
	g := types.GlobalCommandOptions(*config.New())
	g.Address, g.Namespace, g.DataRoot = r.c.Address, r.c.Namespace, r.c.DataDir
	g.CNIPath, g.CNINetConfPath = r.cniPath(), r.netConfDir()
	g.CgroupManager = "cgroupfs"
	g.HostsDir = []string{r.c.HostsDir}
	g.InsecureRegistry = false // would turn certificate checks off everywhere: hosts.toml says what is plain
	g.Snapshotter = snapshotter
	g.DisableHCSystemd = true // health is the agent's business
	g.Experimental = false
	return g
}

// store is nerdctl's data folder for this containerd.
func (r *Runtime) store() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.data != "" { // its name is found through the socket, which goes with containerd
		return r.data, nil
	}
	s, err := clientutil.DataStore(r.c.DataDir, r.c.Address)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("open the container data: %w: %w", apply.ErrUnavailable, err)
	}
	if err != nil {
		return "", r.wrap("open the container data", err)
	}
	r.data = s
	return s, nil
}

// wrap names the operation, tells a containerd that is away from one that refuses,
// and says what to do about a full disk.
func (r *Runtime) wrap(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsUnavailable(err) || strings.Contains(err.Error(), "code = Unavailable"):
		return fmt.Errorf("%s: %w: %w; it is waited for", what, apply.ErrUnavailable, err)
	case strings.Contains(err.Error(), "no space left on device"):
		return fmt.Errorf("%s: the disk is full: %w; free space below containerd's root or %s", what, err, r.c.DataDir)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// unanswered is wrap for what containerd knows by itself: without an answer in time it is stuck.
func (r *Runtime) unanswered(what string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w: it gave no answer in time; it is waited for", what, apply.ErrUnavailable)
	}
	return r.wrap(what, err)
}

// scrubbed is containerd's container store, which keeps our environment out of what is stored.
type scrubbed struct {
	containers.Store
	self string
}

func (s scrubbed) Create(ctx context.Context, c containers.Container) (containers.Container, error) {
	if err := scrub(&c, s.self); err != nil {
		return containers.Container{}, fmt.Errorf("clean the spec of %s: %w", c.ID, err)
	}
	return s.Store.Create(ctx, c)
}
