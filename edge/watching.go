package edge

import (
	"context"
	"fmt"
	"time"

	"selvedge/edge/apply"
	"selvedge/schema/wire"
)

// maxTold bounds the events of one look; what is more is counted.
const maxTold = 50

// watching tells the hub what happens to containers and to the node, until the context ends.
func (a *Agent) watching(ctx context.Context) error {
	if a.hub.link == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	a.event(wire.Event{Severity: "info", Reason: "AgentStarted", Message: "the agent started"})
	w := watch{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		s := a.apply.Status()
		held, _ := a.store.Held()
		events := w.compare(s, held.Reason, !held.Since.IsZero())
		for n, e := range events {
			if n == maxTold {
				a.event(wire.Event{Severity: "info", Reason: "MoreEvents", Message: fmt.Sprintf("%d more at the same time", len(events)-n)})
				break
			}
			a.event(e)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// watch is what the last look saw.
type watch struct {
	seen    map[apply.Key]apply.ContainerStatus // nil: there was none
	down    bool
	held    bool
	started bool
}

// compare returns what happened since the last look.
func (w *watch) compare(s apply.Status, reason string, held bool) (events []wire.Event) {
	add := func(severity, reason string, k apply.Key, format string, args ...any) {
		events = append(events, wire.Event{Severity: severity, Reason: reason, App: k.App, Container: k.Container, Generation: s.Generation, Message: fmt.Sprintf(format, args...)})
	}
	none := apply.Key{}
	if down := s.RuntimeError != ""; down != w.down {
		w.down = down
		if down {
			add("error", "RuntimeDown", none, "%s", s.RuntimeError)
		} else {
			add("info", "RuntimeUp", none, "containerd answers again")
		}
	}
	if held != w.held {
		w.held = held
		if held {
			add("warning", "Held", none, "%s", reason)
		} else if w.started {
			add("info", "Released", none, "the hold ended")
		}
	}
	w.started = true
	if s.Generation == 0 {
		return events
	}
	now := map[apply.Key]apply.ContainerStatus{}
	for _, app := range s.Apps {
		for _, c := range app.Containers {
			k := apply.Key{App: app.Name, Container: c.Name}
			now[k] = c
			was, known := w.seen[k]
			switch {
			case w.seen == nil: // what runs already is no news
				continue
			case c.Asking: // no trouble
				if !was.Asking {
					add("info", "Restarting", k, "somebody asked for a restart")
				}
				continue
			case c.Restarts > was.Restarts && was.Image == c.Image:
				add("warning", "Restarted", k, "restarted, %d times by now%s", c.Restarts, because(c.Problem))
			case c.State == apply.Running && (was.State != apply.Running || was.ID != c.ID):
				add("info", "Started", k, "%s", c.Image)
			case (c.State == apply.Exited || c.State == apply.Lost) && was.State != c.State && known:
				add("warning", "Exited", k, "exited with code %d%s", c.ExitCode, because(c.Problem))
			}
			if !known || was.ID != c.ID && !was.Healthy {
				continue
			}
			if was.Healthy && !c.Healthy && c.State == apply.Running {
				add("warning", "Unhealthy", k, "not healthy any more%s", because(c.Problem))
			} else if !was.Healthy && c.Healthy {
				add("info", "Healthy", k, "healthy")
			}
		}
	}
	for k := range w.seen {
		if _, ok := now[k]; !ok {
			add("info", "Removed", k, "the state does not have it any more")
		}
	}
	w.seen = now
	return events
}

func because(problem string) string {
	if problem == "" {
		return ""
	}
	return ": " + problem
}
