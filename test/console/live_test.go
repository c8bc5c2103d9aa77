package console

import (
	"testing"

	"github.com/chromedp/chromedp"

	"selvedge/schema/roster"
)

func TestTooManyPages(t *testing.T) { scenario(t, tooManyPages) }

// tooManyPages opens more pages than may be live: the next says so, and is brought up to date all
// the same; it is live when there is room.
func tooManyPages(t *testing.T) {
	b := newEmpty(t)
	p := b.open(t)
	p.signIn("ana", "/nodes/nowhere") // has no stream of its own
	p.run(chromedp.Evaluate[chromedp.Void](`window.others = Array.from({length: 20}, () => new EventSource("/live/")); void 0`))
	p.awaits(`others.every(s => s.readyState === 1)`)
	q := p.tab()
	q.visit("/")
	q.sees("#banner", "too many pages are open")
	b.fleet.Platform = "Acme Crowded"
	b.tell(roster.Event{Fleet: &b.fleet})
	q.sees(".title, .empty, #part-totals", "Acme Crowded")
	p.run(chromedp.Evaluate[chromedp.Void](`others.forEach(s => s.close())`))
	q.misses("#banner", "too many")
}

func TestProxy(t *testing.T) { scenario(t, proxy) }

// proxy stands before the hub and answers for it: browsers take that for an end of the stream.
func proxy(t *testing.T) {
	b := newEmpty(t)
	p := b.open(t)
	p.signIn("ana", "/")
	p.sees(".title", "Acme Robotics")
	p.calmly(func() {
		b.door.shut()
		stop := p.meddle("*/live/*", p.refused)
		p.sees("#banner", "cannot be reached")
		b.door.open()
		p.awaits(`(fetch("/ping").then(r => { window.there = r.ok; }), window.there === true)`)
		p.sees("#banner", "cannot be reached") // it is there, and yet this page is not live
		b.fleet.Platform = "Acme Behind"
		b.tell(roster.Event{Fleet: &b.fleet})
		stop()
		p.sees(".title", "Acme Behind")
		p.misses("#banner", "cannot be reached")
	})
}

func TestFilterFails(t *testing.T) { scenario(t, filterFails) }

// filterFails is a list that stays as it is when its filter is answered by a problem, or by
// somebody else than the hub.
func filterFails(t *testing.T) {
	b := newBed(t, plant())
	p := b.open(t)
	p.signIn("ana", "/nodes")
	p.sees("table.nodes", "line1-gw-03")
	p.awaits(`document.readyState === "complete"`)
	p.run(chromedp.Evaluate[chromedp.Void](`document.querySelector("form.filter").setAttribute("hx-get", "/nodes/nowhere"); htmx.process(document.querySelector("form.filter"))`))
	p.run(chromedp.SetValue("select[name=status]", "Unknown"))
	p.sees("#notices", "no node")
	p.sees("table.nodes", "line1-gw-03")
	p.awaits(`location.pathname === "/nodes"`)
	stop := p.meddle(`*/nodes\?*`, p.refused)
	p.visit("/nodes")
	p.awaits(`document.readyState === "complete"`)
	p.run(chromedp.Evaluate[chromedp.Void](`window.failures = 0; document.addEventListener("htmx:error", () => failures++); void 0`))
	p.calmly(func() {
		p.run(chromedp.SetValue("select[name=status]", "Unknown"))
		p.sees("#notices", "no answer of the hub")
		p.run(chromedp.SetValue("select[name=status]", "Ready"))
		p.awaits(`failures >= 2`)
		p.awaits(`document.querySelectorAll("#notices [data-notice]").length === 1`)
		stop()
	})
	p.sees("table.nodes", "line1-gw-03")
}
