package status

import (
	"strings"
	"testing"
	"time"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

func TestJudge(t *testing.T) {
	now := start
	base := func() facts {
		return facts{want: wanted(7), wantSince: now.Add(-time.Hour), report: good("gw-1", 1, 7, now), heard: now, online: now.Add(-time.Hour), deadline: now.Add(wire.UnknownAfter)}
	}
	older := func(f *facts) { f.report = good("gw-1", 1, 6, now) }
	for name, c := range map[string]struct {
		do         func(f *facts)
		ready      hubapi.Readiness
		why        string // part of it
		conditions string
		unsettled  bool // not converged
	}{
		"well":             {func(*facts) {}, hubapi.Ready, "", "", false},
		"newer than known": {func(f *facts) { f.report = good("gw-1", 1, 8, now) }, hubapi.Ready, "", "", false},
		"no key":           {func(f *facts) { f.want.PublicKey = "" }, hubapi.Waiting, "no key", "", true},
		"never heard":      {func(f *facts) { f.report = nil }, hubapi.Unknown, "never", "", true},
		"silent":           {func(f *facts) { f.deadline = now }, hubapi.Unknown, "no status since 2026-11-24 12:00:00 UTC", "", false},
		"nearly silent":    {func(f *facts) { f.deadline = now.Add(1) }, hubapi.Ready, "", "", false},
		"not well":         {func(f *facts) { f.report.Well, f.report.Why = false, "web: exited with code 3" }, hubapi.NotReady, "exited with code 3", "", false},
		"not well, mute":   {func(f *facts) { f.report.Well = false }, hubapi.NotReady, "not well", "", false},
		"applying": {func(f *facts) {
			older(f)
			f.report.Well, f.report.Why, f.wantSince = false, "applying generation 7", now
		}, hubapi.NotReady, "applying generation 7", "", true},
		"just published": {func(f *facts) { older(f); f.wantSince = now.Add(-59 * time.Second) }, hubapi.Ready, "", "", true},
		"a minute ago": {func(f *facts) { older(f); f.wantSince = now.Add(-time.Minute) }, hubapi.NotReady,
			"runs generation 6, wanted is 7, not pulled yet", "", true},
		"frozen":               {func(f *facts) { older(f); f.report.State.LinkError = "connection refused" }, hubapi.NotReady, "has not pulled it: connection refused", "Behind", true},
		"frozen, but was away": {func(f *facts) { older(f); f.online = now.Add(-119 * time.Second) }, hubapi.NotReady, "not pulled yet", "", true},
		"pulled, prefetching": {func(f *facts) { older(f); f.report.State.Pulled.Generation, f.report.State.Phase = 7, "prefetch" }, hubapi.NotReady,
			"wanted is 7: prefetch", "", true},
		"rejected": {func(f *facts) {
			older(f)
			f.report.State.Rejected = []wire.Rejected{{Generation: 7}}
			f.report.Conditions = []wire.Condition{{Type: "Rejected", Message: "generation 7 failed"}}
		}, hubapi.NotReady, "generation 7 failed", "Rejected", true},
		"held by a person": {func(f *facts) {
			older(f)
			f.report.State.Hold = &wire.Hold{Reason: "audit"}
			f.report.Conditions = []wire.Condition{{Type: "Held", Message: "audit"}}
		}, hubapi.NotReady, "held: audit", "Held", true},
		"held by Git": {func(f *facts) { f.want.Held = "line 3 is wrong" }, hubapi.Ready, "", "Held", false},
		"refused": {func(f *facts) {
			f.report.Conditions = []wire.Condition{{Type: "DiskPressure"}, {Type: "Refused", Message: "wrong key"}}
		}, hubapi.NotReady, "wrong key", "DiskPressure Refused", false},
		"runtime down":     {func(f *facts) { f.report.Conditions = []wire.Condition{{Type: "RuntimeDown"}} }, hubapi.NotReady, "RuntimeDown", "RuntimeDown", false},
		"pressure":         {func(f *facts) { f.report.Conditions = []wire.Condition{{Type: "DiskPressure", Message: "91%"}} }, hubapi.Ready, "", "DiskPressure", false},
		"clock":            {func(f *facts) { f.skewOff, f.skew = true, -time.Hour }, hubapi.Ready, "", "ClockOff", false},
		"grants otherwise": {func(f *facts) { f.want.Remote.Exec = true }, hubapi.Ready, "", "Identity", false},
		"nothing to run":   {func(f *facts) { f.want.Generation = 0; f.report.State = wire.State{} }, hubapi.NotReady, "no state is published", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			f := base()
			c.do(&f)
			v := judge(f, now)
			var types []string
			for _, c := range v.conditions {
				if c.Since.IsZero() {
					t.Errorf("condition %s has no time", c.Type)
				}
				types = append(types, c.Type)
			}
			if v.ready != c.ready || !strings.Contains(v.why, c.why) || (v.why == "") != (c.why == "") || strings.Join(types, " ") != c.conditions || v.converged == c.unsettled {
				t.Errorf("got %s, why %q, conditions %v, converged %v", v.ready, v.why, types, v.converged)
			}
			if !v.next.IsZero() && !v.next.After(now) {
				t.Errorf("to be looked at again at %v, which has passed", v.next)
			}
		})
	}
}

// TestTime lets only time pass.
func TestTime(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7), "gw-2": {Workspace: site}})
	if w.status("gw-1") != "Unknown" || w.status("gw-2") != "Waiting" || w.status("gw-3") != "none" {
		t.Fatal("a new fleet:", w.status("gw-1"), w.status("gw-2"), w.status("gw-3"))
	}
	w.report(good("gw-1", 1, 7, w.now))
	w.pass(44 * time.Second)
	if got := w.status("gw-1"); got != "Ready" {
		t.Fatal("after 44 s:", got)
	}
	w.pass(2 * time.Second)
	if got := w.status("gw-1"); got != "Unknown" || w.reasons("gw-1") != "Unknown" {
		t.Fatal("after 46 s:", got, w.reasons("gw-1"))
	}
	w.pass(10 * time.Minute)
	w.report(good("gw-1", 2, 7, w.now))
	if got := w.status("gw-1"); got != "Ready" || w.reasons("gw-1") != "Unknown Back" {
		t.Fatal("again:", got, w.reasons("gw-1"))
	}

	// a new generation that it does not get
	w.Want(false, map[string]roster.Node{"gw-1": wanted(8)}, nil)
	for i := range uint64(20) {
		w.pass(10 * time.Second)
		w.report(good("gw-1", 3+i, 7, w.now))
		n, _ := w.Node("gw-1")
		if after := time.Duration(i+1) * 10 * time.Second; has(n.Conditions, "Behind") != (after >= behindAfter) || (n.Status == hubapi.NotReady) != (after >= changeGrace) {
			t.Fatalf("after %v: %s (%s) %v", after, n.Status, n.Why, n.Conditions)
		}
	}
	w.report(good("gw-1", 30, 8, w.now))
	if n, _ := w.Node("gw-1"); n.Status != hubapi.Ready || len(n.Conditions) != 0 || w.reasons("gw-1") != "Unknown Back Behind" {
		t.Fatal("it got it:", n.Status, n.Conditions, w.reasons("gw-1"))
	}
}

func TestClocks(t *testing.T) {
	for name, c := range map[string]struct {
		offsets []time.Duration // node minus hub when it was sent
		late    []time.Duration // on the way
		off     bool
		skew    string
	}{
		"an hour ahead":  {offsets: []time.Duration{time.Hour, time.Hour, time.Hour, time.Hour}, off: true, skew: "1h0m0s"},
		"an hour behind": {offsets: []time.Duration{-time.Hour, -time.Hour, -time.Hour, -time.Hour}, off: true, skew: "-1h0m0s"},
		"one late":       {offsets: make([]time.Duration, 4), late: []time.Duration{0, 0, 0, time.Minute}},
		"three late":     {offsets: make([]time.Duration, 4), late: []time.Duration{time.Minute, 0, time.Minute, time.Minute}},
		"the first late": {offsets: make([]time.Duration, 1), late: []time.Duration{time.Minute}, skew: "-1m0s"},
		"29 s":           {offsets: []time.Duration{29e9, 29e9, 29e9, 29e9}, skew: "29s"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.want(map[string]roster.Node{"gw-1": wanted(7)})
			for i, o := range c.offsets {
				w.pass(10 * time.Second)
				late := time.Duration(0)
				if i < len(c.late) {
					late = c.late[i]
				}
				w.report(good("gw-1", uint64(i+1), 7, w.now.Add(o-late)))
			}
			n, _ := w.Node("gw-1")
			if has(n.Conditions, "ClockOff") != c.off || n.ClockSkew != c.skew || n.Status != hubapi.Ready {
				t.Errorf("%v, skew %q, %s", n.Conditions, n.ClockSkew, n.Status)
			}
		})
	}
}
