package console

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// names of plant's nodes that connect; line2-gw-03 never does, and lab-new has no key.
var connected = []string{"line1-gw-01", "line1-gw-02", "line1-gw-03", "line1-gw-04", "line1-gw-05", "line1-gw-06", "line2-gw-01", "line2-gw-02", "line2-gw-04", "lab-7kq2m9"}

func populated(t *testing.T) (*bed, *crew) {
	t.Helper()
	start(t)
	b := newBed(t, plant())
	c := b.connect(story, connected...)
	c.links["line1-gw-03"].Event(wire.Event{Severity: "error", Reason: "RolledBack", App: "camera", Generation: 12, Message: "camera was not healthy within 60s; generation 11 runs again"})
	c.links["line1-gw-05"].Event(wire.Event{Severity: "warning", Reason: "Unhealthy", App: "camera", Container: "uploader", Message: "exited with code 137: killed, out of memory (64 MiB)"})
	c.links["line2-gw-04"].Event(wire.Event{Severity: "warning", Reason: "Strange", Message: hostile})
	c.links["line1-gw-01"].Event(wire.Event{Severity: "info", Reason: "Started", App: "camera", Container: "camera", Generation: 12, Message: "started"})
	at := time.Now()
	b.tell(roster.Event{Changes: []roster.Change{
		{Commit: commit(2, "Add the lab in Berlin"), At: at.Add(-2 * time.Hour), Nodes: map[string]int64{"lab-7kq2m9": 12}},
		{Commit: commit(3, "mqtt: keep messages over restarts"), At: at.Add(-50 * time.Minute), Nodes: map[string]int64{"line1-gw-01": 12, "line1-gw-02": 12, "line2-gw-01": 12}, Removed: []string{"line1-gw-99"}},
		{Commit: commit(4, "Limit the camera's memory"), At: at.Add(-4 * time.Minute), Nodes: map[string]int64{"line1-gw-01": 12, "line1-gw-02": 12, "line1-gw-03": 12, "line1-gw-04": 12, "line1-gw-05": 12, "line2-gw-03": 12}},
	}})
	return b, c
}

func TestSignIn(t *testing.T) { scenario(t, signIn) }

func signIn(t *testing.T) {
	b := newEmpty(t)
	p := b.open(t)
	p.visit("/nodes?q=x")
	p.sees("h1", "Sign in")
	p.run(chromedp.SendKeys("#token", "selvedge_wrong"), chromedp.Submit("#token"))
	p.sees("[role=alert]", "no token that Git knows")
	p.run(chromedp.SendKeys("#token", token("old")), chromedp.Submit("#token"))
	p.sees("[role=alert]", "expired")
	p.run(chromedp.SendKeys("#token", token("ana")), chromedp.Submit("#token"))
	p.sees(".who", "user:ana")
	p.awaits(`location.pathname + location.search === "/nodes?q=x"`)
	if !p.truth(`document.cookie === ""`) {
		t.Error("a script can read the session")
	}
	p.run(press(".who button"))
	p.sees("h1", "Sign in")
	p.visit("/")
	p.sees("h1", "Sign in")
}

func newEmpty(t *testing.T) *bed {
	t.Helper()
	start(t)
	return newBed(t, map[string]roster.Node{})
}

// TestEmptyToGone is a hub without nodes, that goes away and comes back, and a token that is
// revoked while its holder looks on.
func TestEmptyToGone(t *testing.T) { scenario(t, emptyToGone) }

func emptyToGone(t *testing.T) {
	b := newEmpty(t)
	p := b.open(t)
	p.signIn("ana", "/")
	p.sees(".empty", "selvedge node join")
	p.visit("/nodes")
	p.sees(".empty", "No nodes yet")
	p.visit("/nodes?labels=%3D%3D%3D")
	p.sees("[role=alert]", "This filter does not work")
	p.visit("/nodes/nowhere")
	p.sees(".problem", "no node")
	p.visit("/nothing/here")
	p.sees(".problem", "no such page")
	p.visit("/")
	p.sees(".title", "Acme Robotics")
	p.calmly(func() {
		b.end(syscall.SIGKILL)
		p.sees("#banner", "cannot be reached")
		p.shot("away-light")
		b.start()
		p.misses("#banner", "cannot be reached")
		b.fleet.Platform = "Acme Reborn"
		b.tell(roster.Event{Fleet: &b.fleet})
		p.sees(".title", "Acme Reborn")
	})
	b.fleet.Error = "folders/lab/nodes.cue:12:5: unknown app \"tmp\"\n<script>document.title='owned'</script>"
	b.fleet.Seen = commit(9, "Break <b>it</b>")
	b.tell(roster.Event{Fleet: &b.fleet})
	p.sees("[role=alert]", "unknown app")
	delete(b.fleet.Identities, "ana")
	b.tell(roster.Event{Fleet: &b.fleet})
	p.sees("h1", "Sign in")
	p.sees("[role=status]", "Your session has ended")
}

func TestFleet(t *testing.T) { scenario(t, fleet) }

func fleet(t *testing.T) {
	b, c := populated(t)
	code := b.ask("lab-box")
	p := b.open(t)
	p.signIn("ana", "/")
	p.sees("#part-trouble", "line1-gw-03")
	p.sees("#part-lately", "RolledBack")
	p.sees("#part-places", "Line 1")

	// live: what changes shows without loading, and what has the focus keeps it
	p.run(chromedp.Focus(`#part-places a[href*="line-1"]`))
	b.fleet.Platform = "Acme Live"
	b.tell(roster.Event{Fleet: &b.fleet})
	p.sees(".title", "Acme Live")
	if !p.truth(`document.activeElement.closest("#part-places") !== null`) {
		t.Error("an update took the focus")
	}

	p.run(chromedp.Click(`.top nav a[href="/nodes"]`))
	p.sees(".count", "12 nodes")
	p.run(chromedp.SetValue("select[name=status]", "NotReady"))
	p.sees("table.nodes", "line1-gw-03")
	p.misses("table.nodes", "line1-gw-01")
	p.awaits(`location.search.includes("status=NotReady")`)
	p.run(chromedp.NavigateBack())
	p.sees("table.nodes", "line1-gw-01")
	p.awaits(`document.readyState === "complete"`) // its script, too
	p.run(chromedp.KeyEvent("/"))
	p.awaits(`document.activeElement.name === "q"`)
	p.run(chromedp.Evaluate[chromedp.Void](`document.activeElement.value = ""`), chromedp.KeyEvent("lab")) // the driver types the / all the same
	p.sees(".count", "2 nodes")
	p.run(chromedp.Evaluate[chromedp.Void](`document.activeElement.blur()`), chromedp.KeyEvent("j"), chromedp.KeyEvent("j"))
	p.awaits(`document.activeElement.innerText === "lab-new"`)
	p.run(chromedp.KeyEvent("k"), chromedp.KeyEvent(kb.Enter))
	p.sees("h1", "lab-7kq2m9")

	p.visit("/pending")
	p.sees(".pending", code)
	p.sees(".cmd", "selvedge node approve "+code)
	p.sees(".pending", "lab-pc-<b>4</b>")
	p.run(press(chromedp.CSS(`.pending button[popovertarget]`)), chromedp.WaitVisible(chromedp.CSS(".confirm:popover-open")), press(chromedp.CSS(".confirm:popover-open .danger")))
	p.sees("#notices", "Rejected")
	p.sees(".empty", "No machine waits")

	p.visit("/changes")
	p.run(press(`//a[contains(., "Limit the camera")]`))
	p.sees("#part-detail", "line1-gw-03")
	p.sees("#part-detail", "failed")
	p.visit("/events?severity=error")
	p.sees("table.events", "RolledBack")
	p.misses("table.events", "Unhealthy")
	c.links["line1-gw-02"].Event(wire.Event{Severity: "error", Reason: "Fresh", Message: "just happened"})
	p.sees("table.events", "just happened")
}

func TestNode(t *testing.T) { scenario(t, node) }

func node(t *testing.T) {
	b, c := populated(t)
	p := b.open(t)
	p.signIn("ana", "/nodes/line1-gw-01")
	p.sees("#part-head", "Ready")
	p.sees("#part-events", "Started")
	p.awaits(`document.querySelectorAll("#part-charts svg path.line").length === 2`)
	if !p.truth(`[...document.querySelectorAll("#part-apps tr")].every(tr => [...tr.cells].every((c, i) => {
		const r = document.createRange();
		r.selectNodeContents(c);
		return i + 1 >= tr.cells.length || r.getBoundingClientRect().right <= tr.cells[i + 1].getBoundingClientRect().left + 1;
	}))`) {
		t.Error("what is in a cell of an instance reaches into the next one")
	}

	p.run(press(chromedp.CSS(`tr:nth-child(2) [data-log-open]`)))
	p.sees("[data-log-lines]", "INFO camera/uploader")
	p.sees("[data-log-lines]", "live line 5")
	p.sees("[data-log-lines]", "<b>not bold</b>")
	p.misses("[data-log-lines]", "[31m")
	p.awaits(`(b => b.scrollTop + b.clientHeight > b.scrollHeight - 40)(document.querySelector("[data-log-lines]"))`)
	p.shot("node-log-light")
	p.run(press("[data-log-start]"))
	p.sees("[data-log-state]", "Stopped")

	p.run(press(chromedp.CSS(`#part-apps tr:first-child button[popovertarget]`)), chromedp.WaitVisible(chromedp.CSS(".confirm:popover-open")))
	p.shot("node-confirm-light")
	p.run(press(chromedp.CSS(`.confirm:popover-open [popovertargetaction=hide]`)))
	p.awaits(`document.querySelector(".confirm:popover-open") === null`)
	p.run(press(chromedp.CSS(`#part-apps tr:first-child button[popovertarget]`)), chromedp.WaitVisible(chromedp.CSS(".confirm:popover-open")), press(chromedp.CSS(".confirm:popover-open .danger")))
	p.sees("#notices", "was restarted")
	p.shot("node-restarted-light")
	select {
	case got := <-c.restarts:
		if got != "line1-gw-01 camera camera" {
			t.Error(got)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing was restarted")
	}

	p.visit("/nodes/line2-gw-04")
	p.sees("#part-head", "<script>")
	if !p.truth(`!document.title.includes("owned") && document.querySelector("main img, main script") === null`) {
		t.Error("a node's text became part of the page")
	}

	vera := b.open(t)
	vera.signIn("vera", "/nodes/line1-gw-01")
	vera.sees("#part-apps", "camera")
	if !vera.truth(`document.querySelector("[popovertarget]") === null`) {
		t.Error("who only looks on sees a button to restart")
	}
	vera.visit("/nodes/lab-7kq2m9")
	vera.sees(".problem", "no node")
}

// TestLook takes pictures of all pages. People look at them; the test sees to it that they
// are not blank, are dark where they should be, and fit into 400 pixels.
func TestLook(t *testing.T) { scenario(t, look) }

func look(t *testing.T) {
	b, _ := populated(t)
	b.ask("lab-box")
	b.fleet.Problems = []roster.Problem{{Severity: "warning", Workspace: line2, Text: "device plc-1 has no route; its values reach nobody"}}
	b.tell(roster.Event{Fleet: &b.fleet})
	p := b.open(t)
	p.screen("light")
	p.visit("/")
	p.shot("login-light")
	p.signIn("ana", "/")
	for _, page := range []string{"/", "/nodes", "/nodes/line1-gw-03", "/nodes/line1-gw-05", "/nodes/line2-gw-04", "/changes", "/changes/" + commit(4, "").Hash, "/pending", "/events", "/nodes/nowhere", "/nodes?q=nothing"} {
		p.visit(page)
		for _, screen := range []string{"light", "dark", "narrow"} {
			p.screen(screen)
			name := strings.Trim(strings.NewReplacer("/", "-", "?", "-", "=", "-").Replace(page), "-")
			if name == "" {
				name = "fleet"
			}
			p.shot(name[:min(len(name), 24)] + "-" + screen)
		}
	}
}
