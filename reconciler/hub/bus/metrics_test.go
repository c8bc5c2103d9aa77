package bus

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"selvedge/schema/wire"
)

func TestCollectors(t *testing.T) {
	h := start(t, Config{})
	r := prometheus.NewPedanticRegistry()
	for _, c := range h.Collectors() {
		if err := r.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	n := join(t, h, "a")
	n.Publish(wire.StatusSubject("a"), []byte("{}"))
	h.until(t, "a status", func() bool { return len(h.statuses["a"]) == 1 })
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range all {
		if len(f.GetHelp()) == 0 {
			t.Error(f.GetName(), "has no help")
		}
		for _, m := range f.GetMetric() {
			got[f.GetName()] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{"selvedge_bus_connections": 1, "selvedge_bus_tunnels": 1, "selvedge_bus_streams": 0,
		"selvedge_bus_messages_total": 1, "selvedge_bus_dropped_total": 0, "selvedge_bus_tunnel_attempts_total": 1} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
}
