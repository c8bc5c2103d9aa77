package serve

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSource(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1:1": "192.0.2.1/32", "[::ffff:192.0.2.1]:1": "192.0.2.1/32", "[2001:db8:0:1:2::3]:1": "2001:db8:0:1::/64", "[fe80::1%lo]:1": "fe80::/64", "[::1]:1": "::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", text)
		if err != nil {
			t.Fatal(err)
		}
		if got := sourceOf(a).String(); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if got := sourceOf(&net.UnixAddr{Name: "x"}); got.IsValid() {
		t.Error(got)
	}
}

// A peer that takes nothing is cut off, one that takes a little now and then is not.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		c := &conn{Conn: here, sources: &sources{}}
		go func() {
			b := make([]byte, 1)
			for range 5 {
				time.Sleep(stallTime - time.Second)
				there.Read(b)
			}
		}()
		began := time.Now()
		for range 5 {
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(began); d < 4*stallTime {
			t.Error(d)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		// a deadline from outside counts, sooner or later
		for _, d := range []time.Duration{time.Second, 20 * stallTime} {
			if err := c.SetDeadline(time.Now().Add(d)); err != nil {
				t.Fatal(err)
			}
			began = time.Now()
			if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != d {
				t.Error(err, time.Since(began))
			}
		}
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != stallTime {
			t.Error(err, time.Since(began))
		}
		c.Close()
	})
}

// deadlines notes what a handler sets.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.set = append(d.set, t); return nil }

func TestBodyHasADeadlineUntilItIsRead(t *testing.T) {
	s := &Server{}
	for body, want := range map[string]int{"": 0, "x": 2} {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		s.handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			b := make([]byte, 10)
			for {
				if _, err := r.Body.Read(b); err != nil {
					return
				}
			}
		})).ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(body)))
		if len(w.set) != want || want == 2 && (w.set[0].IsZero() || !w.set[1].IsZero()) {
			t.Errorf("%q: %v", body, w.set)
		}
	}
}
