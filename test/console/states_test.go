package console

import (
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"selvedge/schema/roster"
)

// shots takes a page's picture on every screen.
func (p *person) shots(name string) {
	p.t.Helper()
	for _, screen := range []string{"light", "dark", "narrow"} {
		p.screen(screen)
		p.shot(name + "-" + screen)
	}
	p.screen("light")
}

func TestStates(t *testing.T) { scenario(t, states) }

// states are what pages look like when there is nothing to show, or something is wrong.
func states(t *testing.T) {
	b := newEmpty(t)
	p := b.open(t)
	p.visit("/nodes")
	p.sees("h1", "Sign in")
	p.run(chromedp.SendKeys("#token", "selvedge_wrong"), chromedp.Submit("#token"))
	p.sees("[role=alert]", "no token that Git knows")
	p.shots("login-wrong")
	p.visit("/login?ended=1&next=/nodes")
	p.sees("[role=status]", "has ended")
	p.shots("login-ended")
	p.signIn("ana", "/")
	for name, want := range map[string][3]string{
		"empty-fleet": {"/", ".empty", "selvedge node join"}, "empty-nodes": {"/nodes", ".empty", "No nodes yet"}, "empty-changes": {"/changes", ".empty", "No changes yet"},
		"empty-events": {"/events", ".none", "Nothing has happened"}, "empty-pending": {"/pending", ".empty", "No machine waits"}, "bad-filter": {"/nodes?labels=%3D%3D%3D", "[role=alert]", "write it as kubectl does"},
		"no-such-node": {"/nodes/nowhere", ".problem", "no node"}, "no-such-page": {"/nothing/here", ".problem", "no such page"},
	} {
		p.visit(want[0])
		p.sees(want[1], want[2])
		p.shots(name)
	}
	p.visit("/")
	p.sees(".title", "Acme Robotics")
	p.calmly(func() {
		b.end(syscall.SIGKILL)
		p.sees("#banner", "cannot be reached")
		p.shots("away")
		b.start()
		p.misses("#banner", "cannot be reached")
	})
	b.fleet.Error = "folders/lab/nodes.cue:12:5: unknown app \"tmp\"\nfolders/lab/nodes.cue:15:5: node \"lab-1\": its label site has 300 characters, and a label has 63 at most; shorten it"
	b.fleet.Seen = commit(9, "Break <b>it</b>")
	b.tell(roster.Event{Fleet: &b.fleet})
	p.sees("[role=alert]", "unknown app")
	p.shots("not-in-force")
}

func TestWaiting(t *testing.T) { scenario(t, waiting) }

// waiting is for answers that take long: each page says that it waits, and for what.
func waiting(t *testing.T) {
	b, c := populated(t)
	p := b.open(t)
	p.signIn("ana", "/")
	stop := p.meddle(`*/nodes\?*`, held)
	p.visit("/nodes")
	p.sees("table.nodes", "line1-gw-03")
	p.awaits(`document.readyState === "complete"`)
	if p.truth(`document.querySelector(".filter .clear").checkVisibility()`) {
		t.Error("there is a filter to clear")
	}
	p.run(chromedp.SetValue("select[name=workspace]", "folders/munich/*"))
	p.awaits(`getComputedStyle(document.querySelector("#loading")).opacity === "1"`)
	p.shots("loading")
	stop()
	p.sees(".count", "10 nodes")
	p.awaits(`getComputedStyle(document.querySelector("#loading")).opacity === "0"`)
	p.run(press(".filter .clear"))
	p.sees(".count", "12 nodes")

	stop = p.meddle(`*/log\?*`, held)
	p.visit("/nodes/line1-gw-01")
	p.sees("#part-apps", "uploader")
	p.awaits(`document.readyState === "complete"`)
	p.run(press("[data-log-start]"))
	p.sees("[data-log-state]", "Connecting …")
	if !p.truth(`getComputedStyle(document.querySelector("[data-log-lines]"), "::before").content === "none"`) {
		t.Error("a log that is coming asks to be chosen")
	}
	p.shots("log-connecting")
	stop()
	p.sees("[data-log-state]", "Live")

	// by keys: the question has the focus, the harmless answer first
	p.run(chromedp.Focus(`#part-apps tr:first-child button[popovertarget]`), chromedp.KeyEvent(kb.Enter))
	p.awaits(`document.activeElement.innerText === "Cancel" && document.activeElement.closest("[role=dialog]").getAttribute("aria-label") === "Restart camera"`)
	p.run(chromedp.KeyEvent(kb.Tab))
	p.awaits(`document.activeElement.innerText === "Restart"`)
	c.slow <- struct{}{}
	p.run(chromedp.KeyEvent(kb.Enter))
	p.sees(".confirm:popover-open .danger", "Restarting …")
	p.run(chromedp.Evaluate[chromedp.Void](`window.news = 0; document.querySelector("#part-apps").addEventListener("htmx:sseMessage", () => news++); void 0`))
	p.awaits(`news > 1`) // the table changes meanwhile, and the question does not
	p.sees(".confirm:popover-open .danger:disabled", "Restarting …")
	p.shots("restarting")
	<-c.slow
	p.sees("#notices", "was restarted")
	if got := <-c.restarts; got != "line1-gw-01 camera camera" {
		t.Error(got)
	}
}

func TestSignOut(t *testing.T) { scenario(t, signOut) }

// signOut in one tab ends the others.
func signOut(t *testing.T) {
	b := newEmpty(t)
	p := b.open(t)
	p.signIn("ana", "/")
	q := p.tab()
	q.visit("/events")
	q.sees(".none", "Nothing has happened")
	q.awaits(`document.readyState === "complete"`)
	p.run(press(".who button"))
	p.sees("h1", "Sign in")
	q.sees("h1", "Sign in")
	q.awaits(`location.search.includes("next=%2Fevents")`)
}
