package feed

import (
	"log/slog"
	"net/http"
	"time"

	"selvedge/schema/roster"
)

// Config is what a Feed works with.
type Config struct {
	Path   string       // of the file that keeps the roster
	States http.Handler // serves /v2/; nil: states are elsewhere, and it is 404
	Log    *slog.Logger // nil: slog.Default()

	Heartbeat time.Duration // between signs of life on a quiet stream; 0 means 15 s
	MaxHubs   int           // connected at once; 0 means 64
}

// Feed holds the roster. Make it with Open.
type Feed struct{ cfg Config }

// Open reads back what was told last.
func Open(c Config) (*Feed, error) { return &Feed{cfg: c}, nil }

// Close disconnects the hubs and closes the file.
func (f *Feed) Close() error { return nil }

// Tell makes changes known: the events are one change, applied together.
func (f *Feed) Tell(events ...roster.Event) error { return nil }

// Handler serves hubs.
func (f *Feed) Handler() http.Handler { return http.NotFoundHandler() }
