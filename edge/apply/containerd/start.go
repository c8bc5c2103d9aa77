package containerd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/nerdctl/v2/pkg/cmd/container"
	"github.com/containerd/nerdctl/v2/pkg/containerutil"
	"github.com/containerd/nerdctl/v2/pkg/labels"
	"github.com/containerd/nerdctl/v2/pkg/taskutil"

	"selvedge/edge/apply"
)

const (
	stopBound = 20 * time.Second // for a container to be gone after its kill
	askBound  = 20 * time.Second // for what containerd knows: else it is stuck
)

// Start brings a container up: resumed, started again or created.
func (r *Runtime) Start(ctx context.Context, s apply.Spec) (apply.Instance, error) {
	ctx, c, err := r.open(ctx)
	if err != nil {
		return apply.Instance{}, err
	}
	r.making.RLock()
	defer r.making.RUnlock()
	have, err := c.Containers(ctx, fmt.Sprintf("labels.%q==%q,labels.%q==%q", labelApp, s.App, labelContainer, s.Container.Name))
	if err != nil {
		return apply.Instance{}, r.wrap("look for it", err)
	}
	var made client.Container
	fresh := false
	for _, h := range have {
		lab, err := h.Labels(ctx)
		if err != nil {
			return apply.Instance{}, r.wrap("look for it", err)
		}
		if lab[labelHash] != s.Hash {
			return apply.Instance{}, fmt.Errorf("an older version of it (%.12s) is still there; it is removed first", h.ID())
		}
		made = h
	}
	if made != nil {
		gone, err := rootGone(ctx, c, made)
		if err != nil {
			return apply.Instance{}, r.wrap("look for its file system", err)
		}
		if gone { // nothing could start it ever again
			r.log.Warn("the file system of a container was removed; it is made anew", "id", made.ID())
			if err := r.remove(ctx, c, made, 0); err != nil {
				return apply.Instance{}, err
			}
			made = nil
		}
	}
	if made == nil {
		if err := freePorts(s.Container.Ports); err != nil {
			return apply.Instance{}, err
		}
		if made, err = r.create(ctx, c, s); err != nil {
			return apply.Instance{}, err
		}
		fresh = true
	}
	if err := r.up(ctx, c, made, s, fresh); err != nil {
		if fresh { // it never ran: keep nothing of it
			err = errors.Join(err, r.remove(context.WithoutCancel(ctx), c, made, 0))
		}
		return apply.Instance{}, err
	}
	store, err := r.store()
	if err != nil {
		return apply.Instance{}, err
	}
	i := apply.Instance{ID: made.ID(), App: s.App, Container: s.Container.Name, Hash: s.Hash, Image: s.Container.Image,
		Generation: s.Generation, State: apply.Running, Since: startedAt(store, r.c.Namespace, made.ID()),
		Address: address(store, r.c.Namespace, made.ID(), s.Container.Network)}
	return i, nil
}

// rootGone tells whether a container lacks its snapshot.
func rootGone(ctx context.Context, c *client.Client, made client.Container) (bool, error) {
	info, err := made.Info(ctx)
	if err != nil {
		return false, err
	}
	if _, err = c.SnapshotService(info.Snapshotter).Stat(ctx, info.SnapshotKey); errdefs.IsNotFound(err) {
		return true, nil
	}
	return false, err
}

// up makes a task run, whatever state it is in.
func (r *Runtime) up(ctx context.Context, c *client.Client, made client.Container, s apply.Spec, fresh bool) error {
	if !fresh {
		switch st, err := taskState(ctx, made); {
		case err != nil:
			return r.wrap("ask for its state", err)
		case st == client.Running:
			return nil
		case st == client.Paused || st == client.Pausing:
			t, err := made.Task(ctx, nil)
			if err == nil {
				err = t.Resume(ctx)
			}
			return r.wrap("resume it", err)
		}
		// an ended task holds its ports until it is deleted
		if _, err := r.deleteTask(ctx, made); err != nil {
			return err
		}
		if pid, err := reserving(r.reserver(made.ID())); err != nil || pid != 0 {
			// the hook that ends a network did not come through, as when the disk was full
			if err := r.sweepNetwork(made.ID()); err != nil {
				return r.wrap("clear its last network", err)
			}
		}
		if err := r.prepareMounts(s.Container); err != nil {
			return err
		}
		if err := freePorts(s.Container.Ports); err != nil {
			return err
		}
	}
	lab, err := made.Labels(ctx)
	if err != nil {
		return r.wrap("read its labels", err)
	}
	if s.Container.Restart == "never" && lab[labelStarted] == "" {
		// written before it starts: after a power cut it must not run a second time
		if _, err := made.SetLabels(ctx, map[string]string{labelStarted: "true"}); err != nil {
			return r.wrap("mark it as started", err)
		}
	}
	task, err := taskutil.NewTask(ctx, c, made, taskutil.TaskOptions{IsDetach: true, LogURI: lab[labels.LogURI], Namespace: r.c.Namespace})
	if err != nil {
		return r.wrap("start it", explain(err))
	}
	if err := task.Start(ctx); err != nil {
		_, derr := r.deleteTask(context.WithoutCancel(ctx), made)
		return r.wrap("start it", errors.Join(explain(err), derr))
	}
	return nil
}

// taskState returns the state of the container's task; Created if it has none.
func taskState(ctx context.Context, c client.Container) (client.ProcessStatus, error) {
	t, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return client.Created, nil
	}
	if err != nil {
		return "", err
	}
	st, err := t.Status(ctx)
	if errdefs.IsNotFound(err) {
		return client.Created, nil
	}
	return st.Status, err
}

// deleteTask removes what is left of an ended task (network, ports, shim) and returns its
// exit code.
func (r *Runtime) deleteTask(ctx context.Context, c client.Container) (int, error) {
	t, err := c.Task(ctx, cio.Load)
	if errdefs.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, r.wrap("clear its last run", err)
	}
	st, err := t.Delete(ctx, client.WithProcessKill)
	if err != nil && !errdefs.IsNotFound(err) {
		return 0, r.wrap("clear its last run", err)
	}
	if st == nil {
		return 0, nil
	}
	return int(st.ExitCode()), nil
}

// Stop ends a container by its signal, then by force, and deletes its task: until
// then its ports stay taken.
func (r *Runtime) Stop(ctx context.Context, id string, keep bool) error {
	ctx, c, err := r.open(ctx)
	if err != nil {
		return err
	}
	r.making.RLock()
	defer r.making.RUnlock()
	ask, done := context.WithTimeout(ctx, askBound)
	defer done()
	made, err := c.LoadContainer(ask, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return r.unanswered("look for it", err)
	}
	lab, err := made.Labels(ask)
	if err != nil {
		return r.unanswered("read its labels", err)
	}
	grace := time.Duration(number(lab[labelStopMS])) * time.Millisecond
	bound, cancel := context.WithTimeout(ctx, grace+stopBound)
	defer cancel()
	if err := containerutil.Stop(bound, made, &grace, ""); err != nil && !errdefs.IsNotFound(err) {
		return r.wrap("stop it", err)
	}
	code, err := r.deleteTask(bound, made)
	if err != nil {
		return err
	}
	if keep {
		return nil
	}
	return r.remove(bound, c, made, code)
}

// remove deletes a container whose task has ended with that code, and what nerdctl forgets.
// Its log is kept.
func (r *Runtime) remove(ctx context.Context, c *client.Client, made client.Container, code int) error {
	if err := r.keepLog(ctx, made, code); err != nil {
		r.log.Warn("the log of a removed container is not kept", "id", made.ID(), "error", err)
	}
	if err := container.RemoveContainer(ctx, made, r.globals(), true, true, c); err != nil && !errdefs.IsNotFound(err) {
		return r.wrap("remove it", err)
	}
	return r.sweepOne(made.ID())
}

func (r *Runtime) keepLog(ctx context.Context, made client.Container, code int) error {
	lab, err := made.Labels(ctx)
	if err != nil {
		return err
	}
	store, err := r.store()
	if err != nil {
		return err
	}
	dir := filepath.Join(store, "containers", r.c.Namespace, made.ID())
	awaitLogger(dir)
	return r.keep(dir, run{ID: made.ID(), App: lab[labelApp], Container: lab[labelContainer], Image: lab[labelImage],
		Generation: number(lab[labelGeneration]), ExitCode: code, Ended: time.Now()})
}

// explain adds what to do to errors that runc words badly.
func explain(err error) error {
	for _, h := range []struct{ has, hint string }{
		{"executable file not found", "correct command, or the image's entrypoint"},
		{"exec format error", "the image is for another processor"},
		{"no such file or directory", "is its program in the image, statically linked or with its libraries?"},
		{"failed to call cni.Setup", "the bridge network could not be set up; are iptables and the CNI plugins complete, and is its subnet free?"},
	} {
		if err != nil && contains(err, h.has) {
			return fmt.Errorf("%w; %s", err, h.hint)
		}
	}
	return err
}
