package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/bus"
	"selvedge/reconciler/hub/status"
	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

func problem(code int, reason, title, format string, a ...any) *hubapi.Problem {
	return &hubapi.Problem{Title: title, Status: code, Reason: reason, Detail: fmt.Sprintf(format, a...)}
}

func unauthorized(format string, a ...any) *hubapi.Problem {
	return problem(http.StatusUnauthorized, hubapi.ReasonUnauthorized, "not signed in", format, a...)
}

func notFound(format string, a ...any) *hubapi.Problem {
	return problem(http.StatusNotFound, hubapi.ReasonNotFound, "not found", format, a...)
}

func invalid(format string, a ...any) *hubapi.Problem {
	return problem(http.StatusBadRequest, hubapi.ReasonInvalid, "invalid request", format, a...)
}

func busy(format string, a ...any) *hubapi.Problem {
	return problem(http.StatusTooManyRequests, hubapi.ReasonBusy, "too much at once", format, a...)
}

func denied(format string, a ...any) *hubapi.Problem {
	return problem(http.StatusForbidden, hubapi.ReasonDenied, "the node does not allow it", format, a...)
}

func offline(format string, a ...any) *hubapi.Problem {
	return problem(http.StatusServiceUnavailable, hubapi.ReasonOffline, "the node is offline", format, a...)
}

func unavailable(format string, a ...any) *hubapi.Problem {
	return problem(http.StatusServiceUnavailable, hubapi.ReasonUnavailable, "the hub cannot do it now", format, a...)
}

func forbidden(d access.Decision, scope string) *hubapi.Problem {
	p := problem(http.StatusForbidden, hubapi.ReasonForbidden, "forbidden", "%s", d.Reason)
	p.Scope, p.Needs = scope, d.Needs
	return p
}

// endedBy returns why a guarded context ended, or nil.
func endedBy(ctx context.Context) error {
	if p, ok := errors.AsType[*hubapi.Problem](context.Cause(ctx)); ok {
		return p
	}
	return nil
}

// nodeProblem translates what the bus or the node answered.
func nodeProblem(node string, err error) *hubapi.Problem {
	if p, ok := errors.AsType[*hubapi.Problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return wireProblem(node, e)
	}
	switch {
	case errors.Is(err, bus.ErrBusy):
		return busy("%v", err)
	case errors.Is(err, bus.ErrOffline):
		return offline("%s: %v; try again when it is connected", node, err)
	case errors.Is(err, bus.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusGatewayTimeout, hubapi.ReasonTimeout, "the node does not answer", "%s does not answer; its connection may be cut, try again when it reports", node)
	case errors.Is(err, context.Canceled):
		return unavailable("%s has not answered, and the hub is stopping or the caller left; ask again soon", node)
	}
	return unavailable("%s: %v", node, err)
}

// wireProblem translates a node's refusal. Its words are a stranger's: they are cut.
func wireProblem(node string, e *wire.Error) *hubapi.Problem {
	text := e.Message
	if len(text) > wire.MaxText {
		text = text[:wire.MaxText]
	}
	switch e.Code {
	case wire.CodeDenied:
		return denied("%s: %s", node, text)
	case wire.CodeNotFound:
		return notFound("%s: %s", node, text)
	case wire.CodeInvalid:
		return invalid("%s: %s", node, text)
	case wire.CodeBusy:
		return busy("%s: %s", node, text)
	case wire.CodeUnavailable:
		return problem(http.StatusServiceUnavailable, hubapi.ReasonUnavailable, "the node cannot do it now", "%s: %s", node, text)
	}
	return problem(http.StatusBadGateway, hubapi.ReasonFailed, "the node could not do it", "%s: %s", node, text)
}

// queryProblem translates an error of the status store.
func queryProblem(err error) error {
	if errors.Is(err, status.ErrQuery) {
		return invalid("%v", err)
	}
	return err
}
