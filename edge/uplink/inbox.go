package uplink

import (
	"io"
	"sync"

	"selvedge/schema/wire"
)

// inbox is a command's input: bounded, and in order or not at all.
type inbox struct {
	mu   sync.Mutex
	some *sync.Cond
	data []byte
	seq  uint64
	end  error

	taken, told int64
	tell        func(taken int64) // what was read, now and then
}

func newInbox(tell func(taken int64)) *inbox {
	b := &inbox{tell: tell}
	b.some = sync.NewCond(&b.mu)
	return b
}

// put adds input; the error ends the stream.
func (b *inbox) put(seq uint64, p []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.end != nil:
		return nil // nobody reads it any more
	case seq != b.seq+1:
		return refusal(wire.CodeFailed, "input was lost on the way")
	case len(p) > wire.MaxInput:
		return refusal(wire.CodeInvalid, "%d bytes of input at once; at most %d", len(p), wire.MaxInput)
	case len(b.data)+len(p) > maxIn:
		return refusal(wire.CodeFailed, "the command does not read its input: %d bytes wait", len(b.data))
	}
	b.seq = seq
	b.data = append(b.data, p...)
	b.some.Broadcast()
	return nil
}

func (b *inbox) close(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end == nil {
		b.end = err
	}
	b.some.Broadcast()
}

// Read blocks until there is input.
func (b *inbox) Read(p []byte) (int, error) {
	n, tell, err := b.take(p)
	if tell > 0 {
		b.tell(tell)
	}
	return n, err
}

// take is Read; tell is what is to be told, or 0.
func (b *inbox) take(p []byte) (n int, tell int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.data) == 0 {
		if b.end != nil {
			return 0, 0, b.end
		}
		b.some.Wait()
	}
	n = copy(p, b.data)
	b.data = b.data[n:]
	if len(b.data) == 0 {
		b.data = nil // the array goes, too
	}
	if b.taken += int64(n); b.taken-b.told >= wire.InputStep {
		b.told = b.taken
		tell = b.taken
	}
	return n, tell, nil
}

var _ io.Reader = (*inbox)(nil)
