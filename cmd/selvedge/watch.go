package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
)

// watch watches on when the caller's rights change, with those that they have then. A refusal
// before anything came is an answer.
func watch(c *cobra.Command, hub *client.Client, o client.WatchOptions, update func(hubapi.Update) error) error {
	way := link{w: c.ErrOrStderr()}
	for {
		begun := false
		err := hub.Watch(c.Context(), o, func(u hubapi.Update) error {
			begun = true
			way.back()
			if u.Event != nil {
				o.After = u.Event.ID
			}
			return update(u)
		}, way.lost)
		if client.Reason(err) != hubapi.ReasonForbidden || !begun {
			return err
		}
		fmt.Fprintln(c.ErrOrStderr(), "what you may see changed in Git; going on with that")
		select {
		case <-c.Context().Done():
			return c.Context().Err()
		case <-time.After(time.Second): // a hub that says so again and again is asked no faster
		}
	}
}

// link tells people that a stream broke and is taken up again, once for each reason in a row,
// and that something came again.
type link struct {
	w      io.Writer
	prefix string // names it among several
	reason string // why it is down
}

func (l *link) lost(err error) {
	if text := show.Text(err.Error()); text != l.reason {
		l.reason = text
		fmt.Fprintf(l.w, "%sconnection lost, trying again: %s\n", l.prefix, text)
	}
}

func (l *link) back() {
	if l.reason != "" {
		l.reason = ""
		fmt.Fprintf(l.w, "%sgoing on\n", l.prefix)
	}
}

// over returns w for what comes over the link.
func (l *link) over(w io.Writer) io.Writer { return linked{l, w} }

type linked struct {
	link *link
	w    io.Writer
}

func (l linked) Write(p []byte) (int, error) {
	l.link.back()
	return l.w.Write(p)
}
