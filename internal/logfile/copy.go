package logfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

const nonblock = syscall.O_NONBLOCK

// copier writes the lines of one file after the other.
type copier struct {
	log Log
	o   Options
	w   io.Writer

	f       *os.File
	id      fs.FileInfo
	off     int64 // of the next line
	live    bool  // more may follow the last line
	skip    bool  // up to the end of a line that is too long
	in, out []byte
	written int64
}

// take begins a file; live says that it is written still.
func (c *copier) take(f *os.File, off int64, live bool) {
	c.f, c.off, c.live, c.skip = f, off, live, false
	c.id, _ = f.Stat() // of an open file: it cannot fail
}

// rest gives the buffers back until there is something to read: people follow quiet logs for hours.
func (c *copier) rest() {
	if len(c.out) == 0 {
		c.in, c.out = nil, nil
	}
}

// finish copies the rest of a file that is no longer written.
func (c *copier) finish(ctx context.Context) error {
	if c.f == nil || !c.live {
		return nil
	}
	c.live = false
	return c.copy(ctx, -1)
}

// copy writes the whole lines from here to end; -1 means the end of the file. Text may stay
// in out until flush.
func (c *copier) copy(ctx context.Context, end int64) error {
	if c.f == nil {
		return nil
	}
	if fi, err := c.f.Stat(); err == nil && fi.Size() <= c.off {
		if fi.Size() == c.off {
			return ctx.Err()
		}
		c.off = 0 // somebody emptied it
	}
	if c.in == nil {
		c.in = make([]byte, maxLine)
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		in := c.in
		if end >= 0 && end-c.off < int64(len(in)) {
			in = in[:max(end-c.off, 0)]
		}
		n, err := c.f.ReadAt(in, c.off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		done := n < len(c.in)
		used, ferr := c.lines(in[:n])
		if ferr != nil {
			return ferr
		}
		rest := in[used:n]
		switch {
		case used == 0 && n == len(c.in): // a line without end
			c.skip = true
			used = n
		case done && !c.live && len(rest) > 0 && !c.skip: // what was written when the power went
			c.out = c.log.Format(c.out, rest, c.o)
			used = n
		}
		c.off += int64(used)
		if done {
			return nil
		}
	}
}

// lines formats the whole lines of a block and returns how much of it they are.
func (c *copier) lines(b []byte) (used int, err error) {
	for {
		n := bytes.IndexByte(b[used:], '\n')
		if n < 0 {
			return used, nil
		}
		line := b[used : used+n]
		used += n + 1
		if c.skip {
			c.skip = false
			continue
		}
		c.out = c.log.Format(c.out, line, c.o)
		if len(c.out) >= batch {
			if err := c.flush(); err != nil {
				return used, err
			}
		}
	}
}

func (c *copier) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	n, err := c.w.Write(c.out)
	if err == nil && n < len(c.out) {
		err = io.ErrShortWrite
	}
	c.written += int64(n)
	if c.out = c.out[:0]; cap(c.out) > 4*batch { // after a very long line
		c.out = nil
	}
	return err
}

// start finds where to begin: a file, and the place in it.
func start(ctx context.Context, files []file, o Options) (n int, off int64, err error) {
	last := len(files) - 1
	switch {
	case last < 0 || o.Tail == 0:
		return 0, 0, nil
	case o.Tail < 0:
		off, _, err := back(ctx, files[last].File, files[last].size, 0) // a line that is being written counts as to come
		return last, off, err
	}
	left := o.Tail
	for n := last; n >= 0; n-- {
		off, found, err := back(ctx, files[n].File, files[n].size, left)
		if err != nil {
			return 0, 0, err
		}
		if left -= found; left <= 0 {
			return n, off, nil
		}
	}
	return 0, 0, nil
}

// back returns where the last lines before end begin, and how many they are.
func back(ctx context.Context, f *os.File, end int64, lines int) (off int64, found int, err error) {
	b := make([]byte, 64<<10)
	ends := 0
	for end > 0 {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		from := max(end-int64(len(b)), 0)
		n, err := f.ReadAt(b[:end-from], from)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		for at := n; ; {
			if at = bytes.LastIndexByte(b[:at], '\n'); at < 0 {
				break
			}
			if ends++; ends > lines {
				return from + int64(at) + 1, lines, nil
			}
		}
		end = from
	}
	return 0, ends, nil
}
