package wire

import (
	"encoding/json"
	"errors"
)

// A stream runs from the node to one hub: the node publishes frames on StreamSubject, at most
// Window of them before the hub grants more by Control. So a slow reader slows its own
// stream, and fills nobody's memory.
const (
	Window   = 16        // frames in flight
	MaxFrame = 128 << 10 // payload bytes of a frame
	// StreamIdle ends a stream whose other side has been silent for this long: each side
	// sends something, if only an empty FrameAlive or Control, every third of it.
	StreamIdle = 30 // seconds
)

// Kinds of frames: the first byte of the message.
const (
	FrameOut   byte = 'o' // stdout, or lines of a log
	FrameErr   byte = 'e' // stderr
	FrameAlive byte = 'a' // nothing, or in decimals how many bytes of input were taken; costs no credit
	FrameEnd   byte = 'x' // the last one; the payload is an End; costs no credit
)

// End is how a stream ended.
type End struct {
	ExitCode int    `json:"exitCode"`
	Error    *Error `json:"error,omitempty"`
}

// Control is what the hub says about a stream.
type Control struct {
	Credit  int    `json:"credit,omitempty"` // more frames that may be sent
	Input   []byte `json:"input,omitempty"`  // for stdin, at most MaxInput bytes
	EOF     bool   `json:"eof,omitempty"`    // of stdin
	Rows    uint16 `json:"rows,omitempty"`   // with Columns: the terminal's new size
	Columns uint16 `json:"columns,omitempty"`
	Cancel  bool   `json:"cancel,omitempty"`
	Seq     uint64 `json:"seq,omitempty"` // of Input, from 1: a gap ends the stream
}

// MaxInput is the most bytes of Input in one Control.
const MaxInput = 32 << 10

// A node tells what its command took of the input at the beginning, which is nothing, and
// after each InputStep. The hub then sends at most MaxAhead more than that. To a node that
// never tells, the hub sends at its own pace.
const (
	InputStep = 1 << 20
	MaxAhead  = 2 << 20
)

// Frame makes a message.
func Frame(kind byte, payload []byte) []byte {
	return append([]byte{kind}, payload...)
}

// EndFrame makes the last message.
func EndFrame(e End) []byte {
	b, err := json.Marshal(e)
	if err != nil {
		b = []byte(`{"error":{"code":"failed","message":"the end cannot be told"}}`)
	}
	return Frame(FrameEnd, b)
}

// ErrFrame marks a message that is no frame.
var ErrFrame = errors.New("not a frame of a stream")

// ParseFrame takes a message apart.
func ParseFrame(b []byte) (kind byte, payload []byte, err error) {
	if len(b) == 0 || len(b) > MaxFrame+1 {
		return 0, nil, ErrFrame
	}
	switch b[0] {
	case FrameOut, FrameErr, FrameAlive, FrameEnd:
		return b[0], b[1:], nil
	}
	return 0, nil, ErrFrame
}
