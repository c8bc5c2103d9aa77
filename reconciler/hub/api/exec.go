package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"

	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

const (
	maxMessage = 1 + wire.MaxFrame // bytes from the caller
	pingEvery  = 15 * time.Second
	closeTime  = 5 * time.Second
)

// exec connects a WebSocket with a command on a node.
func exec(x *exchange, w http.ResponseWriter) error {
	// before anything runs: a page of another origin, or what is no WebSocket, starts nothing
	if err := x.upgradable(); err != nil {
		return err
	}
	rows, columns := x.q.number("rows"), x.q.number("columns")
	s, err := x.c.Ops.Exec(x.r.Context(), x.caller, x.q.text("node"), ops.ExecOptions{
		App: x.q.text("app"), Container: x.q.text("container"), Command: x.q["command"],
		TTY: x.q.flag("tty"), Stdin: x.q.flag("stdin"), Rows: uint16(rows), Columns: uint16(columns), // bounded by the table
	})
	if err != nil {
		return err
	}
	defer s.Close()
	conn, err := websocket.Accept(w, x.r, &websocket.AcceptOptions{OriginPatterns: x.c.Origins})
	if err != nil {
		x.c.Log.Debug("no WebSocket came about", "id", x.id, "error", err)
		return nil // Accept has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxMessage)

	// the request's context is of no use once the connection is hijacked
	ctx, cancel := context.WithCancel(context.WithoutCancel(x.r.Context()))
	defer cancel()
	stopServer := context.AfterFunc(x.r.Context(), cancel) // it ends with the server
	defer stopServer()
	left := make(chan struct{})
	go func() {
		defer close(left)
		defer cancel()
		x.input(ctx, conn, s)
	}()
	pinging := make(chan struct{})
	go func() {
		defer close(pinging)
		ping(ctx, conn, cancel)
	}()
	err = output(ctx, conn, s)
	x.finish(conn, s, err)
	cancel()
	conn.CloseNow()
	<-left
	<-pinging
	return nil
}

// upgradable checks all that websocket.Accept will check.
func (x *exchange) upgradable() error {
	h := x.r.Header
	if origin := h.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || !strings.EqualFold(u.Host, x.r.Host) && !slices.ContainsFunc(x.c.Origins, func(o string) bool { return strings.EqualFold(o, u.Host) }) {
			return &hubapi.Problem{Title: "forbidden", Status: http.StatusForbidden, Reason: hubapi.ReasonForbidden,
				Detail: "a page of another origin may not open this"}
		}
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(h.Get("Sec-WebSocket-Key")))
	if x.r.ProtoMajor != 1 || !lists(h["Connection"], "upgrade") || !lists(h["Upgrade"], "websocket") ||
		h.Get("Sec-WebSocket-Version") != "13" || len(h["Sec-Websocket-Key"]) != 1 || err != nil || len(key) != 16 {
		return upgradeRequired("a command is run over a WebSocket (RFC 6455, HTTP/1.1); use selvedge exec")
	}
	return nil
}

// lists reports whether a header that is a list has a word.
func lists(headers []string, word string) bool {
	for _, h := range headers {
		for s := range strings.SplitSeq(h, ",") {
			if strings.EqualFold(strings.TrimSpace(s), word) {
				return true
			}
		}
	}
	return false
}

// input passes on what the caller sends, until the connection ends.
func (x *exchange) input(ctx context.Context, conn *websocket.Conn, s *ops.Stream) {
	for {
		kind, b, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if kind == websocket.MessageBinary {
			if len(b) == 0 || b[0] != hubapi.ChannelIn {
				conn.Close(websocket.StatusUnsupportedData, "binary messages to the hub begin with the channel 0, stdin")
				return
			}
			err = s.Input(b[1:])
		} else {
			var m hubapi.ExecMessage
			if json.Unmarshal(b, &m) != nil {
				conn.Close(websocket.StatusUnsupportedData, "text messages are ExecMessages as JSON")
				return
			}
			if m.Rows > 0 && m.Columns > 0 {
				err = s.Resize(m.Rows, m.Columns)
			}
			if m.EOF {
				err = errors.Join(err, s.CloseInput())
			}
		}
		if err != nil { // the command has ended, or its node is gone: output tells
			x.c.Log.Debug("input is lost", "id", x.id, "error", err)
		}
	}
}

// ping notices a caller that is gone without a word.
func ping(ctx context.Context, conn *websocket.Conn, gone func()) {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			// a caller who reads slowly may let pongs wait as long as data
			try, cancel := context.WithTimeout(ctx, stall)
			err := conn.Ping(try)
			cancel()
			if err != nil {
				gone()
				return
			}
		}
	}
}

// output passes on what the command prints.
func output(ctx context.Context, conn *websocket.Conn, s *ops.Stream) error {
	var b []byte
	for {
		channel, data, err := s.Next(ctx)
		if err != nil {
			return err
		}
		b = append(append(b[:0], channel), data...)
		try, cancel := context.WithTimeout(ctx, stall)
		err = conn.Write(try, websocket.MessageBinary, b)
		cancel()
		if err != nil {
			return err
		}
	}
}

// finish tells how it ended.
func (x *exchange) finish(conn *websocket.Conn, s *ops.Stream, err error) {
	var m hubapi.ExecMessage
	status, why := websocket.StatusNormalClosure, ""
	p, ok := errors.AsType[*hubapi.Problem](err)
	switch {
	case errors.Is(err, io.EOF):
		code := s.ExitCode()
		m.ExitCode = &code
	case ok:
		m.Error = &wire.Error{Code: p.Reason, Message: p.Detail}
		status, why = websocket.StatusPolicyViolation, p.Title
	default:
		return // the caller left
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	b, err := json.Marshal(m)
	if err != nil || conn.Write(ctx, websocket.MessageText, b) != nil {
		return
	}
	_ = conn.Close(status, why) // it waits for the other side's close, within bounds of its own
}
