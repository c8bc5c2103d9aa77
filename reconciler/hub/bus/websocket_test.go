package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// dialFramed connects a WebSocket client of others to a framed connection.
func dialFramed(t *testing.T, serve func(*framed)) *websocket.Conn {
	t.Helper()
	ended := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if _, err := c.Write(accepted(r.Header.Get("Sec-WebSocket-Key"))); err != nil {
			t.Error(err)
			return
		}
		serve(&framed{Conn: c})
	}))
	t.Cleanup(func() { <-ended; s.Close() })
	c, _, err := websocket.Dial(t.Context(), s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	return c
}

// TestFramedSpeaksWebSocket: another implementation understands it, with messages of all
// sizes, messages in many frames, pings and an end.
func TestFramedSpeaksWebSocket(t *testing.T) {
	c := dialFramed(t, func(f *framed) { io.Copy(struct{ io.Writer }{f}, struct{ io.Reader }{f}) })
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	back := websocket.NetConn(ctx, c, websocket.MessageBinary)
	for _, n := range []int{1, 2, 7, 8, 125, 126, 127, 1000, 65535, 65536, 200_000} {
		sent := make([]byte, n)
		for i := range sent {
			sent[i] = byte(i * 7)
		}
		w, err := c.Writer(ctx, websocket.MessageBinary)
		if err != nil {
			t.Fatal(err)
		}
		for rest := sent; len(rest) > 0; { // in pieces
			part := rest[:min(len(rest), 1+n/3)]
			if _, err := w.Write(part); err != nil {
				t.Fatal(err)
			}
			rest = rest[len(part):]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, n)
		if _, err := io.ReadFull(back, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	reading := make(chan error, 1)
	go func() { _, err := back.Read(make([]byte, 1)); reading <- err }()
	if err := c.Ping(ctx); err != nil {
		t.Error("ping:", err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error("close:", err)
	}
	<-reading
}

// client builds a frame as clients do.
func client(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := []byte{1, 2, 3, 4}
	b = append(b, mask...)
	for i, c := range payload {
		b = append(b, c^mask[i&3])
	}
	return b
}

// from is a connection that says what r says, and takes everything.
type from struct {
	net.Conn
	io.Reader
	wrote int
}

func (f *from) Read(p []byte) (int, error)       { return f.Reader.Read(p) }
func (f *from) Write(p []byte) (int, error)      { f.wrote += len(p); return len(p), nil }
func (f *from) SetWriteDeadline(time.Time) error { return nil }

func TestFramedRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		data []byte
		want error
	}{
		"a message":                  {client(0x82, []byte("x")), nil},
		"text":                       {client(0x81, []byte("x")), nil},
		"two frames":                 {append(client(0x02, []byte("x")), client(0x80, []byte("y"))...), nil},
		"a ping between":             {bytes.Join([][]byte{client(0x02, []byte("x")), client(0x89, []byte("p")), client(0x80, []byte("y"))}, nil), nil},
		"nothing in it":              {client(0x82, nil), nil},
		"without a mask":             {[]byte{0x82, 1, 'x'}, errFrames},
		"compressed":                 {client(0xc2, []byte("x")), errFrames},
		"an unknown kind":            {client(0x83, []byte("x")), errFrames},
		"an unknown control":         {client(0x8b, nil), errFrames},
		"a second part of nothing":   {client(0x80, []byte("x")), errFrames},
		"a message within another":   {append(client(0x02, []byte("x")), client(0x82, []byte("y"))...), errFrames},
		"a ping in parts":            {client(0x09, nil), errFrames},
		"a ping with much":           {client(0x89, make([]byte, 126)), errFrames},
		"more than there can be":     {[]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}, errFrames},
		"cut in the head":            {[]byte{0x82}, io.ErrUnexpectedEOF},
		"cut in the payload":         {client(0x82, []byte("xyz"))[:7], io.ErrUnexpectedEOF},
		"an end, and more behind it": {append(client(0x88, []byte{3, 232}), client(0x89, make([]byte, 126))...), nil},
		"a flood of pings":           {bytes.Repeat(client(0x89, nil), maxEmpty+1), errFrames},
		"a flood of pongs":           {bytes.Repeat(client(0x8a, []byte("p")), maxEmpty+1), errFrames},
		"a flood of nothing":         {bytes.Repeat(client(0x82, nil), maxEmpty+1), errFrames},
		"a flood of little":          {bytes.Repeat(client(0x82, []byte("x")), 100*maxEmpty), nil},
	} {
		_, err := io.Copy(io.Discard, struct{ io.Reader }{&framed{Conn: &from{Reader: bytes.NewReader(c.data)}}})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
}

// FuzzFramed: whatever a stranger sends is read without a crash, never gives more than was
// sent, and brings no large answer.
func FuzzFramed(f *testing.F) {
	f.Add(client(0x82, []byte("PING\r\n")), 3)
	f.Add(append(client(0x02, make([]byte, 300)), client(0x80, []byte("y"))...), 100)
	f.Add(append(client(0x89, []byte("p")), client(0x88, nil)...), 1)
	f.Add([]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}, 1)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		c := &from{Reader: bytes.NewReader(data)}
		buf := make([]byte, min(max(size, 1), 1<<16))
		got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{&framed{Conn: c}}, buf)
		if got > int64(len(data)) || c.wrote > len(data) {
			t.Errorf("%d bytes gave %d, and an answer of %d: %v", len(data), got, c.wrote, err)
		}
	})
}

func BenchmarkFramedRead(b *testing.B) {
	msg := client(0x82, make([]byte, 128<<10))
	r := bytes.NewReader(msg)
	f := &framed{Conn: &from{Reader: r}}
	buf := make([]byte, busySize)
	b.SetBytes(128 << 10)
	for b.Loop() {
		r.Reset(msg)
		for {
			if _, err := f.Read(buf); err != nil {
				break
			}
		}
	}
}
