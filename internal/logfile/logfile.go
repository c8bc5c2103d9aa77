// Package logfile keeps logs in rotated files.
//
// In: lines for a Writer; for a reader a folder, the name of the file that is written, and a
// function that knows the format of a line. Out: files of bounded size, of which those that are
// full bear growing numbers; text on a writer, whole lines, many at a time.
//
// Guarantees: the order of files is that of their numbers, so that no clock that is set
// changes it; memory does not depend on the size of files or lines; the end of a log is
// found from its end; a follower misses no line over rotations as long as the files are
// there, and none twice; only plain files of the folder itself are opened, no links, pipes
// or devices. Reading writes nothing.
package logfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// Options select what is read.
type Options struct {
	Since      time.Time // passed on to Format
	Tail       int       // lines; 0: all, -1: none of the past
	Follow     bool      // until the folder goes, or the context ends
	Timestamps bool      // passed on to Format
}

// Log is one log.
type Log struct {
	Dir  string
	Name string // of the file that is written; see Number for the others
	// Format appends the text of a line, given without its end; nothing if it is damaged, or
	// not to be told.
	Format func(dst, line []byte, o Options) []byte
	// Moved is where the files are moved when Dir goes; empty: nowhere.
	Moved string
}

const (
	maxLine = 256 << 10 // longer lines are left out
	batch   = 64 << 10  // of text that is written at once, about
)

// How often a follower looks: soon after something came, then ever less.
const (
	soonest = 20 * time.Millisecond
	latest  = 250 * time.Millisecond
)

// Read writes the log. It returns nil at its end, the writer's error, or the context's.
func (l Log) Read(ctx context.Context, o Options, w io.Writer) error {
	files, err := l.open(l.Dir)
	if errors.Is(err, fs.ErrNotExist) && l.Moved != "" {
		files, err = l.open(l.Moved)
	}
	if err != nil {
		return err
	}
	defer func() { closeAll(files) }()
	c := copier{log: l, o: o, w: w}
	first, from, err := start(ctx, files, o)
	if err != nil {
		return err
	}
	for n := first; n < len(files); n++ {
		f := files[n]
		live := n == len(files)-1
		if !live && f.at.Before(o.Since) {
			continue
		}
		c.take(f.File, from, live)
		from = 0
		end := int64(-1)
		if live { // what is printed meanwhile is a follower's
			end = f.size
		}
		if err := c.copy(ctx, end); err != nil {
			return err
		}
	}
	if err := c.flush(); err != nil || !o.Follow {
		return err
	}
	files = last(files) // those that were removed meanwhile must not take room any more
	return l.follow(ctx, &c, &files)
}

// follow goes on at the copier's place.
func (l Log) follow(ctx context.Context, c *copier, files *[]file) error {
	pause := soonest
	t := time.NewTimer(pause)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		was := c.written
		gone, err := l.more(ctx, c, files)
		if err != nil || gone {
			return err
		}
		if pause = min(pause*2, latest); c.written != was {
			pause = soonest
		} else if pause == latest {
			c.rest()
		}
		t.Reset(pause)
	}
}

// more copies what was added since, over rotations, and tells whether nothing can follow.
func (l Log) more(ctx context.Context, c *copier, files *[]file) (gone bool, err error) {
	fi, err := os.Lstat(l.Dir + "/" + l.Name)
	if err == nil && c.f != nil && os.SameFile(fi, c.id) {
		return false, errors.Join(c.copy(ctx, -1), c.flush())
	}
	dir := l.Dir
	if err != nil {
		if _, err := os.Lstat(l.Dir); err == nil {
			return false, nil // between two files
		}
		if gone, dir = true, l.Moved; dir == "" {
			return true, errors.Join(c.finish(ctx), c.flush())
		}
	}
	next, err := l.open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return gone, errors.Join(c.finish(ctx), c.flush())
	}
	if err != nil {
		return false, err
	}
	// those that came after ours; all of them if ours was removed: it was the oldest
	after := next
	for n, f := range next {
		if c.f != nil && os.SameFile(f.id, c.id) {
			after = next[n+1:]
		}
	}
	err = c.finish(ctx)
	for n, f := range after {
		if err != nil {
			break
		}
		c.take(f.File, 0, n == len(after)-1 && !gone)
		err = c.copy(ctx, -1)
	}
	if len(after) > 0 {
		closeAll(*files)
		*files = last(next)
	} else {
		closeAll(next)
	}
	return gone, errors.Join(err, c.flush())
}

type file struct {
	*os.File
	id   fs.FileInfo
	n    int64
	at   time.Time
	size int64
}

// last closes all but the last.
func last(files []file) []file {
	n := max(len(files)-1, 0)
	closeAll(files[:n])
	return files[n:]
}

func closeAll(files []file) {
	for _, f := range files {
		f.Close()
	}
}

// open opens the files of the log, oldest first.
func (l Log) open(path string) ([]file, error) {
	dir, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var out []file
	for range 5 { // until none was renamed meanwhile
		closeAll(out)
		if out, err = l.openOnce(dir); err != nil {
			return nil, err
		}
		if l.whole(dir, out) {
			return out, nil
		}
	}
	return out, nil
}

// whole tells whether files are all that there are: one may have been renamed between the look at
// the folder and its opening, and be missing, while the file written now is there.
func (l Log) whole(dir *os.Root, files []file) bool {
	fi, err := dir.Lstat(l.Name)
	if err != nil {
		return true // between two files
	}
	if len(files) == 0 || !os.SameFile(fi, files[len(files)-1].id) {
		return false
	}
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return false
	}
	newest := int64(0)
	for _, e := range entries {
		if n, ok := Number(l.Name, e.Name()); ok && n < live && e.Type().IsRegular() {
			newest = max(newest, n)
		}
	}
	return newest == 0 || len(files) > 1 && files[len(files)-2].n == newest
}

func (l Log) openOnce(dir *os.Root) ([]file, error) {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("read the folder of the log: %w", err)
	}
	var out []file
	for _, e := range entries {
		n, ok := Number(l.Name, e.Name())
		if !ok {
			continue
		}
		f, err := plain(dir, e.Name())
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotPlain) {
			continue
		}
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("open the log: %w", err)
		}
		if slices.ContainsFunc(out, func(o file) bool { return os.SameFile(o.id, f.id) }) {
			f.Close() // renamed between two looks
			continue
		}
		f.n = n
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b file) int { return cmp.Compare(a.n, b.n) })
	return out, nil
}

var errNotPlain = errors.New("is no plain file")

// plain opens a file that is neither a link nor a device, nor a pipe that would hang.
func plain(dir *os.Root, name string) (file, error) {
	fi, err := dir.Lstat(name)
	if err != nil {
		return file{}, err
	}
	if !fi.Mode().IsRegular() {
		return file{}, errNotPlain
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return file{}, err
	}
	is, err := f.Stat()
	if err == nil && !os.SameFile(fi, is) {
		err = fs.ErrNotExist // another one by now
	}
	if err != nil {
		f.Close()
		return file{}, err
	}
	return file{File: f, id: is, at: is.ModTime(), size: is.Size()}, nil
}
