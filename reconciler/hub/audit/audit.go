package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"selvedge/schema/hubapi"
)

// Bounds of a line.
const (
	maxText    = 1 << 10  // bytes of a field
	maxCommand = 16 << 10 // bytes of a command's words together: all that a hub passes on, for what is cut off could be what matters
	maxWords   = 1024
	// MaxLine is the most bytes of a line, for JSON writes some bytes as six: a longer one
	// is none of ours.
	MaxLine = 256 << 10

	maxUnsaid = 16 // more of the same kind tell nothing new
)

// zero is the hash before the first line.
var zero = strings.Repeat("0", 2*sha256.Size)

// Config configures a Log.
type Config struct {
	Path    string
	MaxSize int64            // bytes of a file before the next one begins; 0 means 64 MiB
	Timeout time.Duration    // for the disk to take an entry; 0 means 5 s
	Log     *slog.Logger     // nil: slog.Default()
	Now     func() time.Time // nil: time.Now
}

// Log is the file open for appending. One process has it at a time.
type Log struct {
	c    Config
	reqs chan request
	stop chan struct{} // closed by Close
	done chan struct{} // closed when the writer has ended
	once sync.Once

	// Of the writer alone.
	f    file
	size int64
	bad  bool // what the file ends with is not known: open it anew first
	lock *os.File
	// unsaid is what the log has to tell of itself before anything else; it waits here while the
	// disk takes nothing. Until all is said, gap holds that the log goes on from head, whatever
	// the file ends with.
	unsaid []string
	gap    bool

	mu   sync.Mutex
	head Head
}

// file is what the writer does with the open file; tests stand in a disk that is full.
type file interface {
	Write([]byte) (int, error)
	Sync() error
	Stat() (os.FileInfo, error)
	Truncate(int64) error
	Close() error
}

// Head is the end of the chain.
type Head struct {
	Seq  uint64
	Hash string // of the last line
}

type request struct {
	entry  hubapi.AuditEntry
	answer chan error
}

// ErrClosed is what Append returns after Close.
var ErrClosed = errors.New("the audit log is closed")

// Open opens or makes the log, mends its end after a crash, and starts the writer, which
// Close ends.
func Open(c Config) (*Log, error) {
	if c.MaxSize <= 0 {
		c.MaxSize = 64 << 20
	}
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	l := &Log{c: c, reqs: make(chan request, 256), stop: make(chan struct{}), done: make(chan struct{})}
	lock, err := lockFile(c.Path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("audit log %s: %w", c.Path, err)
	}
	l.lock = lock
	if err := l.open(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("audit log %s: %w", c.Path, err)
	}
	go l.write()
	return l, nil
}

// Close writes what was given to Append and closes the file.
func (l *Log) Close() error {
	l.once.Do(func() { close(l.stop) })
	<-l.done
	return errors.Join(l.f.Close(), l.lock.Close())
}

// Head returns the end of the chain, to be kept elsewhere.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Append adds an entry; Seq, Time and Prev are the log's own. When it returns nil, the entry
// is on the disk. On an error nothing may be done that should have been told: the error says
// to a person what is wrong and what to do.
func (l *Log) Append(ctx context.Context, e hubapi.AuditEntry) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.c.Timeout,
		fmt.Errorf("the audit log %s took longer than %v: its disk does not answer", l.c.Path, l.c.Timeout))
	defer cancel()
	r := request{entry: bound(e), answer: make(chan error, 1)}
	select {
	case l.reqs <- r:
	case <-l.stop:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-r.answer:
		return err
	case <-l.done:
		select {
		case err := <-r.answer: // both were ready
			return err
		default:
			return ErrClosed
		}
	case <-ctx.Done():
		return context.Cause(ctx) // it may still be written: then it tells of something that was not done
	}
}

// bound cuts what outsiders can make long, and says so.
func bound(e hubapi.AuditEntry) hubapi.AuditEntry {
	for _, s := range []*string{&e.Subject, &e.Token, &e.Remote, &e.Request, &e.Operation, &e.Outcome, &e.Scope, &e.Node, &e.App, &e.Container, &e.Detail} {
		*s = cut(*s, maxText)
	}
	var words []string
	room := maxCommand
	for i, w := range e.Command {
		if len(w) > room || i == maxWords {
			words = append(words, cut(w, room), fmt.Sprintf("… and %d more", len(e.Command)-i-1))
			break
		}
		words, room = append(words, w), room-len(w)
	}
	e.Command = words
	return e
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	at := most
	for at > 0 && !utf8.RuneStart(s[at]) {
		at--
	}
	return fmt.Sprintf("%s… (%d bytes)", s[:at], len(s))
}

// write is the writer: it takes all that waits, writes it at once and syncs once.
func (l *Log) write() {
	defer close(l.done)
	for {
		var batch []request
		select {
		case r := <-l.reqs:
			batch = append(batch, r)
		case <-l.stop:
		}
	more:
		for len(batch) < cap(l.reqs) {
			select {
			case r := <-l.reqs:
				batch = append(batch, r)
			default:
				break more
			}
		}
		if len(batch) == 0 {
			return // stopped, and nothing waits
		}
		err := l.writeBatch(batch)
		if err != nil {
			l.c.Log.Error("the audit log cannot be written: what must be audited is refused", "path", l.c.Path, "error", err)
		}
		for _, r := range batch {
			r.answer <- err
		}
	}
}

func (l *Log) writeBatch(batch []request) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("the audit log %s cannot be written, and what must be audited is refused: %w; make room on its disk", l.c.Path, err)
		}
	}()
	if err := l.steady(); err != nil {
		return err
	}
	if l.size >= l.c.MaxSize {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	head := l.Head()
	var text []byte
	for _, r := range batch {
		line, next, err := encode(head, r.entry, l.c.Now())
		if err != nil {
			return err
		}
		text, head = append(text, line...), next
	}
	return l.put(text, head)
}

// put appends lines as a whole or not at all.
func (l *Log) put(text []byte, head Head) error {
	if _, err := l.f.Write(text); err != nil {
		// a part may be there: cut it off, or look again next time
		if l.f.Truncate(l.size) != nil {
			l.bad = true
		}
		return err
	}
	if err := l.f.Sync(); err != nil {
		// what the disk has is unknown, and a second fsync would claim success
		l.bad = true
		return err
	}
	l.size += int64(len(text))
	l.mu.Lock()
	l.head = head
	l.mu.Unlock()
	return nil
}

// encode makes the line after head, with its newline.
func encode(head Head, e hubapi.AuditEntry, now time.Time) ([]byte, Head, error) {
	e.Seq, e.Prev, e.Time = head.Seq+1, head.Hash, now.UTC()
	line, err := json.Marshal(e)
	if err != nil {
		return nil, head, err
	}
	return append(line, '\n'), Head{e.Seq, hash(line)}, nil
}

func hash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}
