package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"selvedge/schema/hubapi"
)

// maxEvent bounds one server-sent event.
const maxEvent = 8 << 20

// WatchOptions say what to watch.
type WatchOptions struct {
	Query
	Node    string // that one only
	Initial bool   // begin with all nodes that match; a summary always comes first
	After   string // ID of an event: begin with those that came since, as far as the hub keeps them; 0: with all of those
}

func (o WatchOptions) values() url.Values {
	v := o.Query.values()
	v.Del("sort")
	v.Set("initial", strconv.FormatBool(o.Initial))
	if o.Node != "" {
		v.Set("node", o.Node)
	}
	return v
}

// Watch calls update for each change of what is asked for, until the context ends or the hub
// says no. The hub leaves out what a slow reader cannot take. After a broken connection, of
// which lost is told unless it is nil, events go on behind the last one.
func (c *Client) Watch(ctx context.Context, o WatchOptions, update func(hubapi.Update) error, lost func(error)) error {
	last, begun := o.After, false
	return c.resume(ctx, func() bool { return begun }, lost, func(ctx context.Context) error {
		res, err := c.stream(ctx, "/watch", o.values(), "text/event-stream", last)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		err = events(res.Body, func(kind, id string, data []byte) error {
			if id != "" {
				last = id
			}
			u := hubapi.Update{Kind: kind, ID: id}
			switch kind {
			case "node", "removed", "event", "summary":
			case "end": // the caller's rights changed, or the token ended
				p := &hubapi.Problem{}
				if json.Unmarshal(data, p) != nil || p.Reason == "" {
					p = &hubapi.Problem{Title: "the hub ended the watch", Reason: hubapi.ReasonUnavailable}
				}
				return &refused{p, 0}
			default:
				return nil // the start, or of a newer hub
			}
			if err := json.Unmarshal(data, &u); err != nil {
				return errWrite{fmt.Errorf("hub %s: an update cannot be read: %w", c.base.Host, err)}
			}
			begun = true
			if err := update(u); err != nil {
				return errWrite{err}
			}
			return nil
		})
		if err == nil {
			err = broke{io.ErrUnexpectedEOF} // a watch has no end
		}
		return err
	})
}

// events reads server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
// One without data is none; its id counts, and is given with nothing else.
func events(r io.Reader, each func(kind, id string, data []byte) error) error {
	b := bufio.NewReaderSize(r, 64<<10)
	var kind, id string
	named := false
	var data, line []byte
	for {
		piece, err := b.ReadSlice('\n')
		line = append(line, piece...)
		if len(line)+len(data) > maxEvent {
			return errWrite{fmt.Errorf("an update is larger than %d MiB", maxEvent>>20)}
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil // what has no empty line behind it is not complete
		case err != nil:
			return broke{err}
		}
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if len(line) == 0 {
			if len(data) == 0 {
				kind = ""
			}
			if len(data) > 0 || named {
				if err := each(kind, id, bytes.TrimSuffix(data, []byte("\n"))); err != nil {
					return err
				}
			}
			kind, named, data = "", false, data[:0]
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			kind = string(value)
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				id, named = string(value), true
			}
		case "data":
			data = append(append(data, value...), '\n')
		}
		line = line[:0]
	}
}
