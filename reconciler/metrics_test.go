package reconciler_test

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"selvedge/reconciler"
)

// TestErrorsBeginAtZero holds that errors of each step have a series before there is one: the
// first error is a growth that alerts can see.
func TestErrorsBeginAtZero(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(reconciler.New(reconciler.Config{}).Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "selvedge_reconciler_errors_total" && m.GetCounter().GetValue() == 0 {
				steps = append(steps, m.GetLabel()[0].GetValue())
			}
		}
	}
	if want := []string{"accept", "allow", "announce", "fetch", "publish", "resolve", "revoke", "trust", "validate"}; !slices.Equal(steps, want) {
		t.Errorf("series for %v, want %v", steps, want)
	}
}
