package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"selvedge/edge/apply"
)

// Observe lists our containers in any state. The first time it sweeps what an
// interrupted run left behind.
func (r *Runtime) Observe(ctx context.Context) ([]apply.Instance, error) {
	ctx, c, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	store, err := r.store()
	if err != nil {
		return nil, err
	}
	if err := r.sweepOnce(ctx, c, store); err != nil {
		return nil, err
	}
	list, err := c.ContainerService().List(ctx, "labels."+strconv.Quote(labelApp))
	if err != nil {
		return nil, r.wrap("list containers", err)
	}
	res, err := c.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, r.wrap("list tasks", errgrpc.ToNative(err))
	}
	byID := map[string]*tasktypes.Process{}
	for _, t := range res.Tasks {
		byID[t.ID] = t
	}
	if err := r.sweepGone(ctx, c, list); err != nil {
		r.log.Warn("leftovers of a deleted container stay", "error", err)
	}
	out := make([]apply.Instance, 0, len(list))
	bridged := map[string]uint32{}
	for _, x := range list {
		i := r.instance(store, x, byID[x.ID])
		if network := x.Labels[labelNetwork]; i.State == apply.Running && network != "host" && network != "none" {
			bridged[i.ID] = byID[i.ID].Pid
		}
		out = append(out, i)
	}
	faults := r.damaged(bridged)
	for i := range out {
		out[i].Fault = faults[out[i].ID]
	}
	return out, nil
}

func (r *Runtime) instance(store string, x containers.Container, t *tasktypes.Process) apply.Instance {
	lab := x.Labels
	i := apply.Instance{ID: x.ID, App: lab[labelApp], Container: lab[labelContainer], Hash: lab[labelHash],
		Image: lab[labelImage], Generation: number(lab[labelGeneration])}
	switch {
	case t == nil && lab[labelStarted] == "":
		i.State = apply.Created
	case t == nil:
		i.State = apply.Lost
	case t.Status == tasktypes.Status_STOPPED:
		i.State, i.ExitCode = apply.Exited, int(t.ExitStatus)
		if t.ExitedAt != nil {
			i.Since = t.ExitedAt.AsTime()
		}
	case t.Status == tasktypes.Status_PAUSED, t.Status == tasktypes.Status_PAUSING:
		i.State = apply.Paused
	case t.Status == tasktypes.Status_RUNNING:
		i.State = apply.Running
		i.Since = startedAt(store, r.c.Namespace, x.ID)
		i.Address = address(store, r.c.Namespace, x.ID, lab[labelNetwork])
	case t.Status == tasktypes.Status_CREATED:
		i.State = apply.Created // a start that was cut off
	default:
		i.State = apply.Lost
	}
	return i
}

// startedAt reads when the network hook saw the container start; zero if unknown.
func startedAt(store, namespace, id string) time.Time {
	b, err := os.ReadFile(filepath.Join(store, "containers", namespace, id, "lifecycle.json"))
	if err != nil {
		return time.Time{}
	}
	var l struct {
		StartedAt time.Time `json:"started_at"`
	}
	if json.Unmarshal(b, &l) != nil {
		return time.Time{}
	}
	return l.StartedAt
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64) // labels are ours; anything else counts as none
	return n
}

func contains(err error, part string) bool { return strings.Contains(err.Error(), part) }

// Watch tells of every event of our namespace that can change what runs.
func (r *Runtime) Watch(ctx context.Context, changed func()) error {
	ctx, c, err := r.open(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx) // ends the subscription
	defer cancel()
	var filters []string
	for _, topic := range []string{"/tasks/exit", "/tasks/paused", "/tasks/delete", "/tasks/resumed", "/containers/delete"} {
		filters = append(filters, "namespace=="+r.c.Namespace+",topic=="+strconv.Quote(topic))
	}
	events, errs := c.EventService().Subscribe(ctx, filters...)
	changed() // what happened before
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-events:
			changed()
		case err := <-errs:
			if err == nil {
				err = errors.New("the event stream ended")
			}
			return r.wrap("watch events", err)
		}
	}
}
