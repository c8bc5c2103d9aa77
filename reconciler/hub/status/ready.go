package status

import (
	"fmt"
	"slices"
	"time"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// Times of the verdict.
const (
	changeGrace = time.Minute      // a new generation may take that long before the node is not ready
	behindAfter = 2 * time.Minute  // and that long to be pulled before there is an alarm
	clockOff    = 30 * time.Second // difference of clocks that raises ClockOff
	clockOn     = 20 * time.Second // and that ends it, so that it does not flap
	clockBest   = 4                // statuses of which the quickest counts
)

// stopping are conditions with which no node is ready, the worst first.
var stopping = []string{wire.ConditionRefused, wire.ConditionRuntimeDown, wire.ConditionStore, wire.ConditionRejected, wire.ConditionBehind}

// facts are what a verdict rests on.
type facts struct {
	want      roster.Node
	wantSince time.Time    // the wanted generation was first heard of
	report    *wire.Status // nil: never heard of
	heard     time.Time    // the last status came
	online    time.Time    // since when statuses come without a gap
	deadline  time.Time    // then it is unknown
	skew      time.Duration
	skewOff   bool // skew is known and too large
	before    []wire.Condition
}

// verdict is how a node does.
type verdict struct {
	ready      hubapi.Readiness
	why        string
	conditions []wire.Condition
	converged  bool
	next       time.Time // when time alone may change it; zero: never
}

const neverReported = "it never reported"

// judge is pure.
func judge(f facts, now time.Time) verdict {
	v := verdict{}
	if r := f.report; r != nil {
		v.converged = f.want.Generation > 0 && r.State.Current.Generation >= f.want.Generation
	}
	switch {
	case f.want.PublicKey == "":
		v.ready, v.why = hubapi.Waiting, "Git has no key for it yet"
		v.conditions, v.converged = kept(f, nil, now), false
		return v
	case f.report == nil:
		v.ready, v.why = hubapi.Unknown, neverReported
		v.conditions = kept(f, nil, now)
		return v
	case !now.Before(f.deadline):
		v.ready, v.why = hubapi.Unknown, "no status since "+f.heard.UTC().Format("2006-01-02 15:04:05 MST")
		v.conditions = kept(f, f.report.Conditions, now)
		return v
	}
	v.next = f.deadline
	later := func(t time.Time) {
		if now.Before(t) && t.Before(v.next) {
			v.next = t
		}
	}

	s, want := f.report.State, f.want.Generation
	conditions := slices.Clip(f.report.Conditions)
	missing := want > 0 && s.Pulled.Generation < want && s.Current.Generation < want
	rejected := slices.ContainsFunc(s.Rejected, func(r wire.Rejected) bool { return r.Generation == want })
	if missing && !rejected && s.Hold == nil {
		since := f.wantSince
		if f.online.After(since) {
			since = f.online // it was off; now it has the time that every node has
		}
		if at := since.Add(behindAfter); now.Before(at) {
			later(at)
		} else {
			m := fmt.Sprintf("generation %d was published at %s and the node has not pulled it", want, f.wantSince.UTC().Format("15:04:05 MST"))
			if s.LinkError != "" {
				m += ": " + s.LinkError
			}
			conditions = append(conditions, wire.Condition{Type: wire.ConditionBehind, Message: m, Since: at})
		}
	}
	if f.skewOff {
		conditions = append(conditions, wire.Condition{Type: wire.ConditionClockOff, Message: "its clock is " + drift(f.skew)})
	}
	if v.converged && s.Current.Generation == want && f.report.Remote != f.want.Remote {
		conditions = append(conditions, wire.Condition{Type: wire.ConditionIdentity, Message: "it runs the wanted generation and grants the hub something else than Git says"})
	}
	v.conditions = kept(f, conditions, now)

	switch stop := stops(v.conditions); {
	case !f.report.Well && f.report.Why != "":
		v.why = f.report.Why
	case stop != "":
		v.why = stop
	case !f.report.Well:
		v.why = "it is not well"
		if s.Problem != "" {
			v.why = s.Problem
		}
	case want == 0:
		v.why = "no state is published for it"
	case !v.converged && !now.Before(f.wantSince.Add(changeGrace)):
		v.why = fmt.Sprintf("runs generation %d, wanted is %d", s.Current.Generation, want)
		switch {
		case s.Hold != nil:
			v.why += ": held: " + s.Hold.Reason
		case missing:
			v.why += ", not pulled yet"
		case s.Phase != "" && s.Phase != "idle":
			v.why += ": " + s.Phase
		}
	}
	if !v.converged {
		later(f.wantSince.Add(changeGrace))
	}
	if v.ready = hubapi.Ready; v.why != "" {
		v.ready = hubapi.NotReady
	}
	return v
}

// kept adds what Git holds back, and says since when conditions hold. It changes nothing in place.
func kept(f facts, conditions []wire.Condition, now time.Time) []wire.Condition {
	conditions = slices.Clone(conditions)
	if f.want.Held != "" && !has(conditions, wire.ConditionHeld) {
		conditions = append(conditions, wire.Condition{Type: wire.ConditionHeld, Message: "the newest commit does not reach it: " + f.want.Held})
	}
	for i := range conditions {
		c := &conditions[i]
		if !c.Since.IsZero() {
			continue
		}
		c.Since = now.UTC()
		for _, b := range f.before {
			if b.Type == c.Type {
				c.Since = b.Since
			}
		}
	}
	return conditions
}

func stops(conditions []wire.Condition) string {
	for _, t := range stopping {
		for _, c := range conditions {
			if c.Type == t && c.Message == "" {
				return t
			}
			if c.Type == t {
				return c.Message
			}
		}
	}
	return ""
}

func has(conditions []wire.Condition, kind string) bool {
	return slices.ContainsFunc(conditions, func(c wire.Condition) bool { return c.Type == kind })
}

func drift(d time.Duration) string {
	if d < 0 {
		return (-d).Round(time.Second).String() + " behind the hub's"
	}
	return d.Round(time.Second).String() + " ahead of the hub's"
}
