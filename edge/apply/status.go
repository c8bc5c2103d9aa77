package apply

import "time"

// Status is what an Applier keeps running at the moment.
type Status struct {
	Generation   int64  `json:"generation"` // of the state being worked on; 0: none yet
	Digest       string `json:"digest,omitempty"`
	Healthy      bool   `json:"healthy"`                // every container is
	RuntimeError string `json:"runtimeError,omitempty"` // why the runtime does not answer
	Apps         []App  `json:"apps,omitempty"`
}

// App is one app's part of a Status.
type App struct {
	Name       string            `json:"name"`
	Healthy    bool              `json:"healthy"`
	Containers []ContainerStatus `json:"containers"`
}

// ContainerStatus is one container's part of a Status.
type ContainerStatus struct {
	Name     string    `json:"name"`
	ID       string    `json:"id,omitempty"`
	Image    string    `json:"image"`
	State    State     `json:"state"`
	Healthy  bool      `json:"healthy"`
	Restarts int       `json:"restarts"`         // by this agent since it supervises this version
	Asked    int       `json:"asked,omitempty"`  // restarts that people asked for; not in Restarts
	Asking   bool      `json:"asking,omitempty"` // such a restart is under way
	ExitCode int       `json:"exitCode"`         // when exited
	LastExit Exit      `json:"lastExit,omitzero"`
	Since    time.Time `json:"since,omitzero"`
	Problem  string    `json:"problem,omitempty"`
}

// Exit is how a run ended. The zero value: none was seen to end.
type Exit struct {
	Code   int       `json:"code"` // if it ended by itself
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"` // it did not end by itself
}

// Status returns a snapshot; it asks nobody.
func (a *Applier) Status() Status {
	a.mu.Lock()
	t, down := a.cur, a.down
	a.mu.Unlock()
	var s Status
	if down != nil {
		s.RuntimeError = down.Error()
	}
	if t == nil {
		return s
	}
	s.Generation, s.Digest, s.Healthy = t.generation, t.digest, true
	for _, app := range t.apps {
		x := App{Name: app.Name, Healthy: true}
		for _, c := range app.Containers {
			cs := t.units[Key{app.Name, c.Name}].status()
			x.Healthy = x.Healthy && cs.Healthy
			x.Containers = append(x.Containers, cs)
		}
		s.Healthy = s.Healthy && x.Healthy
		s.Apps = append(s.Apps, x)
	}
	return s
}

// noteEnd notes an end that nobody here brought about: a crash loop is mostly seen running.
func (u *unit) noteEnd(i Instance) {
	was := u.inst
	switch {
	case i.State == Exited && (was.State != Exited || !was.Since.Equal(i.Since)):
		u.exit = Exit{Code: i.ExitCode, At: i.Since}
	case i.State == Lost && was.State != Lost && was.State != Exited: // exited: we stopped it
		u.exit = Exit{Reason: howEnded(i), At: i.Since}
	default:
		return
	}
	if u.exit.At.IsZero() {
		u.exit.At = time.Now()
	}
}

func (u *unit) status() ContainerStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := ContainerStatus{Name: u.spec.Container.Name, ID: u.inst.ID, Image: u.spec.Container.Image, State: u.inst.State,
		Healthy: u.health == healthy, Restarts: u.restarts, Asked: u.byAsk, Asking: u.asking.Load(), LastExit: u.exit, Since: u.inst.Since, Problem: u.problem}
	if s.State == "" {
		s.State = Absent
	}
	if s.State == Exited {
		s.ExitCode = u.inst.ExitCode
	}
	return s
}
