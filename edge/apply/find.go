package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"selvedge/schema/nodestate"
)

// Find returns the containers of an app, or with a name the one, in the state's order. Those
// that the state no longer has are found as long as their log is kept. With previous it
// returns only ended ones whose logs are kept, oldest first. An error matches ErrUnknown.
func (a *Applier) Find(ctx context.Context, app, container string, previous bool) ([]Instance, error) {
	ended, err := a.ended(ctx, app, container)
	if previous {
		if err != nil {
			return nil, err
		}
		if len(ended) == 0 {
			if _, err := a.present(app, container); err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("%s %w: no earlier container whose log is kept; the log of the present one goes back over its restarts", Key{app, container}, ErrUnknown)
		}
		return ended, nil
	}
	units, missing := a.present(app, container)
	var out []Instance
	for _, u := range units {
		i, _ := u.seen()
		if i.ID != "" {
			out = append(out, Instance{ID: i.ID, App: app, Container: u.spec.Container.Name, Hash: i.Hash, Image: u.spec.Container.Image,
				Generation: i.Generation, State: i.State, ExitCode: i.ExitCode, Since: i.Since, Address: i.Address})
			continue
		}
		if n := lastOf(ended, u.spec.Container.Name); n >= 0 {
			out = append(out, ended[n])
		}
	}
	if missing != nil { // the newest of each name
		for n, i := range ended {
			if lastOf(ended, i.Container) == n {
				out = append(out, i)
			}
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case missing != nil:
		return nil, missing
	}
	return nil, fmt.Errorf("%s: %w: it was not started yet", Key{app, container}, ErrNotRunning)
}

func lastOf(list []Instance, container string) int {
	for n := len(list) - 1; n >= 0; n-- {
		if list[n].Container == container {
			return n
		}
	}
	return -1
}

// ended lists kept containers by name.
func (a *Applier) ended(ctx context.Context, app, container string) ([]Instance, error) {
	r, ok := a.rt.(LogReader)
	if !ok {
		return nil, nil
	}
	list, err := r.Ended(ctx)
	return slices.DeleteFunc(list, func(i Instance) bool { return i.App != app || container != "" && i.Container != container }), err
}

// present returns the units of an app, or the one of that name.
func (a *Applier) present(app, container string) ([]*unit, error) {
	a.mu.Lock()
	t := a.cur
	a.mu.Unlock()
	if t == nil {
		return nil, fmt.Errorf("app %q: %w: it has no state to run yet", app, ErrUnknown)
	}
	n := slices.IndexFunc(t.apps, func(x nodestate.App) bool { return x.Name == app })
	if n < 0 {
		var have []string
		for _, x := range t.apps {
			have = append(have, x.Name)
		}
		return nil, fmt.Errorf("app %q: %w; it runs: %s", app, ErrUnknown, listed(have))
	}
	var out []*unit
	var have []string
	for _, c := range t.apps[n].Containers {
		have = append(have, c.Name)
		if container == "" || c.Name == container {
			out = append(out, t.units[Key{app, c.Name}])
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("app %q: container %q: %w; the app has: %s", app, container, ErrUnknown, listed(have))
	}
	return out, nil
}

func listed(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	const most = 20
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
