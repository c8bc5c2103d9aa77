package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// maxWindow is the most frames of one stream in flight, whatever the hub grants.
const maxWindow = 64

// hear takes a message of the hub. It runs on the library's goroutine and must not block.
func (u *Uplink) hear(ctx context.Context, m *nats.Msg) {
	verb := strings.TrimPrefix(m.Subject, wire.RequestSubject(u.cfg.Node, ""))
	if len(m.Data) > wire.MaxRequest {
		u.answer(m, refusal(wire.CodeInvalid, "a request of %d bytes; at most %d are read", len(m.Data), wire.MaxRequest))
		return
	}
	switch verb {
	case wire.VerbNotice:
		var n wire.Notice
		if json.Unmarshal(m.Data, &n) == nil {
			u.cfg.Notice(n)
		}
	case wire.VerbReport:
		poke(u.sooner)
		u.replay(ctx)
	case wire.VerbLogs:
		var r wire.LogsRequest
		if u.decode(m, &r) && u.named(m, r.App != "" || r.Agent) {
			what := fmt.Sprintf("the log of %s", name(r.App, r.Container))
			if r.Agent {
				what = "the agent's log"
			}
			u.begin(ctx, m, r.Stream, r.Window, request{by: r.By, verb: verb, what: what, app: r.App, container: r.Container, may: func(g nodestate.Remote) bool { return g.Logs }},
				func(ctx context.Context, s *stream) wire.End {
					return end(0, u.cfg.Hands.Logs(ctx, r, s.writer(wire.FrameOut)))
				})
		}
	case wire.VerbExec:
		var r wire.ExecRequest
		if u.decode(m, &r) && u.named(m, r.App != "") {
			if len(r.Command) == 0 || r.Command[0] == "" {
				u.answer(m, refusal(wire.CodeInvalid, "no command"))
				return
			}
			u.begin(ctx, m, r.Stream, r.Window, request{by: r.By, verb: verb, what: fmt.Sprintf("%q in %s", r.Command, name(r.App, r.Container)), app: r.App, container: r.Container, may: func(g nodestate.Remote) bool { return g.Exec }},
				func(ctx context.Context, s *stream) wire.End {
					t := Terminal{Stdout: s.writer(wire.FrameOut), Stderr: s.writer(wire.FrameErr), Resize: s.resize}
					if r.Stdin {
						t.Stdin = s.input
						s.took(0)
					}
					return end(u.cfg.Hands.Exec(ctx, r, t))
				})
		}
	case wire.VerbRestart:
		var r wire.RestartRequest
		if u.decode(m, &r) && u.named(m, r.App != "") {
			u.restart(ctx, m, r)
		}
	default:
		if id, ok := strings.CutPrefix(verb, "s."); ok {
			u.control(id, m.Data)
			return
		}
		u.answer(m, refusal(wire.CodeInvalid, "this agent knows no %.40q", verb))
	}
}

// request is what is known of a request besides its work.
type request struct {
	by, verb, what, app, container string
	may                            func(nodestate.Remote) bool
}

func (u *Uplink) decode(m *nats.Msg, r any) bool {
	if err := json.Unmarshal(m.Data, r); err != nil {
		u.answer(m, refusal(wire.CodeInvalid, "the request is not understood: %v", err))
		return false
	}
	return true
}

// named refuses a request that names no app.
func (u *Uplink) named(m *nats.Msg, ok bool) bool {
	if !ok {
		u.answer(m, refusal(wire.CodeInvalid, "no app is named"))
	}
	return ok
}

func refusal(code, format string, args ...any) *wire.Error {
	return &wire.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (u *Uplink) answer(m *nats.Msg, e *wire.Error) {
	if m.Reply == "" {
		return
	}
	if e != nil {
		e = &wire.Error{Code: e.Code, Message: clip(e.Message, wire.MaxText)}
	}
	b, err := json.Marshal(wire.Answer{Error: e})
	if err == nil {
		err = m.Respond(b)
	}
	if err != nil {
		u.cfg.Log.Debug("an answer is lost", "error", err)
	}
}

// granted asks the state in force, logs who asked, and refuses with an event.
func (u *Uplink) granted(m *nats.Msg, r request) bool {
	if ok, _ := u.limit.requests.allow(100, 10); !ok {
		if ok, more := u.limit.floods.allow(1, 1.0/60); ok {
			u.cfg.Log.Warn("requests of the hub are turned away: too many", "before", more)
			u.Event(wire.Event{Severity: "warning", Reason: "TooManyRequests", Message: fmt.Sprintf("requests of the hub are turned away; %d were before", more)})
		}
		u.answer(m, refusal(wire.CodeBusy, "too many requests; ask again in a few seconds"))
		return false
	}
	by, what := Line(r.by, 200), Line(r.what, 500)
	if r.may(u.cfg.Granted()) {
		u.cfg.Log.Info("the hub asks", "verb", r.verb, "by", by, "for", what)
		return true
	}
	u.refused.Add(1)
	if ok, more := u.limit.denials.allow(10, 1.0/60); ok {
		u.cfg.Log.Warn("the hub asks for what this node's state does not grant", "verb", r.verb, "by", by, "for", what, "more", more)
		u.denied(r, more)
	}
	u.answer(m, refusal(wire.CodeDenied, "remote.%s is not granted by this node's signed state; set it in the config repo", r.verb))
	return false
}

// denied tells of a request that is not granted, and how many more there were since the last one
// that was told.
func (u *Uplink) denied(r request, more int) {
	since := ""
	if more > 0 {
		since = fmt.Sprintf("; so were %d others before it", more)
	}
	reason := map[string]string{wire.VerbLogs: "LogsDenied", wire.VerbExec: "ExecDenied", wire.VerbRestart: "RestartDenied"}[r.verb]
	u.Event(wire.Event{Severity: "warning", Reason: reason, App: Line(r.app, 100), Container: Line(r.container, 100),
		Message: Line(fmt.Sprintf("%s asked for %s; remote.%s is not granted%s", Line(r.by, 200), Line(r.what, 300), r.verb, since), 700)})
}

func (u *Uplink) restart(ctx context.Context, m *nats.Msg, r wire.RestartRequest) {
	q := request{by: r.By, verb: wire.VerbRestart, what: name(r.App, r.Container), app: r.App, container: r.Container, may: func(g nodestate.Remote) bool { return g.Restart }}
	if !u.granted(m, q) {
		return
	}
	if u.asked.Add(1) > maxRestarts {
		u.asked.Add(-1)
		u.answer(m, refusal(wire.CodeBusy, "%d restarts are on their way already; ask again later", maxRestarts))
		return
	}
	u.start(func() {
		defer u.asked.Add(-1)
		ctx, cancel := context.WithTimeout(ctx, wire.RestartTime)
		defer cancel()
		err := u.cfg.Hands.Restart(ctx, r)
		e := asError(err)
		if e == nil {
			u.Event(wire.Event{Severity: "info", Reason: "RestartRequested", App: Line(r.App, 100), Container: Line(r.Container, 100), Message: Line("restarted by request of "+Line(r.By, 200), 400)})
		}
		u.answer(m, e)
	})
}

// end is how work ended.
func end(code int, err error) wire.End { return wire.End{ExitCode: code, Error: asError(err)} }

func asError(err error) *wire.Error {
	var e *wire.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return &wire.Error{Code: e.Code, Message: clip(e.Message, wire.MaxText)}
	}
	return &wire.Error{Code: wire.CodeFailed, Message: clip(err.Error(), wire.MaxText)}
}

func name(app, container string) string {
	if container == "" {
		return "app " + app
	}
	return "app " + app + ", container " + container
}

// start runs a child of the connection, unless that ends.
func (u *Uplink) start(f func()) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.closing {
		u.work.Go(f)
	}
	return !u.closing
}
