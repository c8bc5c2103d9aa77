package containerd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"

	"selvedge/edge/apply"
	"selvedge/schema/wire"
)

// samples remember the processor time at the last look, by container.
type samples struct {
	mu   sync.Mutex
	last map[string]sample
}

type sample struct {
	at    time.Time
	spent time.Duration
	pid   uint32
}

// maxSamples bounds what is remembered: more than a node runs.
const maxSamples = 4096

// Usage tells what a running container uses.
func (r *Runtime) Usage(ctx context.Context, id string) (wire.Usage, error) {
	ctx, c, err := r.open(ctx)
	if err != nil {
		return wire.Usage{}, err
	}
	got, err := c.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) || err == nil && got.Process.Status != tasktypes.Status_RUNNING {
		return wire.Usage{}, fmt.Errorf("measure container %.12s: %w", id, apply.ErrNotRunning)
	}
	if err != nil {
		return wire.Usage{}, r.wrap("measure a container", err)
	}
	res, err := c.TaskService().Metrics(ctx, &tasks.MetricsRequest{Filters: []string{"id==" + strconv.Quote(id)}})
	if err != nil {
		return wire.Usage{}, r.wrap("measure a container", errgrpc.ToNative(err))
	}
	u, spent, err := usageOf(res.Metrics)
	if err != nil {
		return wire.Usage{}, fmt.Errorf("measure container %.12s: %w", id, err)
	}
	store, err := r.store()
	if err != nil {
		return wire.Usage{}, err
	}
	u.CPU = r.measured.cores(id, sample{time.Now(), spent, got.Process.Pid}, startedAt(store, r.c.Namespace, id))
	if own, err := ownNetwork(got.Process.Pid); err == nil && own { // else it is the node's
		u.NetRx, u.NetTx = counters(fmt.Sprintf("/proc/%d/net/dev", got.Process.Pid))
	}
	u.Disk = r.layers.size(ctx, c, id)
	return u, nil
}

// Version asks containerd which one it is.
func (r *Runtime) Version(ctx context.Context) (string, error) {
	ctx, c, err := r.open(ctx)
	if err != nil {
		return "", err
	}
	v, err := c.Version(ctx)
	if err != nil {
		return "", r.wrap("ask containerd for its version", err)
	}
	return "containerd " + strings.TrimPrefix(v.Version, "v"), nil
}

// Root asks containerd where its snapshotter keeps what containers write; images lie beside it.
func (r *Runtime) Root(ctx context.Context) (string, error) {
	ctx, c, err := r.open(ctx)
	if err != nil {
		return "", err
	}
	res, err := c.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1,id=="+snapshotter)
	if err != nil {
		return "", r.wrap("ask containerd for its folder", err)
	}
	for _, p := range res.Plugins {
		if dir := p.Exports["root"]; dir != "" {
			return dir, nil
		}
	}
	return "", fmt.Errorf("containerd does not say where snapshotter %s keeps its files", snapshotter)
}

// cores returns the processors in use since the last look.
func (s *samples) cores(id string, now sample, started time.Time) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.last[id]
	if s.last == nil || len(s.last) >= maxSamples {
		s.last = map[string]sample{}
	}
	s.last[id] = now
	if !ok || was.pid != now.pid {
		was = sample{at: started}
		if started.IsZero() || started.After(now.at) {
			return 0
		}
	}
	took := now.at.Sub(was.at)
	if took <= 0 || now.spent < was.spent {
		return 0
	}
	return math.Round(float64(now.spent-was.spent)/float64(took)*1e4) / 1e4
}

// usageOf reads what the shim tells, of cgroup v1 or v2.
func usageOf(list []*types.Metric) (u wire.Usage, spent time.Duration, err error) {
	if len(list) != 1 || list[0].Data == nil {
		return u, 0, apply.ErrNotRunning
	}
	v, err := typeurl.UnmarshalAny(list[0].Data)
	if err != nil {
		return u, 0, err
	}
	switch m := v.(type) {
	case *cgroup1.Metrics:
		mem := m.GetMemory()
		u.Memory = less(mem.GetUsage().GetUsage(), mem.GetTotalInactiveFile())
		u.MemoryLimit = limit(mem.GetUsage().GetLimit())
		spent = time.Duration(m.GetCPU().GetUsage().GetTotal())
	case *cgroup2.Metrics:
		mem := m.GetMemory()
		u.Memory = less(mem.GetUsage(), mem.GetInactiveFile())
		u.MemoryLimit = limit(mem.GetUsageLimit())
		spent = time.Duration(m.GetCPU().GetUsageUsec()) * time.Microsecond
	default:
		return u, 0, fmt.Errorf("metrics of an unknown kind: %T", v)
	}
	return u, spent, nil
}

func less(a, b uint64) int64 {
	if b > a {
		b = a
	}
	return int64(min(a-b, math.MaxInt64))
}

// limit is zero for none, which the kernel writes as a very large number.
func limit(v uint64) int64 {
	if v >= 1<<60 {
		return 0
	}
	return int64(v)
}

// ownNetwork tells whether a process has another network than the node.
func ownNetwork(pid uint32) (bool, error) {
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return false, err
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	return its != ours, err
}

// counters adds up the bytes of all interfaces but loopback, as proc_net(5) lists them.
func counters(path string) (rx, tx int64) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0 // it has just ended
	}
	defer f.Close()
	sc := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for sc.Scan() {
		name, rest, ok := strings.Cut(sc.Text(), ":")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 9 || strings.TrimSpace(name) == "lo" {
			continue
		}
		rx, tx = rx+number(fields[0]), tx+number(fields[8])
	}
	return rx, tx
}
