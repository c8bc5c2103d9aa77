package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
)

const (
	heartbeat = 15 * time.Second // of a stream with nothing to tell
	stall     = 15 * time.Minute // for a reader to take what is written, for people read slowly; then it is gone
)

// logs passes a log on. Nothing is read from the node before the reader took what came
// before, so a slow one fills no memory.
func logs(x *exchange, w http.ResponseWriter) error {
	ctx := x.r.Context()
	since, ago := x.q.sinceOrAgo("since")
	s, err := x.c.Ops.Logs(ctx, x.caller, x.q.text("node"), ops.LogOptions{
		Agent: x.q.flag("agent"), App: x.q.text("app"), Container: x.q.text("container"), Previous: x.q.flag("previous"),
		Follow: x.q.flag("follow"), Since: since, Ago: ago, Tail: x.q.number("tail"), Timestamps: x.q.flag("timestamps"),
	})
	if err != nil {
		return err
	}
	defer s.Close()
	h := w.Header()
	h.Set("Content-Type", mediaText+"; charset=utf-8")
	h.Set("Trailer", hubapi.TrailerError)
	h.Set("X-Accel-Buffering", "no")
	out := writer{w: w, control: http.NewResponseController(w)}
	w.WriteHeader(http.StatusOK)
	err = out.flush()
	for err == nil {
		var data []byte
		if _, data, err = s.Next(ctx); err == nil {
			err = errors.Join(out.write(data), out.flush())
		}
	}
	if !errors.Is(err, io.EOF) {
		x.broken(w, s, err)
	}
	return nil
}

// broken ends a stream that has begun. What the node says of its end goes into the trailer;
// else the connection breaks, so that nobody takes what came for the whole, whether the node
// went away, the right did, or the hub stops.
func (x *exchange) broken(w http.ResponseWriter, s *ops.Stream, err error) {
	x.c.Log.Debug("a stream broke", "id", x.id, "path", x.r.URL.Path, "error", err)
	if b, merr := json.Marshal(err); merr == nil && s.Told() {
		w.Header().Set(hubapi.TrailerError, string(b))
		return
	}
	panic(http.ErrAbortHandler)
}

// writer gives what is written its time, and lifts the deadline when it is taken: HTTP/2
// resets a stream whose deadline passes, also one that has nothing to tell.
type writer struct {
	w       io.Writer
	control *http.ResponseController
}

func (w writer) write(p []byte) error {
	// not every connection has deadlines; those of the server's own do
	_ = w.control.SetWriteDeadline(time.Now().Add(stall))
	_, err := w.w.Write(p)
	return err
}

func (w writer) flush() error {
	if err := w.control.Flush(); err != nil {
		return err
	}
	_ = w.control.SetWriteDeadline(time.Time{})
	return nil
}

// watch sends updates as server-sent events.
func watch(x *exchange, w http.ResponseWriter) error {
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	q := x.query()
	q.Initial, q.After = x.q.text("initial") != "false", x.r.Header.Get("Last-Event-ID")
	updates, ended, err := x.c.Ops.Watch(ctx, x.caller, q)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", mediaEvents)
	h.Set("X-Accel-Buffering", "no")
	out := writer{w: w, control: http.NewResponseController(w)}
	w.WriteHeader(http.StatusOK)
	if out.write([]byte("retry: 3000\n\n")) != nil || out.flush() != nil {
		return nil
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				x.endWatch(out, ended())
				return nil
			}
			if out.write(sse(u)) != nil {
				return nil
			}
			if len(updates) > 0 {
				continue // flush once for what is there
			}
		case <-beat.C:
			if out.write([]byte(": alive\n\n")) != nil {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
		if out.flush() != nil {
			return nil
		}
	}
}

// endWatch tells why the watch ended, if not because the reader left.
func (x *exchange) endWatch(out writer, err error) {
	p, ok := errors.AsType[*hubapi.Problem](err)
	if !ok {
		return
	}
	if b, err := json.Marshal(p); err == nil && out.write(fmt.Appendf(nil, "event: end\ndata: %s\n\n", b)) == nil {
		_ = out.flush() // the reader left
	}
}

// sse writes an update as https://html.spec.whatwg.org/multipage/server-sent-events.html has
// it; JSON holds no line break.
func sse(u hubapi.Update) []byte {
	var b []byte
	if u.ID != "" {
		b = fmt.Appendf(b, "id: %s\n", u.ID)
	}
	if u.Kind == "start" { // an id alone: nothing is dispatched, and readers go on from it
		return append(b, '\n')
	}
	data, err := json.Marshal(u)
	if err != nil {
		return nil
	}
	return fmt.Appendf(b, "event: %s\ndata: %s\n\n", u.Kind, data)
}
