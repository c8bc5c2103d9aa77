package api

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

const (
	maxMessage = 1 + wire.MaxFrame // bytes from the caller
	silence    = time.Minute       // of a caller who told that they are there; then they are gone
	stopTime   = 2 * time.Second   // for the last word of a hub that stops
)

// exec connects a WebSocket with a command on a node.
func exec(x *exchange, w http.ResponseWriter) error {
	// before anything runs: a page of another origin, or what is no WebSocket, starts nothing
	if err := x.upgradable(); err != nil {
		if p, ok := errors.AsType[*hubapi.Problem](err); ok && p.Status == http.StatusUpgradeRequired && x.r.ProtoMajor == 1 {
			w.Header().Set("Connection", "Upgrade") // HTTP/2 knows neither
			w.Header().Set("Upgrade", "websocket")
		}
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
	hijack := &hijacker{ResponseWriter: w}
	conn, err := websocket.Accept(hijack, x.r, &websocket.AcceptOptions{OriginPatterns: x.c.Origins})
	if err != nil {
		x.c.Log.Debug("no WebSocket came about", "id", x.id, "error", err)
		return nil // Accept has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxMessage)
	// in place of the server's own bound: messages have theirs
	_ = hijack.conn.SetWriteDeadline(time.Now().AddDate(1, 0, 0))
	// the library waits for a caller's close as long as a server that stops waits for its handlers
	stopping := context.AfterFunc(x.r.Context(), func() {
		time.AfterFunc(stopTime, func() { _ = hijack.conn.Close() })
	})
	defer stopping()

	ctx, cancel := context.WithCancel(x.r.Context()) // hijacked: it ends with the server, not with the connection
	var running sync.WaitGroup
	running.Go(func() {
		defer cancel()
		x.input(conn, s)
	})
	running.Go(func() {
		defer cancel()
		x.alive(ctx, conn)
	})
	err = output(ctx, conn, s)
	s.Close() // what follows may last, and is not the command's
	x.finish(ctx, conn, s, err)
	cancel()
	conn.CloseNow()
	running.Wait()
	return nil
}

// hijacker keeps the connection that is hijacked, for its deadline.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
}

func (h *hijacker) Hijack() (c net.Conn, rw *bufio.ReadWriter, err error) {
	c, rw, err = http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = c
	return c, rw, err
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

// input passes on what the caller sends, until the connection ends. While the command takes
// nothing, nothing is read; so nobody may expect the hub to answer pings then, and the hub
// expects nothing of who is silent because they read slowly. A caller who tells now and
// then that they are there is expected to go on with it.
func (x *exchange) input(conn *websocket.Conn, s *ops.Stream) {
	tells := false
	for {
		ctx, cancel := context.Background(), context.CancelFunc(func() {}) // it ends with the connection
		if tells {
			ctx, cancel = context.WithTimeout(ctx, x.silence)
		}
		kind, b, err := conn.Read(ctx)
		cancel()
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
			tells = tells || m == hubapi.ExecMessage{}
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

// alive tells the caller now and then that the hub is there, and thereby notices that they
// are not.
func (x *exchange) alive(ctx context.Context, conn *websocket.Conn) {
	t := time.NewTicker(x.beat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if send(ctx, conn, websocket.MessageBinary, []byte{hubapi.ChannelOut}) != nil {
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
		if err = send(ctx, conn, websocket.MessageBinary, b); err != nil {
			return err
		}
	}
}

// send gives the caller their time to take a message.
func send(ctx context.Context, conn *websocket.Conn, kind websocket.MessageType, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, stall)
	defer cancel()
	return conn.Write(ctx, kind, b)
}

// finish tells how it ended.
func (x *exchange) finish(ctx context.Context, conn *websocket.Conn, s *ops.Stream, err error) {
	var m hubapi.ExecMessage
	status, why := websocket.StatusNormalClosure, ""
	p, ok := errors.AsType[*hubapi.Problem](err)
	switch {
	case errors.Is(err, io.EOF):
		code := s.ExitCode()
		m.ExitCode = &code
	case x.r.Context().Err() != nil:
		m.Error = &wire.Error{Code: wire.CodeUnavailable, Message: "the hub is stopping, and the command was ended"}
		status, why = websocket.StatusGoingAway, "the hub is stopping"
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		ctx = last
	case ok:
		m.Error = &wire.Error{Code: p.Reason, Message: p.Detail}
		status, why = websocket.StatusPolicyViolation, p.Title
	default:
		return // the caller left
	}
	ctx, cancel := context.WithTimeout(ctx, stall)
	defer cancel()
	b, err := json.Marshal(m)
	if err != nil || conn.Write(ctx, websocket.MessageText, b) != nil {
		return
	}
	// who answers has read all that came before; closing sooner could take it away from them
	if conn.Ping(ctx) != nil {
		return
	}
	_ = conn.Close(status, why) // it waits for the other side's close, within bounds of its own
}
