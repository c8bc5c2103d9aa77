package monitoring

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"selvedge/edge/metrics"
	"selvedge/reconciler"
	"selvedge/reconciler/hub/bus"
	"selvedge/reconciler/hub/enrol"
	"selvedge/reconciler/hub/registry"
	"selvedge/reconciler/hub/status"
	"selvedge/schema/roster"
	"selvedge/test/env"
)

const docs = "../../docs/monitoring"

// TestAlerts loads the rules, and has Prometheus play what they are for.
func TestAlerts(t *testing.T) {
	rules := filepath.Join(docs, "alerts.yaml")
	promtool(t, "check", "rules", rules)
	promtool(t, "test", "rules", "testdata/alerts_test.yaml")
	text, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	known(t, rules, string(text))
	played(t, text)
}

// played needs each rule to be played both ways: with an alert that fires, and without.
func played(t *testing.T, rules []byte) {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []struct{ Alert string } }
	}
	var plays struct {
		Tests []struct {
			Tests []struct {
				Alert string     `yaml:"alertname"`
				Fires []struct{} `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	text, err := os.ReadFile("testdata/alerts_test.yaml")
	if err := errors.Join(err, yaml.Unmarshal(rules, &file), yaml.Unmarshal(text, &plays)); err != nil {
		t.Fatal(err)
	}
	fires, rests := map[string]bool{}, map[string]bool{}
	for _, play := range plays.Tests {
		for _, p := range play.Tests {
			if len(p.Fires) > 0 {
				fires[p.Alert] = true
			} else {
				rests[p.Alert] = true
			}
		}
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if !fires[r.Alert] || !rests[r.Alert] {
				t.Errorf("%s: played with an alert: %v, without: %v", r.Alert, fires[r.Alert], rests[r.Alert])
			}
		}
	}
}

// hubs are two that see the same fleet, as Prometheus would have scraped them for half an hour.
var hubs = []string{
	`selvedge_fleet_nodes{status="Ready"} 7`, `selvedge_fleet_nodes{status="NotReady"} 3`, `selvedge_fleet_nodes_converged 7`,
	`selvedge_fleet_nodes_connected 10`, `selvedge_bus_connections 10`, `selvedge_bus_tunnels 5`, `selvedge_bus_streams 2`,
	`selvedge_fleet_workspace_nodes{workspace="a",status="Ready"} 4`, `selvedge_fleet_workspace_nodes{workspace="a",status="NotReady"} 3`,
	`selvedge_fleet_workspace_nodes{workspace="b",status="Ready"} 3`, `selvedge_fleet_workspace_nodes{workspace="b",status="NotReady"} 0`,
	`selvedge_fleet_workspace_nodes_converged{workspace="a"} 4`, `selvedge_fleet_workspace_nodes_converged{workspace="b"} 3`,
	`selvedge_fleet_instance_restarts_total 0+1x30`, `selvedge_fleet_reports_total 0+60x30`, `selvedge_fleet_reports_dropped_total{reason="flood"} 0+60x30`,
}

// TestPanels plays what panels show of two hubs: a fleet counts once, and what a hub alone
// carries is added.
func TestPanels(t *testing.T) {
	input := ""
	for _, line := range hubs {
		name, values, _ := strings.Cut(line, " ")
		if !strings.Contains(values, "x") {
			values += "x30"
		}
		base, labels, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
		for _, hub := range []string{"a", "b"} {
			input += fmt.Sprintf("      - {series: '%s{%s}', values: '%s'}\n", base, strings.TrimPrefix(labels+`,job="hub",instance="`+hub+`"`, ","), values)
		}
	}
	for _, c := range []struct{ board, panel, legend, want string }{
		{"fleet", "Not converged", "nodes", "[{value: 3}]"},
		{"fleet", "Connected", "nodes", "[{value: 10}]"},
		{"fleet", "Workspaces: nodes that are not converged", "{{workspace}}", `[{labels: '{workspace="a"}', value: 3}, {labels: '{workspace="b"}', value: 0}]`},
		{"fleet", "Restarts an hour", "restarts", "[{value: 30}]"},
		{"cloud", "Connections of the bus", "connections", "[{value: 10}]"},
		{"cloud", "Connections of the bus", "tunnels", "[{value: 10}]"},
		{"cloud", "Connections of the bus", "streams", "[{value: 4}]"},
		{"cloud", "Reports a second", "taken", "[{value: 1}]"},
		{"cloud", "Reports a second", "dropped: {{reason}}", `[{labels: '{reason="flood"}', value: 1}]`},
	} {
		expr := ""
		for _, p := range load(t, filepath.Join(docs, "grafana-"+c.board+".json")).Panels {
			for _, target := range p.Targets {
				if p.Title == c.panel && target.LegendFormat == c.legend {
					expr = target.Expr
				}
			}
		}
		name := filepath.Join(t.TempDir(), "test.yaml")
		text := fmt.Sprintf("evaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n%s    promql_expr_test:\n      - {expr: %q, eval_time: 30m, exp_samples: %s}\n", input, expr, c.want)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(c.panel+"/"+c.legend, func(t *testing.T) { promtool(t, "test", "rules", name) })
	}
}

// board is a dashboard, as far as is looked at here.
type board struct {
	UID, Title string
	Panels     []struct {
		ID      int
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, LegendFormat string }
	}
}

func load(t *testing.T, file string) (b board) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return b
}

// TestDashboards needs every expression of the dashboards to be PromQL, and each dashboard
// to be what Grafana imports.
func TestDashboards(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(docs, "grafana-*.json"))
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		board := load(t, file)
		if board.UID == "" || board.Title == "" || len(board.Panels) == 0 {
			t.Errorf("%s: no dashboard: %+v", file, board)
		}
		rules := "groups:\n- name: dashboard\n  rules:\n"
		ids := map[int]bool{}
		for _, p := range board.Panels {
			if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 || len(p.Targets) == 0 {
				t.Errorf("%s: panel %d %q: twice, too wide or empty", file, p.ID, p.Title)
			}
			ids[p.ID] = true
			for _, target := range p.Targets {
				rules += fmt.Sprintf("  - record: panel:%d\n    expr: %q\n    labels: {x: %q}\n", p.ID, target.Expr, target.Expr)
				known(t, file, target.Expr)
			}
		}
		name := filepath.Join(t.TempDir(), "rules.yaml")
		if err := os.WriteFile(name, []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		promtool(t, "check", "rules", name)
	}
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	_, err := exec.LookPath("promtool")
	env.Need(t, err)
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

var name = regexp.MustCompile(`\bselvedge_[a-z_]+`)

// known needs each metric that a text names to be served by one of our programs.
func known(t *testing.T, where, text string) {
	t.Helper()
	served := served(t)
	for _, m := range name.FindAllString(text, -1) {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(m, "_bucket"), "_count"), "_sum")
		if !served[m] && !served[base] {
			t.Errorf("%s names %s, which nothing serves", where, m)
		}
	}
}

var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

func served(t *testing.T) map[string]bool {
	t.Helper()
	dir := t.TempDir()
	store, err := status.Open(status.Config{Path: filepath.Join(dir, "status.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	b, err := bus.New(bus.Config{Dir: filepath.Join(dir, "bus")})
	if err != nil {
		t.Fatal(err)
	}
	pulls, err := registry.New(registry.Config{States: http.DefaultTransport, Base: &url.URL{},
		Node: func(*http.Request) (string, roster.Node, error) { return "", roster.Node{}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	all := append(store.Collectors(), b.Collectors()...)
	all = append(all, enrol.New(enrol.Config{}).Collectors()...)
	all = append(all, pulls.Collectors()...)
	all = append(all, reconciler.New(reconciler.Config{}).Collectors()...)
	names := map[string]bool{"selvedge_build_info": true, "selvedge_hub_roster_age_seconds": true, "selvedge_hub_reconciler_connected": true, "selvedge_hub_audit_failures_total": true}
	for _, c := range all {
		descs := make(chan *prometheus.Desc, 100)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			names[fqName.FindStringSubmatch(d.String())[1]] = true
		}
	}
	w := httptest.NewRecorder()
	metrics.Handler(func() metrics.Snapshot { return metrics.Snapshot{} }).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, m := range name.FindAllString(w.Body.String(), -1) {
		names[m] = true
	}
	return names
}
