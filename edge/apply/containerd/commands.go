package containerd

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
)

// commandPrefix begins the IDs of commands that agents ran: a person's own are left alone.
const commandPrefix = "selvedge-"

// sweepTime bounds the look for commands that were left: apps wait for it.
const sweepTime = 5 * time.Second

// sweepCommands ends the commands of an agent that was killed: nobody reads what they print
// any more, nor ends them.
func (r *Runtime) sweepCommands(ctx context.Context, c *client.Client, list []containers.Container) error {
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	for _, x := range list {
		made, err := c.LoadContainer(ctx, x.ID)
		if err != nil {
			continue // it has just gone
		}
		task, err := made.Task(ctx, nil)
		if err != nil {
			continue
		}
		pids, err := task.Pids(ctx)
		if err != nil {
			continue // it does not run
		}
		for _, p := range pids {
			id := commandOf(p)
			if !strings.HasPrefix(id, commandPrefix) || strings.HasPrefix(id, r.commands) {
				continue
			}
			r.log.Info("ending a command that an interrupted run left", "container", x.ID, "id", id)
			killSession(p.Pid)
			if left, err := task.LoadProcess(ctx, id, nil); err == nil {
				_, err = left.Delete(ctx, client.WithProcessKill)
				if err != nil {
					r.log.Debug("an ended command stays listed", "error", err)
				}
			}
		}
	}
	return os.RemoveAll(r.fifos())
}

// fifos is where the streams of commands are, as long as these run.
func (r *Runtime) fifos() string { return filepath.Join(r.c.RunDir, "fifo") }

// commandOf returns the ID of the command that a process is; "" for all others.
func commandOf(p client.ProcessInfo) string {
	if p.Info == nil {
		return ""
	}
	v, err := typeurl.UnmarshalAny(p.Info)
	if err != nil {
		return ""
	}
	d, ok := v.(*options.ProcessDetails)
	if !ok {
		return ""
	}
	return d.ExecID
}
