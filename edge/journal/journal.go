// Package journal keeps the agent's own log in files of bounded size, beside writing it on.
//
// In: slog records. Out: text lines (slog.TextHandler's) on a writer and in <dir>/agent.log,
// which is rotated; and what the files hold, for people.
//
// A disk that is full or gone loses lines in the files and nothing else. It decides nothing
// about levels but what Config says.
package journal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"selvedge/internal/logfile"
)

const name = "agent.log"

// Config says where the log goes.
type Config struct {
	Dir   string       // <dir of the agent>/log; made when missing
	Out   io.Writer    // as before; nil: nowhere
	Level slog.Leveler // nil means info
	MB    int          // megabytes of a file; 0 means 5; there are two
}

// Options select what is read, as apply.LogOptions.
type Options struct {
	Since  time.Time // zero: from the beginning
	Tail   int       // lines; 0: all, -1: none of the past
	Follow bool
	// Timestamps changes nothing: each line begins with its time.
	Timestamps bool
}

// Journal is a log that is kept.
type Journal struct {
	dir string
	h   slog.Handler
	out *tee
}

// New opens a journal. What cannot be written is lost: it never fails.
func New(c Config) *Journal {
	if c.Out == nil {
		c.Out = io.Discard
	}
	// the folder is ours alone: lines may tell of the node's network
	_ = os.MkdirAll(c.Dir, 0o700) // else it is tried again with each line
	t := &tee{out: c.Out, file: &logfile.Writer{Path: filepath.Join(c.Dir, name), Size: int64(cmp.Or(c.MB, 5)) << 20, Keep: 1}}
	return &Journal{dir: c.Dir, out: t, h: slog.NewTextHandler(t, &slog.HandlerOptions{Level: c.Level})}
}

// Handler is for slog.New.
func (j *Journal) Handler() slog.Handler { return j.h }

// Lost returns how many lines could not be written to the file.
func (j *Journal) Lost() uint64 {
	j.out.mu.Lock()
	defer j.out.mu.Unlock()
	return j.out.lost
}

// Close closes the file; it is opened again by the next line.
func (j *Journal) Close() error {
	j.out.mu.Lock()
	defer j.out.mu.Unlock()
	return j.out.file.Close()
}

// tee writes lines on, and to the file as long as that works.
type tee struct {
	mu   sync.Mutex
	out  io.Writer
	file *logfile.Writer
	lost uint64
}

func (t *tee) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.out.Write(p)
	_, ferr := t.file.Write(p)
	if errors.Is(ferr, fs.ErrNotExist) && os.MkdirAll(filepath.Dir(t.file.Path), 0o700) == nil {
		_, ferr = t.file.Write(p)
	}
	if ferr != nil {
		t.lost++
	}
	return n, err
}

// Logs writes what was logged: nil at its end, the writer's error, or the context's. It may
// be called beside an agent that runs in another process.
func (j *Journal) Logs(ctx context.Context, o Options, w io.Writer) error {
	return Read(ctx, j.dir, o, w)
}

// Read is Logs of the journal in a folder.
func Read(ctx context.Context, dir string, o Options, w io.Writer) error {
	l := logfile.Log{Dir: dir, Name: name, Format: format}
	err := l.Read(ctx, logfile.Options{Since: o.Since, Tail: o.Tail, Follow: o.Follow}, w)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was logged
	}
	return err
}

var stampKey = []byte("time=")

// format takes a line as it is, if it is not too old. One without a time is half a line.
func format(dst, line []byte, o logfile.Options) []byte {
	if len(line) == 0 {
		return dst
	}
	if !o.Since.IsZero() {
		rest, ok := bytes.CutPrefix(line, stampKey)
		stamp, _, _ := bytes.Cut(rest, []byte{' '})
		t, err := time.Parse(time.RFC3339Nano, string(stamp))
		if !ok || err != nil || t.Before(o.Since) {
			return dst
		}
	}
	return append(append(dst, line...), '\n')
}
