package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"selvedge/internal/atomicfile"
	"selvedge/schema/hubapi"
)

// lockFile keeps a second process away: two writers would break the chain.
func lockFile(name string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another process writes it: %w", err)
	}
	return f, nil
}

// rotated returns the numbers of the full files, ascending.
func rotated(path string) ([]int, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var ns []int
	for _, e := range entries {
		if num, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+"."); ok {
			if n, err := strconv.Atoi(num); err == nil && n > 0 && strconv.Itoa(n) == num {
				ns = append(ns, n)
			}
		}
	}
	slices.Sort(ns)
	return ns, nil
}

// files returns the names of all files that there are, oldest first.
func files(path string) ([]string, error) {
	ns, err := rotated(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range ns {
		names = append(names, path+"."+strconv.Itoa(n))
	}
	if _, err := os.Stat(path); err == nil {
		names = append(names, path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return names, nil
}

// steady holds that what is written next goes into the log and nowhere else: into the file at
// its path, as it was left. Else it is said in the log, which goes on from the head
// that is known: the gap stays for Verify to find.
func (l *Log) steady() error {
	why, err := l.meddled()
	if err != nil {
		return err
	}
	if why == "" && !l.bad {
		return nil
	}
	l.f.Close()
	l.bad = true // until it is open again
	if why != "" {
		l.distrust(why)
	}
	return l.open()
}

// meddled tells what somebody else did to the file; empty: nothing that shows.
func (l *Log) meddled() (string, error) {
	own, err := l.f.Stat()
	if err != nil {
		return "", nil // open anew; it is closed, because that failed before
	}
	there, err := os.Stat(l.c.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "its file was taken away", nil
	case err != nil:
		return "", err
	case !os.SameFile(own, there):
		return "another file was put in the place of its own", nil
	case there.Size() < l.size || there.Size() > l.size && !l.bad: // else what a write that failed left
		return fmt.Sprintf("its file has %d bytes and not the %d that were written", there.Size(), l.size), nil
	}
	return "", nil
}

// distrust notes what somebody else did, before anything can fail: what the file ends with is
// none of the chain's.
func (l *Log) distrust(what string) {
	head := l.Head()
	l.c.Log.Error("somebody else changed the audit log", "path", l.c.Path, "what", what, "seq", head.Seq, "head", head.Hash)
	l.gap = true
	l.note(fmt.Sprintf("somebody else changed the log: %s; it goes on behind entry %d, %s", what, head.Seq, head.Hash))
}

func (l *Log) note(text string) {
	if len(l.unsaid) < maxUnsaid {
		l.unsaid = append(l.unsaid, text)
	}
}

// open opens the file, finds the head, puts a torn end aside and says what is unsaid.
func (l *Log) open() error {
	f, err := os.OpenFile(l.c.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	head, end, err := lastLine(f, info.Size())
	if err != nil {
		return err
	}
	if end == 0 { // the file before it has the head
		if head, err = l.headBefore(); err != nil {
			return err
		}
	}
	known := l.Head()
	if !l.gap && known.Seq > head.Seq {
		l.distrust("entries that were written are gone")
	}
	if l.gap {
		head = known
	}
	if torn := info.Size() - end; torn > 0 {
		name := fmt.Sprintf("%s.torn-%d", l.c.Path, head.Seq+1)
		if err := l.putAside(f, end, torn, name); err != nil {
			return fmt.Errorf("put its torn end aside: %w", err)
		}
		l.note(fmt.Sprintf("the last %d bytes were no whole line, as a crash leaves them; they are kept in %s", torn, filepath.Base(name)))
		l.c.Log.Warn("the audit log ended in a part of a line", "path", l.c.Path, "bytes", torn, "kept", name)
	}
	if err := atomicfile.SyncDir(filepath.Dir(l.c.Path)); err != nil {
		return err
	}
	l.f, l.size, l.bad, keep = f, end, false, true
	l.mu.Lock()
	l.head = head
	l.mu.Unlock()
	l.c.Log.Info("audit log", "path", l.c.Path, "seq", head.Seq, "head", head.Hash)
	return l.say()
}

// say writes what is unsaid.
func (l *Log) say() error {
	for len(l.unsaid) > 0 {
		line, next, err := encode(l.Head(), hubapi.AuditEntry{Operation: "audit", Outcome: hubapi.OutcomeNoted, Detail: l.unsaid[0]}, l.c.Now())
		if err != nil {
			return err
		}
		if err := l.put(line, next); err != nil {
			_ = l.f.Truncate(l.size) // if only fsync failed, it would stand there twice
			l.bad = true             // it is still to be said
			return err
		}
		l.unsaid = l.unsaid[1:]
	}
	l.gap = false
	return nil
}

// putAside copies the bytes from end into a file of their own and cuts them off.
func (l *Log) putAside(f *os.File, end, n int64, name string) error {
	// all of it, for it is evidence; MaxSize and a batch bound it, and what a stranger
	// appended beyond that is cut
	tail := make([]byte, min(n, l.c.MaxSize+MaxLine))
	if _, err := f.ReadAt(tail, end); err != nil && err != io.EOF {
		return err
	}
	if err := atomicfile.Write(name, tail, 0o600); err != nil {
		return err
	}
	if err := f.Truncate(end); err != nil {
		return err
	}
	return f.Sync()
}

// headBefore returns the head that the newest full file ends with.
func (l *Log) headBefore() (Head, error) {
	ns, err := rotated(l.c.Path)
	if err != nil || len(ns) == 0 {
		return Head{Hash: zero}, err
	}
	name := l.c.Path + "." + strconv.Itoa(ns[len(ns)-1])
	f, err := os.Open(name)
	if err != nil {
		return Head{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Head{}, err
	}
	head, end, err := lastLine(f, info.Size())
	if err == nil && (end == 0 || end != info.Size()) {
		err = fmt.Errorf("%s does not end with a whole line: the chain cannot go on; move the audit files elsewhere and keep them", filepath.Base(name))
	}
	return head, err
}

// rotate begins a new file.
func (l *Log) rotate() error {
	ns, err := rotated(l.c.Path)
	if err != nil {
		return err
	}
	n := 1
	if len(ns) > 0 {
		n = ns[len(ns)-1] + 1
	}
	if err := os.Rename(l.c.Path, l.c.Path+"."+strconv.Itoa(n)); err != nil {
		return err
	}
	l.f.Close()
	l.bad = true // until the new one is open
	return l.open()
}

// lastLine returns the head that the last whole line makes, and where it ends; 0 if there
// is none.
func lastLine(f io.ReaderAt, size int64) (Head, int64, error) {
	r := &backwards{f: f, at: size}
	for {
		line, end, err := r.next()
		if err == io.EOF {
			return Head{Hash: zero}, 0, nil
		}
		if err != nil {
			return Head{}, 0, err
		}
		if e, ok := parse(line); ok {
			return Head{e.Seq, hash(line)}, end, nil
		}
	}
}

// parse reads a line; ok tells whether it is one of a log.
func parse(line []byte) (e hubapi.AuditEntry, ok bool) {
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &e) != nil {
		return e, false
	}
	return e, e.Seq > 0 && e.Seq < 1<<62 && len(e.Prev) == len(zero)
}

// backwards reads the whole lines of a file from its end.
type backwards struct {
	f   io.ReaderAt
	at  int64  // where buf begins in the file
	buf []byte // read and not yet given; a tail without a newline at its end is dropped
	cut bool   // the end of buf is the end of a line
}

// next returns the line before, without its newline, and where the one after it begins;
// io.EOF at the beginning. A line beyond MaxLine is returned as nothing.
func (b *backwards) next() (line []byte, end int64, err error) {
	for {
		if !b.cut {
			if i := bytes.LastIndexByte(b.buf, '\n'); i >= 0 {
				b.buf, b.cut = b.buf[:i+1], true
			} else {
				b.buf = nil // no whole line in it
			}
		}
		if b.cut {
			body := b.buf[:len(b.buf)-1]
			i := bytes.LastIndexByte(body, '\n')
			if i >= 0 || b.at == 0 {
				end = b.at + int64(len(b.buf))
				line = body[i+1:]
				b.buf = b.buf[:i+1]
				b.cut = i >= 0
				return line, end, nil
			}
			if len(body) > MaxLine {
				end = b.at + int64(len(b.buf))
				b.buf, b.cut = nil, false
				return nil, end, nil
			}
		}
		if b.at == 0 {
			return nil, 0, io.EOF
		}
		n := min(b.at, 64<<10)
		b.at -= n
		more := make([]byte, n, n+int64(len(b.buf)))
		if _, err := b.f.ReadAt(more, b.at); err != nil && err != io.EOF {
			return nil, 0, err
		}
		b.buf = append(more, b.buf...)
	}
}
