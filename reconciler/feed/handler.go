package feed

import (
	"fmt"
	"maps"
	"net/http"
	"time"

	"selvedge/schema/roster"
)

// hub is a reader of the stream.
type hub struct{ next int64 } // the first event that it lacks

// frames are events that some hub lacks, by number. All hubs share them.
type frames struct {
	first int64 // number of lines[0]
	lines [][]byte
	size  int
}

func (l *frames) add(lines [][]byte) {
	for _, b := range lines {
		l.size += len(b)
	}
	l.lines = append(l.lines, lines...)
}

func (l *frames) end() int64 { return l.first + int64(len(l.lines)) }

// drop forgets events that every hub has, and those that would be too much to keep: then
// who lacks them is disconnected. f.mu is held.
func (f *Feed) drop() {
	least := f.log.end()
	for h := range f.hubs {
		least = min(least, h.next)
	}
	n := 0
	for n < len(f.log.lines) && (f.log.first+int64(n) < least || f.log.size > f.cfg.MaxBehind) {
		f.log.size -= len(f.log.lines[n])
		f.log.lines[n] = nil
		n++
	}
	f.log.lines = f.log.lines[n:]
	f.log.first += int64(n)
}

// Handler serves hubs: the stream, and the store.
func (f *Feed) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+roster.Path, f.watch)
	if f.cfg.States != nil {
		mux.Handle("/v2/", f.cfg.States)
	}
	return mux
}

// Hubs returns how many are connected.
func (f *Feed) Hubs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.hubs)
}

func (f *Feed) watch(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	if len(f.hubs) >= f.cfg.MaxHubs {
		f.mu.Unlock()
		w.Header().Set("Retry-After", "30")
		http.Error(w, fmt.Sprintf("%d hubs are connected, and no more are served", f.cfg.MaxHubs), http.StatusServiceUnavailable)
		return
	}
	h := &hub{next: f.log.end()}
	f.hubs[h] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.hubs, h)
		f.drop()
		f.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	s := stream{feed: f, hub: h, w: w, flush: http.NewResponseController(w).Flush}
	if err := s.flush(); err != nil {
		return
	}
	if err := s.run(r); err != nil && r.Context().Err() == nil {
		f.cfg.Log.Warn("a hub is disconnected", "error", err)
	}
}

// stream is one hub's connection. A write that nobody reads is ended by the server.
type stream struct {
	feed  *Feed
	hub   *hub
	w     http.ResponseWriter
	flush func() error
	begun bool
}

func (s *stream) run(r *http.Request) error {
	beat := time.NewTicker(s.feed.cfg.Heartbeat)
	defer beat.Stop()
	for {
		lines, news, err := s.next()
		if err != nil {
			return err
		}
		for _, b := range lines {
			if _, err := s.w.Write(b); err != nil {
				return fmt.Errorf("it takes nothing: %w", err)
			}
		}
		if len(lines) > 0 {
			if err := s.flush(); err != nil {
				return fmt.Errorf("it takes nothing: %w", err)
			}
			continue
		}
		select {
		case <-news:
		case <-beat.C:
			if _, err := s.w.Write([]byte{'\n'}); err != nil {
				return fmt.Errorf("it takes nothing: %w", err)
			}
			if err := s.flush(); err != nil {
				return fmt.Errorf("it takes nothing: %w", err)
			}
		case <-r.Context().Done():
			return nil
		case <-s.feed.done:
			return nil
		}
	}
}

// next returns what the hub lacks, or what to wait for. What it gets counts as read when it
// asks for more: until then it is behind.
func (s *stream) next() (lines [][]byte, news <-chan struct{}, err error) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if !s.begun {
		if !f.now.told {
			return nil, f.news, nil
		}
		whole := change{reset: true, fleet: f.now.fleet, trust: f.now.trust, nodes: maps.Clone(f.now.nodes), history: f.now.changes}
		s.begun, s.hub.next = true, f.log.end()
		f.mu.Unlock() // others need not wait for it
		lines, err = whole.events()
		f.mu.Lock()
		return lines, f.news, err
	}
	if s.hub.next < f.log.first {
		return nil, nil, fmt.Errorf("it is more than %d bytes behind", f.cfg.MaxBehind)
	}
	if s.hub.next < f.log.end() {
		lines = append(lines, f.log.lines[s.hub.next-f.log.first])
		s.hub.next++
		f.drop()
	}
	return lines, f.news, nil
}
