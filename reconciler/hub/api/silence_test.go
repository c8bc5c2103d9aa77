package api

import (
	"testing"
	"time"

	"github.com/coder/websocket"

	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/wire"
)

// TestExecSilence ends the command of who told that they are there and does not any more, and
// of nobody else: who cannot tell stays, and so does who waits because the command takes no input.
func TestExecSilence(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	w.api.beat, w.api.silence = time.Millisecond, 4*time.Second // a busy machine says its next word in time
	node := w.Join(t, "mu-1")
	quiet, _, err := w.dial(t, "editor", "app=web&command=cat&stdin=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	stuck, _, err := w.dial(t, "editor", "app=web&command=stuck&stdin=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	go func() { // the last part waits until the test has ended
		part := make([]byte, 1+wire.MaxInput)
		for n := 0; n < 8<<20; n += wire.MaxInput {
			if n == wire.MaxAhead {
				told <- stuck.Write(t.Context(), websocket.MessageText, []byte("{}"))
			}
			if err := stuck.Write(t.Context(), websocket.MessageBinary, part); err != nil {
				return
			}
		}
	}()
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	for range 2 { // the time of two of them is more than enough for the others
		c, _, err := w.dial(t, "editor", "app=web&command=cat&stdin=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Write(t.Context(), websocket.MessageText, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		ended(t, node)
		if len(node.Ended) > 0 {
			t.Fatal("a command of who is there, or cannot tell, was ended")
		}
	}
	if err := quiet.Write(t.Context(), websocket.MessageText, []byte(`{"eof":true}`)); err != nil {
		t.Error(err)
	}
	if _, last := read(t, quiet); last.ExitCode == nil {
		t.Errorf("%+v", last)
	}
}
