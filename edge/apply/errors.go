package apply

import (
	"fmt"
	"strings"
)

// Unhealthy says why a state was not healthy by its deadline.
type Unhealthy struct {
	Generation int64
	Reasons    []Reason
}

// Reason is one container that did not become healthy.
type Reason struct {
	App       string
	Container string
	Problem   string   // what is wrong and what to do
	Log       []string // the last lines that it printed
}

func (e *Unhealthy) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "generation %d is not healthy", e.Generation)
	for i, r := range e.Reasons {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%sapp %q: container %q: %s", sep, r.App, r.Container, r.Problem)
		if len(r.Log) > 0 {
			fmt.Fprintf(&b, " (last printed: %q)", r.Log[len(r.Log)-1])
		}
	}
	return b.String()
}
