package audit

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Report is what Verify found.
type Report struct {
	Files  []string
	Lines  int
	First  uint64  // more than 1: older files were taken away
	Head   Head    // compare it with one kept elsewhere: lines cut off the end show in nothing else
	Broken *Broken // nil: the chain is whole

	missing []Head // that were kept elsewhere, and not found yet
}

// Broken is the first place where the chain does not hold.
type Broken struct {
	File string
	Line int // from 1; 0: of the log as a whole
	Why  string
}

func (b *Broken) Error() string {
	if b.Line == 0 {
		return b.File + ": " + b.Why
	}
	return fmt.Sprintf("%s:%d: %s", b.File, b.Line, b.Why)
}

// ParseHead reads a head as String writes it: SEQ:HASH.
func ParseHead(s string) (Head, error) {
	seq, hash, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(seq, 10, 62)
	if raw, herr := hex.DecodeString(hash); err != nil || herr != nil || len(raw) != len(zero)/2 {
		return Head{}, fmt.Errorf("%q is no head of an audit log; want SEQ:HASH as 'selvedge-hub status' prints it", s)
	}
	return Head{n, strings.ToLower(hash)}, nil
}

func (h Head) String() string { return fmt.Sprintf("%d:%s", h.Seq, h.Hash) }

// Verify checks the chain through all files of a log, and that heads which were kept elsewhere
// are in it. The log may be written meanwhile.
func Verify(path string, kept ...Head) (Report, error) {
	var r Report
	// the newest file first: when it is full meanwhile it is still the one that follows the
	// others, by whatever name
	newest, err := os.Open(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if newest != nil {
		defer newest.Close()
	}
	ns, err := rotated(path)
	if err != nil {
		return r, err
	}
	if len(ns) == 0 && newest == nil {
		return r, fmt.Errorf("%s: there is no audit log", path)
	}
	r.missing = slices.DeleteFunc(slices.Clone(kept), func(h Head) bool { return h == Head{Hash: zero} }) // of an empty log
	for _, n := range ns {
		name := path + "." + strconv.Itoa(n)
		f, err := os.Open(name)
		if err != nil {
			return r, err
		}
		if newest != nil && same(f, newest) {
			newest = nil
		}
		err = r.file(name, f)
		f.Close()
		if err != nil || r.Broken != nil {
			return r, err
		}
	}
	if newest != nil {
		if err := r.file(path, newest); err != nil || r.Broken != nil {
			return r, err
		}
	}
	if len(r.missing) > 0 {
		h := r.missing[0]
		r.Broken = &Broken{filepath.Base(path), 0, fmt.Sprintf("entry %d is not in it with the hash that was kept: the log was cut, or made anew", h.Seq)}
		if h.Seq < r.First {
			r.Broken.Why = fmt.Sprintf("entry %d is not in it: it begins with entry %d", h.Seq, r.First)
		}
	}
	return r, nil
}

func same(a, b *os.File) bool {
	x, err := a.Stat()
	y, err2 := b.Stat()
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// halfWritten is how long a line may have no end because it is being written.
const halfWritten = time.Second

func (r *Report) file(name string, f *os.File) error {
	r.Files = append(r.Files, filepath.Base(name))
	in := &lines{r: bufio.NewReaderSize(f, MaxLine)}
	for n := 1; ; n++ {
		broken := func(format string, a ...any) error {
			r.Broken = &Broken{filepath.Base(name), n, fmt.Sprintf(format, a...)}
			return nil
		}
		line, err := in.next()
		switch {
		case err == io.EOF && len(line) == 0:
			return nil
		case err == io.EOF:
			return broken("the line has no end, as a crash leaves it: starting the hub puts it aside")
		case err == bufio.ErrBufferFull:
			return broken("the line is longer than %d bytes", MaxLine)
		case err != nil:
			return fmt.Errorf("%s:%d: %w", filepath.Base(name), n, err)
		}
		line = line[:len(line)-1]
		e, ok := parse(line)
		switch {
		case !ok:
			return broken("the line is no entry of an audit log")
		case r.Lines == 0 && e.Seq == 1 && e.Prev != zero:
			return broken("the first line names a line before it")
		case r.Lines > 0 && e.Seq != r.Head.Seq+1:
			return broken("number %d follows %d: lines are missing, added or out of order", e.Seq, r.Head.Seq)
		case r.Lines > 0 && e.Prev != r.Head.Hash:
			return broken("the line before it (number %d) is not the one that was written", r.Head.Seq)
		}
		if r.Lines == 0 {
			r.First = e.Seq
		}
		r.Lines, r.Head = r.Lines+1, Head{e.Seq, hash(line)}
		r.missing = slices.DeleteFunc(r.missing, func(h Head) bool { return h == r.Head })
	}
}

// lines reads lines of a file that may be growing.
type lines struct{ r *bufio.Reader }

// next is ReadSlice up to a newline that waits for the rest of a line for a moment.
func (l *lines) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if err == io.EOF {
		line = slices.Clone(line) // what is read next overwrites it
	}
	for end := time.Now().Add(halfWritten); err == io.EOF && len(line) > 0 && time.Now().Before(end); {
		time.Sleep(halfWritten / 50)
		var rest []byte
		rest, err = l.r.ReadSlice('\n')
		if line = append(line, rest...); len(line) > MaxLine {
			err = bufio.ErrBufferFull
		}
	}
	return line, err
}
