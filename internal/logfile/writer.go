package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Writer writes a log. A file that is full moves to <path>.<n>, where n only grows, over
// restarts, too. A write is one whole line or several; each that fails is lost, and the next one
// tries again, on a line of its own. It is not safe for concurrent use.
type Writer struct {
	Path string
	Size int64 // bytes of a file; one write may go beyond
	Keep int   // full files that stay

	f    *os.File
	size int64
	torn bool // the file ends with half a line
}

func (w *Writer) Write(p []byte) (int, error) {
	if err := w.ready(len(p)); err != nil {
		return 0, err
	}
	lead := 0
	if w.torn {
		lead, p = 1, append([]byte{'\n'}, p...)
	}
	n, err := w.f.Write(p)
	w.size += int64(n)
	if n > 0 {
		w.torn = n < len(p)
	}
	return max(n-lead, 0), err
}

// Close closes the file; the next write opens it again.
func (w *Writer) Close() error {
	if w.f == nil {
		return nil
	}
	err := w.f.Close()
	w.f = nil
	return err
}

// ready has a file open that takes so many bytes.
func (w *Writer) ready(more int) error {
	if err := w.open(); err != nil || w.size == 0 || w.size+int64(more) <= w.Size {
		return err
	}
	older, newest, err := w.older()
	if err != nil {
		return err
	}
	next := newest + 1
	err = w.Close()
	switch rerr := os.Rename(w.Path, w.name(next)); {
	case rerr == nil:
		older = append(older, next)
	case errors.Is(rerr, fs.ErrNotExist): // somebody removed it
	case w.size > 2*w.Size:
		err = errors.Join(err, rerr)
	} // else the file takes some more, and the next write tries again
	for _, n := range older[:max(len(older)-w.Keep, 0)] {
		_ = os.Remove(w.name(n)) // tried again when the next one is full
	}
	return errors.Join(err, w.open())
}

func (w *Writer) open() error {
	if w.f != nil {
		return nil
	}
	f, err := os.OpenFile(w.Path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	w.f, w.size, w.torn = f, fi.Size(), false
	var end [1]byte
	if w.size > 0 {
		_, err = f.ReadAt(end[:], w.size-1)
		w.torn = err != nil || end[0] != '\n' // the power went, or the disk was full
	}
	return nil
}

func (w *Writer) name(n int64) string { return fmt.Sprintf("%s.%d", w.Path, n) }

// older lists the numbers of full files, oldest first, and the newest number that is taken.
func (w *Writer) older() (files []int64, newest int64, err error) {
	entries, err := os.ReadDir(filepath.Dir(w.Path))
	for _, e := range entries {
		n, ok := Number(filepath.Base(w.Path), e.Name())
		if !ok || n == live {
			continue
		}
		newest = max(newest, n)
		if e.Type().IsRegular() {
			files = append(files, n)
		}
	}
	slices.Sort(files)
	return files, newest, err
}

// live is the number of the file that is written: it is the newest.
const live = math.MaxInt64

// Number tells whether a file belongs to the log of that name, and where it stands among its files.
func Number(log, file string) (n int64, ok bool) {
	rest, ok := strings.CutPrefix(file, log)
	if !ok || rest == "" {
		return live, ok
	}
	digits, ok := strings.CutPrefix(rest, ".")
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, ok && err == nil && n > 0 && n < live && strconv.FormatInt(n, 10) == digits
}
