package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// Size is a terminal's.
type Size struct{ Rows, Columns uint16 }

// Streams are what a command is connected to. Nil ones are not used.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Resize   <-chan Size
}

const (
	beat    = 15 * time.Second // between messages that tell the hub that somebody is here
	silence = time.Minute      // of the hub, which does the same, while it is listened to
)

// Exec runs a command in a container and returns its exit code. It returns when the command
// ended, the connection broke, or the context did; the node then ends the command. A read of
// In may still be under way when it returns, as nothing can end that.
func (c *Client) Exec(ctx context.Context, node string, o ExecOptions, s Streams) (int, error) {
	if len(o.Command) == 0 {
		return 0, errors.New("no command")
	}
	u := *c.base
	u.Path, u.RawQuery = "/api/v1"+nodePath(node, "/exec"), o.values().Encode()
	header := http.Header{"User-Agent": {c.cfg.UserAgent}}
	if c.cfg.Token != "" {
		header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	dial, cancelDial := context.WithTimeout(ctx, c.cfg.Timeout)
	conn, res, err := websocket.Dial(dial, u.String(), &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: header})
	cancelDial()
	if err != nil {
		if res != nil && res.StatusCode != http.StatusSwitchingProtocols && res.StatusCode >= 300 {
			return 0, c.problem(res)
		}
		return 0, c.broken(err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(wire.MaxFrame + 1024)

	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	defer done.Wait()
	defer cancel()
	if o.Stdin && s.In != nil {
		go pump(ctx, conn, s.In) // not waited for: see above
	}
	if s.Resize != nil {
		done.Go(func() { resize(ctx, conn, s.Resize) })
	}
	done.Go(func() { c.alive(ctx, conn) })
	return c.output(ctx, conn, s)
}

// output takes what the command says up to its end.
func (c *Client) output(ctx context.Context, conn *websocket.Conn, s Streams) (int, error) {
	for {
		// only this has a bound: a reader of the output may take all the time in the world
		read, cancel := context.WithTimeout(ctx, c.silence)
		kind, b, err := conn.Read(read)
		quiet := read.Err() != nil
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			if quiet {
				return 0, fmt.Errorf("hub %s has said nothing for %v; the connection is cut", c.base.Host, c.silence)
			}
			if e, ok := errors.AsType[websocket.CloseError](err); ok && e.Reason != "" {
				return 0, fmt.Errorf("hub %s ended the session: %s", c.base.Host, e.Reason)
			}
			return 0, fmt.Errorf("%w; the connection ended before the command did", c.broken(err))
		}
		if kind == websocket.MessageText {
			var m hubapi.ExecMessage
			if err := json.Unmarshal(b, &m); err != nil {
				return 0, fmt.Errorf("hub %s: a message cannot be read: %w", c.base.Host, err)
			}
			switch {
			case m.Error != nil:
				return 0, m.Error
			case m.ExitCode != nil:
				return *m.ExitCode, nil
			}
			continue
		}
		if len(b) <= 1 {
			continue // it tells that the hub is there
		}
		w := s.Out
		if b[0] == hubapi.ChannelErr {
			w = s.Err
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(b[1:]); err != nil {
			return 0, err
		}
	}
}

// pump sends stdin.
func pump(ctx context.Context, conn *websocket.Conn, in io.Reader) {
	b := make([]byte, 1+wire.MaxInput)
	b[0] = hubapi.ChannelIn
	for {
		n, err := in.Read(b[1:])
		if n > 0 && write(ctx, conn, websocket.MessageBinary, b[:1+n]) != nil {
			return
		}
		if err != nil {
			_ = message(ctx, conn, hubapi.ExecMessage{EOF: true}) // the reader notices a broken connection
			return
		}
	}
}

func resize(ctx context.Context, conn *websocket.Conn, sizes <-chan Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-sizes:
			if !ok || message(ctx, conn, hubapi.ExecMessage{Rows: s.Rows, Columns: s.Columns}) != nil {
				return
			}
		}
	}
}

// alive tells the hub now and then that somebody is here. While a command takes no input
// that waits for it to do so, and it is no sign of anything: the hub tells by itself
// that it is there.
func (c *Client) alive(ctx context.Context, conn *websocket.Conn) {
	for message(ctx, conn, hubapi.ExecMessage{}) == nil && sleep(ctx, c.beat) == nil {
	}
}

func message(ctx context.Context, conn *websocket.Conn, m hubapi.ExecMessage) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return write(ctx, conn, websocket.MessageText, b)
}

// write has no time limit of its own: a command that reads slowly holds its input back.
func write(ctx context.Context, conn *websocket.Conn, kind websocket.MessageType, b []byte) error {
	return conn.Write(ctx, kind, b)
}
