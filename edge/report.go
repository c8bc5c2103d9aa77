package edge

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"sync"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/measure"
	"selvedge/internal/version"
	"selvedge/schema/wire"
)

// gauge measures, for whoever asks; what was just measured is not measured again.
type gauge struct {
	mu         sync.Mutex
	meter      *measure.Meter
	machine    wire.Machine
	at         time.Time
	usage      wire.Usage
	conditions []wire.Condition
	containers map[string]wire.Usage // by ID
	runtime    string                // its program's name and version
	root       string                // where it keeps images and what containers write; "": not known
	asked      time.Time             // for both
	since      map[string]time.Time  // of conditions
}

// measured is how long a measure counts.
const measured = 4 * time.Second

func (g *gauge) init(c Config) {
	g.meter = measure.New(measure.Config{Dir: c.Dir})
	g.since = map[string]time.Time{}
}

// look measures what is to be measured. Containers are asked one after the other: a runtime
// that does not answer costs its time once.
func (g *gauge) look(rt apply.Runtime, apps []apply.App) {
	if time.Since(g.at) < measured {
		return
	}
	if g.machine.Arch == "" || time.Since(g.at) > time.Hour {
		g.machine = g.meter.Machine()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	g.ask(ctx, rt)
	g.usage, g.conditions = g.meter.Usage(g.root)
	g.containers = map[string]wire.Usage{}
	g.at = time.Now()
	meter, ok := rt.(apply.Meter)
	if !ok {
		return
	}
	for _, app := range apps {
		for _, c := range app.Containers {
			if c.State != apply.Running || c.ID == "" {
				continue
			}
			if u, err := meter.Usage(ctx, c.ID); err == nil {
				g.containers[c.ID] = u
			} else if ctx.Err() != nil {
				return
			}
		}
	}
}

// ask asks the runtime what it is, now and then: it may be upgraded under us.
func (g *gauge) ask(ctx context.Context, rt apply.Runtime) {
	if !g.asked.IsZero() && time.Since(g.asked) < time.Minute {
		return
	}
	if v, ok := rt.(apply.Versioner); ok {
		version, err := v.Version(ctx)
		if err != nil {
			return
		}
		g.runtime, g.asked = version, time.Now()
	}
	if r, ok := rt.(apply.Rooted); ok {
		if root, err := r.Root(ctx); err == nil {
			g.root = root
		}
	}
}

// Report returns what a hub is told of this node, all but node, epoch, number and time.
func (a *Agent) Report() wire.Status {
	s := a.Status()
	g := &a.gauge
	g.mu.Lock()
	defer g.mu.Unlock()
	g.look(a.cfg.Runtime, s.Apply.Apps)
	usage := g.usage
	w := wire.Status{
		Node:    s.Node,
		Agent:   wire.Agent{Version: version.Version, Started: a.started.UTC().Round(0), Runtime: g.runtime, Memory: resident()},
		Machine: g.machine, Usage: &usage, State: state(s), Well: s.Well(), Why: s.Why(),
	}
	if a.ready.Load() {
		w.Remote = a.remote()
	}
	for _, app := range s.Apply.Apps {
		x := wire.App{Name: app.Name, Healthy: app.Healthy}
		for _, c := range app.Containers {
			i := wire.Instance{Name: c.Name, ID: c.ID, Image: c.Image, State: string(c.State), Healthy: c.Healthy, Restarts: c.Restarts,
				ExitCode: c.ExitCode, LastExit: wire.LastExit(c.LastExit), Since: c.Since, Problem: c.Problem}
			if u, ok := g.containers[c.ID]; ok {
				i.Usage = &u
			}
			x.Containers = append(x.Containers, i)
		}
		w.Apps = append(w.Apps, x)
	}
	w.Conditions = g.holding(append(conditions(s), g.conditions...))
	return w
}

// state tells where the node stands between states.
func state(s Status) wire.State {
	ref := func(generation int64, digest, commit string) wire.Ref {
		return wire.Ref{Generation: generation, Digest: digest, Commit: commit}
	}
	w := wire.State{Phase: string(s.Update.Phase), Problem: s.Update.Error, Contact: s.Link.Contact, LinkError: s.Link.Error}
	w.Pulled = ref(s.Store.Floor.Generation, s.Store.Floor.Digest, "")
	if w.Contact.IsZero() {
		w.Contact = s.Store.LastContact
	}
	if c := s.Store.Current; c != nil {
		w.Current = ref(c.Generation, c.Digest, c.Commit)
	}
	if g := s.Store.LastGood; g != nil {
		w.LastGood = ref(g.Generation, g.Digest, g.Commit)
	}
	for _, r := range []wire.Ref{w.Current, w.LastGood} {
		if r.Digest == w.Pulled.Digest {
			w.Pulled.Commit = r.Commit
		}
	}
	if p := s.Store.Pending; p != nil && p.Generation == w.Pulled.Generation {
		w.Pulled.Commit = p.Commit
	}
	for _, r := range s.Store.Rejected {
		w.Rejected = append(w.Rejected, wire.Rejected{Generation: r.Generation, At: r.At, Reason: r.Reason})
	}
	if r := s.Refused; r != nil {
		w.Refused = &wire.Refused{Reason: r.Reason, Message: r.Message, Since: r.Since, Count: r.Count}
	}
	if h := s.Store.Hold; h != nil {
		w.Hold = &wire.Hold{Reason: h.Reason, Since: h.Since}
	}
	return w
}

// conditions are what holds besides health.
func conditions(s Status) (list []wire.Condition) {
	add := func(kind, message string, since time.Time) {
		list = append(list, wire.Condition{Type: kind, Message: message, Since: since})
	}
	if s.Apply.RuntimeError != "" {
		add(wire.ConditionRuntimeDown, s.Apply.RuntimeError, time.Time{})
	}
	if h := s.Store.Hold; h != nil {
		add(wire.ConditionHeld, h.Reason, h.Since)
	}
	if n := len(s.Store.Rejected); n > 0 && s.Store.Rejected[n-1].Generation == s.Store.Floor.Generation {
		add(wire.ConditionRejected, s.Store.Rejected[n-1].Reason, s.Store.Rejected[n-1].At)
	}
	if r := s.Refused; r != nil {
		add(wire.ConditionRefused, r.Message, r.Since)
	}
	if p := s.Store.Problems; len(p) > 0 {
		add(wire.ConditionStore, p[len(p)-1], time.Time{})
	}
	return list
}

// holding dates conditions that have no date of their own.
func (g *gauge) holding(list []wire.Condition) []wire.Condition {
	now := map[string]time.Time{}
	for n := range list {
		c := &list[n]
		if c.Since.IsZero() {
			if c.Since = g.since[c.Type]; c.Since.IsZero() {
				c.Since = time.Now().UTC().Round(0)
			}
		}
		now[c.Type] = c.Since
	}
	g.since = now
	return list
}

// Why says why a node is not well, in short; "" if it is.
func (s Status) Why() string {
	switch {
	case s.Well():
		return ""
	case !s.Running:
		return "the agent does not run"
	case s.Node == "":
		return "it waits to be let in"
	case s.Refused != nil:
		return "an answer was refused: " + s.Refused.Message
	case s.Apply.RuntimeError != "":
		return s.Apply.RuntimeError
	case s.Update.Error != "" && s.Update.Phase != OnHold:
		return s.Update.Error
	case s.Store.Hold != nil:
		return "held: " + s.Store.Hold.Reason
	case s.Store.Current == nil && s.Link.Error != "":
		return s.Link.Error
	case s.Store.Current == nil:
		return "it has no state yet"
	}
	for _, app := range s.Apply.Apps {
		for _, c := range app.Containers {
			if !c.Healthy {
				why := c.Problem
				if why == "" {
					why = "not healthy yet"
				}
				return app.Name + "/" + c.Name + ": " + why
			}
		}
	}
	return "generation " + strconv.FormatInt(s.Store.Floor.Generation, 10) + " is on its way"
}

// resident is this process's memory in bytes, or 0.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
	return pages * int64(os.Getpagesize())
}
