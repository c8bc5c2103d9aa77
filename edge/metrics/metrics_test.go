package metrics_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"selvedge/edge/metrics"
)

func scrape(t *testing.T, s metrics.Snapshot) string {
	t.Helper()
	rec := httptest.NewRecorder()
	metrics.Handler(func() metrics.Snapshot { return s }).ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if rec.Code != 200 {
		t.Fatalf("%d: %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

func TestMetrics(t *testing.T) {
	got := scrape(t, metrics.Snapshot{Node: "gw-7", Generation: 4, Newest: 5, LastGood: 3, Phase: "applying", Healthy: true, Connected: true, Contact: 1700000000,
		Pulls: 12, Refusals: 1, Containers: []metrics.Container{
			{App: "web", Name: "main", State: "running", Healthy: true, Restarts: 2},
			{App: "web", Name: "main", State: "exited"}, // twice
			{App: "bad\xff\"\n", Name: "x", State: strings.Repeat("s", 100), Restarts: -1},
		}})
	for _, want := range []string{
		`selvedge_agent_generation{kind="running"} 4`, `selvedge_agent_generation{kind="newest"} 5`, `selvedge_agent_generation{kind="last-good"} 3`,
		`selvedge_agent_phase{phase="applying"} 1`, `selvedge_agent_phase{phase="idle"} 0`, `selvedge_agent_node_info{node="gw-7"} 1`,
		`selvedge_agent_apps_healthy 1`, `selvedge_agent_well 0`, `selvedge_agent_uplink_connected 1`, `selvedge_agent_pulls_total 12`,
		`selvedge_agent_container_state{app="web",container="main",state="running"} 1`, `selvedge_agent_container_restarts_total{app="web",container="main"} 2`,
		`selvedge_agent_container_state{app="bad?\"\n",container="x",state="unknown"} 1`, `selvedge_agent_registry_contact_timestamp_seconds 1.7e+09`,
		`selvedge_agent_build_info{`, "process_resident_memory_bytes", "go_goroutines",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("misses %s", want)
		}
	}
	if n := strings.Count(got, "\n") - strings.Count(got, "# "); n > 80 {
		t.Errorf("%d series", n)
	}
	problems, err := promlint.New(strings.NewReader(got)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestBounded(t *testing.T) {
	var s metrics.Snapshot
	for n := range metrics.MaxContainers + 7 {
		s.Containers = append(s.Containers, metrics.Container{App: "a", Name: fmt.Sprint(n)})
	}
	got := scrape(t, s)
	if n := strings.Count(got, "selvedge_agent_container_healthy{"); n != metrics.MaxContainers || !strings.Contains(got, "selvedge_agent_containers_not_told 7\n") {
		t.Errorf("tells %d containers", n)
	}
	if strings.Contains(got, "node_info{") || strings.Contains(got, "contact_timestamp_seconds ") {
		t.Error("tells of a node without a name, or a contact that never was")
	}
}
