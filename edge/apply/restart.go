package apply

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ask is one request to restart a container; its unit answers once.
type ask struct{ answer chan error } // capacity 1

// Restart ends the containers of an app, or the one of that name, as their spec says, and
// starts them again, one after the other in the state's order, whatever their restart
// policy. It returns when all were started. It counts as no failure of theirs. An error
// matches ErrUnknown, ErrBusy, ErrNotRunning (it waits for others to be healthy) or
// ErrUnavailable; those before it were restarted.
func (a *Applier) Restart(ctx context.Context, app, container string) error {
	units, err := a.present(app, container)
	if err != nil {
		return err
	}
	for _, u := range units {
		if err := u.ask(ctx); err != nil {
			return fmt.Errorf("restart %s: %w", u.spec.Key(), err)
		}
	}
	return nil
}

// ask has the unit restart its container: nobody else does.
func (u *unit) ask(ctx context.Context) error {
	if !u.asking.CompareAndSwap(false, true) {
		return ErrBusy
	}
	r := &ask{make(chan error, 1)}
	u.asks <- r
	select {
	case err := <-r.answer:
		return err
	case <-u.done:
		select {
		case err := <-r.answer:
			return err
		default:
		}
		return errors.New("another version of it is being started instead")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer tells who asked how it went, if somebody did.
func (u *unit) answer(err error) {
	if u.asked != nil {
		u.asked.answer <- err
		u.asked = nil
		u.asking.Store(false)
	}
}

// stopAsked ends the container to be started again by request.
func (u *unit) stopAsked(ctx context.Context, inst Instance) ending {
	u.log.Info("restarting a container by request")
	u.restart(ctx, inst, "somebody asked for a restart", true)
	return forAsk
}

// restart stops the container so that it is started again; without keep it is made anew.
func (u *unit) restart(ctx context.Context, inst Instance, problem string, keep bool) {
	u.set(u.down(), problem+"; restarting it")
	err := u.act(func() (Instance, error) {
		err := u.a.rt.Stop(ctx, inst.ID, keep)
		gone := inst
		if gone.State = Exited; !keep {
			gone = Instance{State: Lost}
		}
		return gone, err
	})
	if err != nil {
		u.log.Warn("container cannot be stopped", "error", err)
		u.answer(err)
		u.sleep(ctx, time.Second)
		return
	}
	u.mu.Lock()
	u.exit = Exit{At: time.Now(), Reason: problem}
	u.mu.Unlock()
}
