package client

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"net/url"
	"time"

	"selvedge/internal/backoff"
	"selvedge/schema/hubapi"
)

// overlap is how far before the last line a followed log is asked for again: lines of several
// containers are not quite in the order of their times.
const overlap = 2 * time.Second

// maxRemembered bounds the lines of the overlap.
const maxRemembered = 16 << 10

// Logs writes what a container or the agent printed to w. With Follow it goes on until the
// container ends, the context does, or the hub says no; after a broken connection it goes on
// behind the last line, and tells lost, which may be nil, why. A slow w slows the node's
// stream down, and nothing else.
func (c *Client) Logs(ctx context.Context, node string, o LogOptions, w io.Writer, lost func(error)) error {
	if !o.Follow {
		return c.again(ctx, true, func(ctx context.Context) error {
			res, err := c.stream(ctx, nodePath(node, "/logs"), o.values(), "text/plain", "")
			if err != nil {
				return err
			}
			defer res.Body.Close()
			if _, err := io.Copy(w, res.Body); err != nil {
				return fmt.Errorf("the log broke off: %w", final{c.broken(err)}) // not again: some of it was written
			}
			if err := trailer(res); err != nil {
				return final{err}
			}
			return nil
		})
	}
	// lines of the agent have their times anyhow
	f := newFollower(w, o.Timestamps || o.Agent)
	f.cut = o.Tail != 0 || !o.Since.IsZero() || o.Ago > 0
	began := time.Now()
	o.Timestamps = true // to go on from
	var opened time.Time
	return c.resume(ctx, func() bool { return !f.last.IsZero() }, lost, func(ctx context.Context) error {
		p := o
		if p.Ago > 0 { // the same moment at each try
			p.Ago += time.Since(began)
		}
		if !f.last.IsZero() {
			p.Since, p.Tail = f.last.Add(-overlap), 0
			f.replay()
		} else if o.Tail < 0 && !opened.IsZero() {
			p.Since, p.Ago, p.Tail = time.Time{}, time.Since(opened), 0 // the past ended there
		}
		asked := time.Now()
		res, err := c.stream(ctx, nodePath(node, "/logs"), p.values(), "text/plain", "")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if opened.IsZero() {
			opened = asked
		}
		if err := f.read(res.Body); err != nil {
			return err
		}
		return trailer(res)
	})
}

// final marks errors after which nothing is asked again.
type final struct{ error }

func (e final) Unwrap() error { return e.error }

// trailer reads why a stream ended that did not end well.
func trailer(res *http.Response) error {
	text := res.Trailer.Get(hubapi.TrailerError)
	if text == "" {
		return nil
	}
	p := &hubapi.Problem{}
	if err := json.Unmarshal([]byte(text), p); err != nil {
		p.Title = "the log broke off"
	}
	return &refused{p, 0}
}

// errWrite marks errors of the reader's own output.
type errWrite struct{ error }

func (e errWrite) Unwrap() error { return e.error }

// resume runs a stream again and again until it ends by itself or for good.
// begun tells whether anything came of it yet.
func (c *Client) resume(ctx context.Context, begun func() bool, lost func(error), run func(context.Context) error) error {
	wait := backoff.Backoff{Min: 200 * time.Millisecond, Max: 10 * time.Second}
	for i := 1; ; i++ {
		began := time.Now()
		err := run(ctx)
		if err == nil || ctx.Err() != nil {
			return cmp.Or(err, ctx.Err())
		}
		if _, ok := errors.AsType[errWrite](err); ok {
			return err
		}
		if r, ok := errors.AsType[*refused](err); ok && !passing(r.Problem, i > 1 || begun()) {
			return err
		}
		if i == 1 && untrusted(err, c.cfg.CA) != "" {
			return err
		}
		if i == 1 && !begun() && !away(err) && !isBroken(err) && Reason(err) == "" {
			return err // such as a name that nobody has
		}
		if time.Since(began) > 30*time.Second {
			wait.Reset()
		}
		if lost != nil {
			lost(err)
		}
		if sleep(ctx, wait.Next()) != nil {
			return ctx.Err()
		}
	}
}

// passing reports whether a refusal may pass while one waits for it. Later ones are waited
// for that, at first, are an answer.
func passing(p *hubapi.Problem, later bool) bool {
	switch p.Reason {
	case hubapi.ReasonUnavailable, hubapi.ReasonBusy:
		return true
	case hubapi.ReasonOffline, hubapi.ReasonTimeout:
		return later
	}
	return false
}

// broke is a stream that ended without its end.
type broke struct{ error }

func (e broke) Unwrap() error { return e.error }

func isBroken(err error) bool {
	_, ok := errors.AsType[broke](err)
	return ok
}

// stream opens a stream: no time limit but the context's.
func (c *Client) stream(ctx context.Context, path string, q url.Values, accept, last string) (*http.Response, error) {
	req, err := c.request(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	return c.send(req)
}

// follower writes lines with times and knows where it is.
type follower struct {
	out        io.Writer
	timestamps bool      // are wanted by the reader
	cut        bool      // what was before the first line is not wanted
	first      time.Time // of the first line
	last       time.Time
	seed       maphash.Seed
	recent     []line // from head on of the overlap, in the order in which they came
	head       int
	seen       map[uint64]int // those of them that are to come again, and how often
	replaying  bool
}

func newFollower(w io.Writer, timestamps bool) *follower {
	return &follower{out: w, timestamps: timestamps, seed: maphash.MakeSeed(), seen: map[uint64]int{}}
}

type line struct {
	at  time.Time
	sum uint64
}

// replay prepares for lines that were written already.
func (f *follower) replay() {
	clear(f.seen)
	for _, l := range f.recent[f.head:] {
		f.seen[l.sum]++
	}
	f.replaying = true
}

// read takes a stream of lines up to its end. Lines longer than its buffer are passed on in
// pieces, of which the first one tells the time.
func (f *follower) read(r io.Reader) error {
	b := bufio.NewReaderSize(r, 128<<10)
	within, drop := false, false // of a long line
	for {
		piece, err := b.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return broke{err} // the piece before it is told again, as a whole line
		}
		if len(piece) > 0 {
			out := piece
			if !within {
				out, drop = f.line(piece)
			}
			within = piece[len(piece)-1] != '\n'
			if !drop {
				if _, err := f.out.Write(out); err != nil {
					return errWrite{err}
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}

// line notes a line, and returns what to write of it, or that it was written before.
func (f *follower) line(l []byte) (out []byte, drop bool) {
	at, before, after := stamp(l)
	if at.IsZero() {
		return l, f.replaying && len(f.seen) > 0 // a line without a time cannot be told from one before
	}
	if f.first.IsZero() {
		f.first = at
	}
	sum := maphash.Bytes(f.seed, l)
	if f.replaying {
		if f.cut && at.Before(f.first) {
			return nil, true
		}
		if n := f.seen[sum]; n > 0 {
			if n == 1 {
				delete(f.seen, sum)
			} else {
				f.seen[sum] = n - 1
			}
			return nil, true
		}
		if at.After(f.last) {
			f.replaying = false
		}
	}
	if at.After(f.last) {
		f.last = at
	}
	f.recent = append(f.recent, line{at, sum})
	for from := f.last.Add(-overlap); f.recent[f.head].at.Before(from) || len(f.recent)-f.head > maxRemembered; {
		f.head++
	}
	if f.head > maxRemembered {
		f.recent = append(f.recent[:0], f.recent[f.head:]...)
		f.head = 0
	}
	if f.timestamps {
		return l, false
	}
	if len(before) == 0 {
		return after, false
	}
	return append(before[:len(before):len(before)], after...), false
}

// stamp finds the time of a line: its first word, or the second one behind a container's
// name. A zero time: there is none.
func stamp(l []byte) (at time.Time, before, after []byte) {
	rest := l
	for range 2 {
		word, tail, ok := bytes.Cut(rest, []byte(" "))
		if !ok || len(word) > 80 {
			return time.Time{}, nil, nil
		}
		if len(word) >= len("2006-01-02T15:04:05Z") && len(word) <= 48 {
			if t, err := time.Parse(time.RFC3339Nano, string(bytes.TrimPrefix(word, []byte("time=")))); err == nil {
				return t, l[:len(l)-len(rest)], tail
			}
		}
		rest = tail
	}
	return time.Time{}, nil, nil
}
