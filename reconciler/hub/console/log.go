package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
)

const (
	logTail  = 500 // lines of the past
	maxLine  = 64 << 10
	logSpeed = 1 << 20 // bytes a second: a browser is for reading, selvedge logs is for getting it all
)

// logStream sends a log as server-sent events: lines holds a JSON string, end says why it
// ended. The node sends no faster than this takes.
func logStream(x *exchange, w http.ResponseWriter) error {
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	tail, err := strconv.Atoi(x.param("tail"))
	if err != nil || tail < 1 || tail > 5000 {
		tail = logTail
	}
	s, err := x.c.Ops.Logs(ctx, x.caller, x.r.PathValue("node"), ops.LogOptions{
		Agent: x.param("agent") == "true", App: x.param("app"), Container: x.param("container"),
		Previous: x.param("previous") == "true", Follow: x.param("previous") != "true", Tail: tail})
	out := newEvents(w)
	if err != nil {
		x.logEnd(out, err)
		return nil
	}
	defer s.Close()
	if out.send("open", nil) != nil || out.flush() != nil {
		return nil
	}
	chunks, broken := make(chan []byte), make(chan error, 1)
	go func() { // ends with ctx, or when s is closed
		defer close(chunks)
		for {
			_, data, err := s.Next(ctx)
			if err != nil {
				broken <- err
				return
			}
			select {
			case chunks <- bytes.Clone(data):
			case <-ctx.Done():
				return
			}
		}
	}()
	pace := rate.NewLimiter(logSpeed, 1<<18)
	beat, idle := time.NewTicker(beatEvery), time.NewTicker(time.Second)
	defer beat.Stop()
	defer idle.Stop()
	var rest []byte // of a line that has not ended: a letter or a sequence may be in two pieces
	lines := func(all bool) error {
		n := len(rest)
		if !all && n < maxLine {
			n = bytes.LastIndexByte(rest, '\n') + 1
		}
		if n == 0 {
			return nil
		}
		err := out.send("lines", encodeLines(rest[:n]))
		rest = append(rest[:0], rest[n:]...)
		return err
	}
	for {
		select {
		case data, ok := <-chunks:
			if !ok {
				_ = lines(true) // the reader left
				select {
				case err := <-broken:
					x.logEnd(out, err)
				default:
				}
				return nil
			}
			rest = append(rest, data...)
			if pace.WaitN(ctx, min(len(data), 1<<18)) != nil || lines(false) != nil {
				return nil
			}
			idle.Reset(time.Second)
		case <-idle.C:
			if len(rest) == 0 {
				continue
			}
			if lines(true) != nil { // nothing follows: a prompt, perhaps
				return nil
			}
		case <-beat.C:
			if out.send("beat", nil) != nil {
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

func (x *exchange) logEnd(out *events, err error) {
	text := ""
	switch p := problemOf(err); {
	case errors.Is(err, context.Canceled):
		return
	case errors.Is(err, io.EOF):
		text = "The log ends here."
	case p != nil && p.Reason == hubapi.ReasonUnauthorized:
		_ = out.send("signedout", nil)
		_ = out.flush()
		return
	default:
		text = clip(500, p.Detail)
	}
	b, err := json.Marshal(text)
	if err != nil {
		return
	}
	if out.send("end", b) == nil {
		_ = out.flush() // the reader left
	}
}

// sequences are what terminals take for commands: colours, cursor, titles.
var sequences = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]{0,1000}(\x07|\x1b\\\\)|[@-Z\\\\-_])")

// encodeLines makes a JSON string of what was printed. The page sets it as text.
func encodeLines(data []byte) []byte {
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	b, err := json.Marshal(clean(sequences.ReplaceAllString(text, "")))
	if err != nil {
		return nil
	}
	return b
}
