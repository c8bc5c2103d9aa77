package audit

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"

	"selvedge/schema/hubapi"
)

// Query chooses entries.
type Query struct {
	Before uint64 // with a lower Seq; 0: from the newest
	Limit  int    // 0 means 100; at most 1,000
	Keep   func(*hubapi.AuditEntry) bool
}

// Bounds of a page; the next one goes on from there.
const (
	maxScan = 100000  // lines that it looks at
	maxPage = 4 << 20 // bytes of commands
)

// Page returns entries, newest first, and the Before of the next page; 0 if there is none.
// Lines that are none are left out: Verify tells of them.
func (l *Log) Page(ctx context.Context, q Query) (entries []hubapi.AuditEntry, next uint64, err error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	q.Limit = min(q.Limit, 1000)
	for range 3 {
		var gap bool
		if entries, next, gap, err = l.page(ctx, q); err != nil || !gap {
			break // else a file was renamed while they were read, or lines are missing for good
		}
	}
	return entries, next, err
}

// page is Page, and tells whether numbers were missing between the lines.
func (l *Log) page(ctx context.Context, q Query) (entries []hubapi.AuditEntry, next uint64, gap bool, err error) {
	names, err := files(l.c.Path)
	if err != nil {
		return nil, 0, false, err
	}
	slices.Reverse(names)
	last := l.Head().Seq // what is beyond is not yet durable
	scanned, size, lowest, above := 0, 0, uint64(0), uint64(0)
	entries = []hubapi.AuditEntry{}
	for _, name := range names {
		if first := firstSeq(name); q.Before > 0 && first >= q.Before { // all of it is newer
			above = first
			continue
		}
		full, err := pageFile(name, func(e *hubapi.AuditEntry) bool {
			gap = gap || above > 0 && e.Seq+1 != above
			above = e.Seq
			if e.Seq > last || q.Before > 0 && e.Seq >= q.Before {
				return true
			}
			if len(entries) == q.Limit || scanned == maxScan || size > maxPage || ctx.Err() != nil {
				return false // and there is more
			}
			scanned, lowest = scanned+1, e.Seq
			if q.Keep == nil || q.Keep(e) {
				entries = append(entries, *e)
				for _, w := range e.Command {
					size += len(w)
				}
			}
			return true
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // renamed in between
			return nil, 0, false, err
		}
		if full {
			return entries, lowest, gap, ctx.Err()
		}
	}
	return entries, 0, gap, nil
}

// pageFile gives the entries of a file from its end, until give returns false.
func pageFile(name string, give func(*hubapi.AuditEntry) bool) (stopped bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	r := &backwards{f: f, at: info.Size()}
	for {
		line, _, err := r.next()
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if e, ok := parse(line); ok && !give(&e) {
			return true, nil
		}
	}
}

// firstSeq returns the number of a file's first entry; 0 if it cannot be told.
func firstSeq(name string) uint64 {
	f, err := os.Open(name)
	if err != nil {
		return 0
	}
	defer f.Close()
	line, err := bufio.NewReaderSize(f, MaxLine).ReadSlice('\n')
	if err != nil {
		return 0
	}
	e, ok := parse(line[:len(line)-1])
	if !ok {
		return 0
	}
	return e.Seq
}
