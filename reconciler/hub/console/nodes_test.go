package console

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// TestPager turns the pages of a list, to its end and back.
func TestPager(t *testing.T) {
	nodes := map[string]roster.Node{}
	for i := range 450 {
		nodes[fmt.Sprintf("gw-%03d", i)] = roster.Node{Workspace: "folders/munich/line-1"}
	}
	w := newWorld(t, opstest.Config{Nodes: nodes})
	link := func(body, text string) string {
		m := regexp.MustCompile(`href="([^"]*)"[^>]*>` + text).FindStringSubmatch(body)
		if m == nil {
			return ""
		}
		return strings.NewReplacer("&amp;", "&", "&#43;", "+").Replace(m[1])
	}
	var seen []string // the first node of each page
	at := "/nodes?sort=-name"
	turn := func(text string) {
		for at != "" {
			a := w.ask("GET", at, "root", nil)
			m := regexp.MustCompile(`>(gw-\d+)</a>`).FindStringSubmatch(a.body)
			if m == nil {
				t.Fatalf("%s: %s", at, a.body)
			}
			seen = append(seen, m[1])
			if next := link(a.body, text); next != "" || text == "‹ Previous" {
				at = next
				continue
			}
			if !strings.Contains(a.body, "401–450") {
				t.Errorf("the last page says: %s", regexp.MustCompile("[0-9]+–[0-9]+ of [0-9]+").FindString(a.body))
			}
			return
		}
	}
	turn("Next ›")
	turn("‹ Previous")
	if got := strings.Join(seen, " "); got != "gw-449 gw-349 gw-249 gw-149 gw-049 gw-049 gw-149 gw-249 gw-349 gw-449" {
		t.Error(got)
	}
	// a trail that is too long loses its beginning, and no page an item
	if a := w.ask("GET", "/nodes?continue="+strings.Repeat("x", 10)+"&before="+strings.Repeat(".abc", 250), "root", nil); a.StatusCode != 200 {
		t.Error(a.StatusCode)
	}
}

func TestFolders(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	w.Join(t, "be-1")
	for _, page := range []string{"/nodes", "/events"} {
		if a := w.ask("GET", page, "root", nil); !strings.Contains(a.body, `<option value="folders/munich/*">munich/*</option>`) {
			t.Errorf("%s offers no folder:\n%s", page, a.body)
		}
		if a := w.ask("GET", page+"?workspace=folders/munich/*", "root", nil); !strings.Contains(a.body, `<option value="folders/munich/*" selected>`) || strings.Contains(a.body, `href="/nodes/be-1"`) {
			t.Errorf("%s in a folder:\n%s", page, a.body)
		}
	}
	if a := w.ask("GET", "/nodes?workspace=folders/munich/*", "root", nil); !strings.Contains(a.body, `href="/nodes/mu-1"`) {
		t.Error(a.body)
	}
}

// TestManyConditions is a node that makes conditions up: they do not fill the fleet's page.
func TestManyConditions(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	w.report("mu-1", func(s *wire.Status) {
		for i := range 30 {
			s.Conditions = append(s.Conditions, wire.Condition{Type: fmt.Sprintf("Made%d", i)})
		}
	})
	a := w.ask("GET", "/", "root", nil)
	if n := strings.Count(a.body, `class="chip"`); n != 12 || !strings.Contains(a.body, "and 18 more") {
		t.Errorf("%d are shown\n%s", n, a.body)
	}
}
