package validate

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The parent and a child speak in frames over the child's standard input and
// output: four bytes of length (big-endian, of what follows), one byte of kind, a
// payload. A child sends a question and waits for its answer; the parent sends
// a job and answers questions until the result comes.
type frameKind byte

const (
	frameJob    frameKind = 1 + iota // parent: JSON of a job
	frameAnswer                      // parent: status byte, then bytes
	frameRead                        // child: path of a file
	frameList                        // child: path of a directory
	frameCUE                         // child: path of a directory, of which only the CUE files matter
	frameResult                      // child: JSON of a result
)

// Statuses of an answer.
const (
	answerOK byte = iota
	answerMissing
	answerTooLarge
	answerRefused // a budget is used up; the bytes say which
)

const maxPath = 4096 // bytes of a path in a question

func writeFrame(w io.Writer, kind frameKind, parts ...[]byte) error {
	n := 1
	for _, p := range parts {
		n += len(p)
	}
	buf := make([]byte, 5, 4+n)
	binary.BigEndian.PutUint32(buf, uint32(n))
	buf[4] = byte(kind)
	for _, p := range parts {
		buf = append(buf, p...)
	}
	_, err := w.Write(buf)
	return err
}

// readFrame reads a frame whose payload has at most max bytes. The buffer grows
// with what arrives, so that a length alone costs nothing.
func readFrame(r io.Reader, max int64) (frameKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:4])) - 1
	kind := frameKind(head[4])
	switch {
	case n < 0:
		return 0, nil, fmt.Errorf("frame without a kind")
	case kind < frameJob || kind > frameResult:
		return 0, nil, fmt.Errorf("frame of unknown kind %d", kind)
	case (kind == frameRead || kind == frameList || kind == frameCUE) && n > maxPath:
		return 0, nil, fmt.Errorf("path of %d bytes, more than %d", n, maxPath)
	case n > max:
		return 0, nil, &tooMuchError{n, max}
	}
	const step = 1 << 20
	buf := make([]byte, 0, min(n, step))
	for int64(len(buf)) < n {
		k := int(min(n-int64(len(buf)), step))
		if cap(buf)-len(buf) < k {
			grown := make([]byte, len(buf), min(int64(2*cap(buf)+k), n))
			copy(grown, buf)
			buf = grown
		}
		m, err := io.ReadFull(r, buf[len(buf):len(buf)+k])
		buf = buf[:len(buf)+m]
		if err != nil {
			return 0, nil, fmt.Errorf("frame cut short: %w", err)
		}
	}
	return kind, buf, nil
}

type tooMuchError struct{ got, max int64 }

func (e *tooMuchError) Error() string { return fmt.Sprintf("%d bytes, more than %d", e.got, e.max) }
