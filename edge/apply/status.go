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
	Since    time.Time `json:"since,omitzero"`
	Problem  string    `json:"problem,omitempty"`
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

func (u *unit) status() ContainerStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := ContainerStatus{Name: u.spec.Container.Name, ID: u.inst.ID, Image: u.spec.Container.Image, State: u.inst.State,
		Healthy: u.health == healthy, Restarts: u.restarts, Asked: u.byAsk, Asking: u.asking.Load(), Since: u.inst.Since, Problem: u.problem}
	if s.State == "" {
		s.State = Absent
	}
	if s.State == Exited {
		s.ExitCode = u.inst.ExitCode
	}
	return s
}
