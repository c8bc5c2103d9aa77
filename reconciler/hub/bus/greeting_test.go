package bus

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"testing"
	"testing/iotest"
)

func wsFrame(opcode byte, payload string) []byte {
	b := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

func TestGreeting(t *testing.T) {
	info := wsFrame(2, "INFO {}\r\n")
	for what, c := range map[string]struct {
		said []byte
		want bool
	}{
		"nothing":          {nil, false},
		"info":             {info, false},
		"pong":             {append(bytes.Clone(info), wsFrame(2, "PONG\r\n")...), true},
		"behind other":     {append(bytes.Clone(info), wsFrame(2, "+OK\r\nPONG\r\n")...), true},
		"a long frame":     {wsFrame(2, string(make([]byte, 200))+"PONG\r\n"), true},
		"a longer frame":   {wsFrame(2, string(make([]byte, 70000))+"PONG\r\n"), true},
		"in two frames":    {append(wsFrame(2, "PO"), wsFrame(0, "NG\r\n")...), true},
		"one between them": {append(append(wsFrame(2, "PO"), wsFrame(10, "x")...), wsFrame(0, "NG\r\n")...), true},
		"an empty frame":   {append(wsFrame(2, ""), wsFrame(2, "PONG\r\n")...), true},
		"an echo":          {append(bytes.Clone(info), wsFrame(10, "PONG\r\n")...), false},
		"a close":          {wsFrame(8, "\x03\xe8PONG\r\n"), false},
		"half an echo":     {append(wsFrame(10, "PONG"), wsFrame(2, "\r\n")...), false},
	} {
		if got := (&greeting{}).welcome(c.said); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
		g, got := &greeting{}, false
		for r := iotest.OneByteReader(bytes.NewReader(c.said)); ; {
			b := make([]byte, 9)
			n, err := r.Read(b)
			if err != nil {
				break
			}
			got = got || g.welcome(b[:n])
		}
		if got != c.want {
			t.Errorf("%s, byte by byte: %v", what, got)
		}
	}
}

func FuzzGreeting(f *testing.F) {
	f.Add(wsFrame(2, "PONG\r\n"), 3)
	f.Fuzz(func(t *testing.T, said []byte, at int) {
		at = min(max(at, 0), len(said))
		whole := (&greeting{}).welcome(said)
		g := &greeting{}
		if parts := g.welcome(said[:at]) || g.welcome(said[at:]); parts != whole {
			t.Errorf("whole %v, in parts %v", whole, parts)
		}
	})
}

// TestStrangersEcho: a server answers a stranger's ping with what was in it. That must not make a
// stranger one who is known, whose slot is free for the next.
func TestStrangersEcho(t *testing.T) {
	h := start(t, Config{})
	c, r := speak(t, h, goodUpgrade+"\r\n")
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	ping := append([]byte{0x89, 0x80 | byte(len(pong)), 0, 0, 0, 0}, pong...) // masked by zeroes
	if _, err := c.Write(ping); err != nil {
		t.Fatal(err)
	}
	for want := wsFrame(10, string(pong)); ; { // until the echo is there
		b, err := r.ReadByte()
		if err != nil {
			t.Fatal(err)
		}
		if b != want[0] {
			continue
		}
		rest := make([]byte, len(want)-1)
		if _, err := io.ReadFull(r, rest); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(rest, want[1:]) {
			break
		}
	}
	// the tunnel looks at what it passed on right after it: another echo shows that it did
	if _, err := c.Write(ping); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, len(pong)+2)); err != nil {
		t.Fatal(err)
	}
	h.tunnel.mu.Lock()
	defer h.tunnel.mu.Unlock()
	if h.tunnel.strangers != 1 {
		t.Errorf("%d strangers", h.tunnel.strangers)
	}
}
