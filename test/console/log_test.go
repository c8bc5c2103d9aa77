package console

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

func TestLogOfWhatComes(t *testing.T) { scenario(t, logOfWhatComes) }

// logOfWhatComes opens the page of a node that has not reported, and reads the logs of what it
// reports later, and of an app that comes later still.
func logOfWhatComes(t *testing.T) {
	b := newBed(t, plant())
	p := b.open(t)
	p.signIn("ana", "/nodes/line1-gw-01")
	p.sees("#log", "has not reported")
	p.misses("#log", "Follow")
	var more atomic.Bool
	b.connect(func(n string, now time.Time) wire.Status {
		s := story(n, now)
		if more.Load() { // in front of what there is
			s.Apps = slices.Insert(s.Apps, 0, wire.App{Name: "before", Healthy: true, Containers: []wire.Instance{{Name: "before", State: "running", Healthy: true, Since: now, Image: "x@sha256:1"}}})
		}
		return s
	}, "line1-gw-01")
	p.sees("#part-apps", "uploader")
	p.run(press(chromedp.CSS(`#part-apps tr:nth-child(2) [data-log-open]`)))
	p.sees("[data-log-lines]", "INFO camera/uploader")
	more.Store(true)
	p.awaits(`[...document.querySelector("[data-log-source]").options].some(o => o.value.includes("before"))`)
	if !p.truth(`document.querySelector("[data-log-source]").value === "app=camera&container=uploader"`) {
		t.Error("what is read is not what is chosen")
	}
	p.run(chromedp.SetValue("[data-log-source]", "app=before&container=before"))
	p.sees("[data-log-state]", "runs no app") // Git does not know it
}

func TestReading(t *testing.T) { scenario(t, reading) }

// reading is a person whom the page does not disturb: it does not pull the log away, nor shut
// what they opened.
func reading(t *testing.T) {
	b, _ := populated(t)
	p := b.open(t)
	p.signIn("ana", "/nodes/line1-gw-03")
	p.sees("#part-apps", "uploader")
	p.awaits(`document.readyState === "complete"`)
	p.run(press("#failed-here summary"))
	p.awaits(`document.querySelector("#failed-here").open`)
	p.run(press(chromedp.CSS(`#part-apps tr:nth-child(2) [data-log-open]`)))
	p.sees("[data-log-lines]", "live line 5")
	if !p.truth(`document.querySelector("[data-log-follow]").checked`) {
		t.Error("the log is not followed")
	}
	p.run(chromedp.KeyEvent(kb.PageUp))
	p.awaits(`!document.querySelector("[data-log-follow]").checked`)
	p.run(chromedp.Evaluate[chromedp.Void](`window.lines = document.querySelector("[data-log-lines]").childElementCount; void 0`))
	p.awaits(`document.querySelector("[data-log-lines]").childElementCount > lines + 5`)
	if !p.truth(`(b => b.scrollTop + b.clientHeight < b.scrollHeight - 40)(document.querySelector("[data-log-lines]"))`) {
		t.Error("who scrolled up is pulled down")
	}
	p.run(chromedp.KeyEvent(kb.End))
	p.awaits(`document.querySelector("[data-log-follow]").checked`)

	n := b.nodes["line1-gw-03"]
	n.Held = "its image is not signed"
	b.tell(roster.Event{Nodes: map[string]roster.Node{"line1-gw-03": n}})
	p.sees("#part-head", "is not signed")
	if !p.truth(`document.querySelector("#failed-here").open`) {
		t.Error("what was opened is shut")
	}
}
