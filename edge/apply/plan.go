package apply

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"selvedge/schema/nodestate"
)

// hashVersion changes when the same spec has to be rendered differently, which
// makes every container start anew.
const hashVersion = "1"

// hash identifies what a container is made of. Probe and restart policy are left
// out: the agent alone acts on them, so changing them must not restart anything.
func hash(app string, c nodestate.Container) string {
	c.Probe, c.Restart = nil, ""
	b, err := json.Marshal(c) // map keys are sorted
	if err != nil {
		panic(err) // plain strings and numbers only
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s", hashVersion, app, b)
	return hex.EncodeToString(h.Sum(nil))[:32]
}

// plan is the difference between what should be there and what is.
type plan struct {
	remove []Instance // not wanted, changed, or one too many
	keep   map[Key]Instance
	start  []Key // to be created, in the order of the state
}

// diff compares the wanted containers with those present. Of several with the
// right hash it keeps the one that runs, else the newest generation.
func diff(want []Spec, have []Instance) plan {
	p := plan{keep: map[Key]Instance{}}
	wanted := map[Key]string{}
	for _, s := range want {
		wanted[s.Key()] = s.Hash
	}
	sorted := slices.Clone(have)
	slices.SortStableFunc(sorted, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(rank(b.State), rank(a.State)), cmp.Compare(b.Generation, a.Generation), cmp.Compare(a.ID, b.ID))
	})
	for _, i := range sorted {
		h, ok := wanted[i.Key()]
		_, taken := p.keep[i.Key()]
		if !ok || h != i.Hash || taken {
			p.remove = append(p.remove, i)
			continue
		}
		p.keep[i.Key()] = i
	}
	for _, s := range want {
		if _, ok := p.keep[s.Key()]; !ok {
			p.start = append(p.start, s.Key())
		}
	}
	return p
}

func rank(s State) int {
	switch s {
	case Running:
		return 2
	case Paused:
		return 1
	}
	return 0
}

// verdict is what to do about a container in some state.
type verdict int

const (
	bringUp  verdict = iota // start, start again or resume it
	watchIt                 // it runs
	finished                // it ended and is to stay so
	failed                  // it ended badly and is to stay so
)

// judge decides by restart policy: always, on-failure or never.
func judge(policy string, s State, exitCode int) verdict {
	switch s {
	case Running:
		return watchIt
	case Absent, Created, Paused:
		return bringUp
	}
	switch {
	case policy == "never" && s == Lost:
		return failed // it may have been half way: running it twice is not ours to decide
	case policy == "never" && exitCode != 0:
		return failed
	case policy == "never", policy == "on-failure" && s == Exited && exitCode == 0:
		return finished
	}
	return bringUp
}
