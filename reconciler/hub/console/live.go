package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"time"

	"selvedge/schema/hubapi"
)

const (
	lookEvery  = time.Second      // at most so often is a part looked at
	lookAlways = 10 * time.Second // and at least: times grow old by themselves
	beatEvery  = 10 * time.Second
	stall      = 2 * time.Minute // for a reader to take what is written; then it is gone
	retry      = 2 * time.Second // until a page connects again
	retryBusy  = 10 * time.Second
)

// stream sends the parts of a page, all at first and then those that changed, until the
// reader leaves, or their rights change. What stands in its way is said on the stream, too: any
// other answer, and the browser would give up for good.
func (x *exchange) stream(w http.ResponseWriter, page pageFunc) error {
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	out, sums := newEvents(w), map[string][sha256.Size]byte{}
	v, err := page(x)
	if err != nil {
		x.last(out, err)
		return nil
	}
	updates, ended, err := x.c.Ops.Watch(ctx, x.caller, v.watch)
	if err != nil {
		if x.parts(out, v, sums) == nil { // it is not live, and yet not old
			x.last(out, err)
		}
		return nil
	}
	if out.send("beat", []byte("hello")) != nil {
		return nil
	}
	if x.parts(out, v, sums) != nil || out.flush() != nil {
		return nil
	}
	every := v.every
	if every == 0 {
		every = lookAlways
	}
	pace, old, beat := time.NewTicker(lookEvery), time.NewTicker(every), time.NewTicker(beatEvery)
	defer pace.Stop()
	defer old.Stop()
	defer beat.Stop()
	dirty := false
	for {
		look := false
		select {
		case _, ok := <-updates:
			if !ok {
				x.last(out, ended())
				return nil
			}
			dirty = true // what it says is looked up: many updates make one look
			continue
		case <-pace.C:
			if !dirty {
				continue
			}
			look = true
		case <-old.C:
			look = true
		case <-beat.C:
			if out.send("beat", nil) != nil {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
		if look {
			dirty = false
			if v, err = page(x); err != nil {
				x.last(out, err)
				return nil
			}
			if x.parts(out, v, sums) != nil {
				return nil
			}
		}
		if out.flush() != nil {
			return nil
		}
	}
}

// parts sends the parts that are not as they were sent last.
func (x *exchange) parts(out *events, v *view, sums map[string][sha256.Size]byte) error {
	var b bytes.Buffer
	for _, p := range v.parts {
		b.Reset()
		if err := x.render.part(&b, v.frame+"."+p.name, p.data); err != nil {
			x.c.Log.Error("a part of a page cannot be shown", "id", x.id, "frame", v.frame, "part", p.name, "error", err)
			return err
		}
		if sum := sha256.Sum256(b.Bytes()); sum != sums[p.name] {
			sums[p.name] = sum
			if err := out.send(p.name, b.Bytes()); err != nil {
				return err
			}
		}
	}
	return nil
}

// last tells the page what to do now that its stream ends: sign in, load anew for what
// is wrong or different, say that it is not live, or nothing but to connect again.
func (x *exchange) last(out *events, err error) {
	p, ok := errors.AsType[*hubapi.Problem](err)
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return
	case ok && p.Reason == hubapi.ReasonUnauthorized:
		_ = out.send("signedout", nil)
	case ok && (p.Reason == hubapi.ReasonForbidden || p.Reason == hubapi.ReasonNotFound || p.Reason == hubapi.ReasonInvalid):
		_ = out.send("reload", nil)
	case ok && p.Reason == hubapi.ReasonBusy:
		out.retry(retryBusy)
		_ = out.send("busy", nil)
	default:
		x.c.Log.Error("a page's stream ends", "id", x.id, "path", x.r.URL.Path, "error", err)
		_ = out.send("failed", nil) // with when to ask again
	}
	_ = out.flush() // the reader left
}

// events writes server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
type events struct {
	w       http.ResponseWriter
	control *http.ResponseController
	b       bytes.Buffer
}

func newEvents(w http.ResponseWriter) *events {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	e := &events{w: w, control: http.NewResponseController(w)}
	e.retry(retry)
	return e
}

// retry says when to connect again once the stream has ended.
func (e *events) retry(d time.Duration) { fmt.Fprintf(&e.b, "retry: %d\n\n", d.Milliseconds()) }

func (e *events) send(name string, data []byte) error {
	e.b.WriteString("event: ")
	e.b.WriteString(name)
	e.b.WriteByte('\n')
	for line := range bytes.Lines(bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))) {
		e.b.WriteString("data: ")
		e.b.Write(bytes.TrimSuffix(line, []byte("\n")))
		e.b.WriteByte('\n')
	}
	if len(data) == 0 {
		e.b.WriteString("data:\n")
	}
	e.b.WriteByte('\n')
	// not every connection has deadlines; those of the server's own do
	_ = e.control.SetWriteDeadline(time.Now().Add(stall))
	_, err := e.w.Write(e.b.Bytes())
	e.b.Reset()
	return err
}

func (e *events) flush() error {
	if err := e.control.Flush(); err != nil {
		return err
	}
	_ = e.control.SetWriteDeadline(time.Time{}) // it would end also what is quiet
	return nil
}
