package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"selvedge/schema/roster"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// oci checks that an error has the distribution spec's form.
func oci(t *testing.T, what string, a answered) {
	t.Helper()
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Code == "" || e.Errors[0].Message == "" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s: not the form of errors: %d %q", what, a.status, a.body)
	}
}

func TestStatesAreANodesOwn(t *testing.T) {
	w := newWorld(t)
	w.fleet.set("a--", &roster.Node{})
	for path, nodes := range map[string]string{
		"/v2/fleet/nodes/a/manifests/signed":              "a",
		"/v2/fleet/nodes/a/manifests/" + someDigest:       "a",
		"/v2/fleet/nodes/a/blobs/" + someDigest:           "a",
		"/v2/fleet/nodes/a/tags/list":                     "a",
		"/v2/fleet/nodes/a/referrers/" + someDigest:       "a",
		"/v2/fleet/nodes/b/manifests/signed":              "b",
		"/v2/fleet/nodes/b/tags/list":                     "b",
		"/v2/fleet/nodes/b/referrers/" + someDigest:       "b",
		"/v2/fleet/nodes/a.2/manifests/signed":            "a--",
		"/v2/fleet/trust/manifests/root":                  "a b a--",
		"/v2/fleet/trust/blobs/" + someDigest:             "a b a--",
		"/v2/fleet/nodes/manifests/signed":                "",
		"/v2/fleet/manifests/signed":                      "",
		"/v2/nodes/a/manifests/signed":                    "",
		"/v2/other/nodes/a/manifests/signed":              "",
		"/v2/fleet/nodes/a/manifests/manifests/signed":    "",
		"/v2/fleet/trust/trust/manifests/root":            "",
		"/v2/fleet/nodes/a/b/manifests/signed":            "",
		"/v2/fleet/nodes/a/blobs/latest":                  "",
		"/v2/fleet/nodes/a/blobs/uploads/":                "",
		"/v2/fleet/nodes/a/tags/other":                    "",
		"/v2/fleet/nodes/a/manifests/" + someDigest + "0": "",
		"/v2/fleet/nodes/a/manifests/":                    "",
		"/v2/_catalog":                                    "",
		"/v2/_catalog?n=1000":                             "",
		"/v2":                                             "",
		"/":                                               "",
	} {
		for _, node := range []string{"a", "b", "a--"} {
			got := w.get(node, path)
			asked := w.store.requests()
			want := false
			for n := range strings.SplitSeq(nodes, " ") {
				want = want || n == node
			}
			switch {
			case want && (got.status != 200 || got.body != path || len(asked) != 1):
				t.Errorf("%s may read %s: %d %s", node, path, got.status, got.body)
			case !want && (got.status != 404 || len(asked) != 0):
				t.Errorf("%s read %s: %d %s", node, path, got.status, got.body)
			case !want:
				oci(t, path, got)
			}
		}
		if got := w.get("", path); got.status != 401 || got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("nobody, %s: %d", path, got.status)
		}
	}
	if got := w.get("a", "/v2/"); got.status != 200 || got.header.Get("Docker-Distribution-API-Version") != "registry/2.0" {
		t.Errorf("%+v", got)
	}
	if got := w.get("unsure", "/v2/"); got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("somebody of whom nothing is known now: %d %v", got.status, got.header)
	}
	if got := w.get("", "/v2/"); got.status != 401 || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic realm=") {
		t.Errorf("%+v", got)
	}
	for _, method := range []string{"PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"} {
		if got := w.ask("a", method, "/v2/fleet/nodes/a/manifests/signed", nil); got.status != 405 || len(w.store.requests()) != 0 {
			t.Errorf("%s: %d", method, got.status)
		}
	}
}

// TestStoreThatIsAway: while all nodes ask in vain, the log tells it now and then.
func TestStoreThatIsAway(t *testing.T) {
	var log bytes.Buffer
	r, err := New(Config{States: away{}, Base: &url.URL{Scheme: "http", Host: "store"}, Prefix: func() string { return "fleet" },
		Node: func(*http.Request) (string, roster.Node, error) { return "a", roster.Node{}, nil }, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		w := httptest.NewRecorder()
		if r.ServeHTTP(w, httptest.NewRequest("GET", "/v2/fleet/nodes/a/manifests/signed", nil)); w.Code != http.StatusBadGateway {
			t.Fatal(w.Code)
		}
	}
	if n := strings.Count(log.String(), "does not answer"); n == 0 || n > 10 {
		t.Errorf("told %d times", n)
	}
}

// away is a store that nobody reaches.
type away struct{}

func (away) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("no route") }

// TestOthersStatesAreTold: who asks for what is another's is told, and all that is refused counted.
func TestOthersStatesAreTold(t *testing.T) {
	w := newWorld(t)
	w.get("a", "/v2/fleet/nodes/a/manifests/signed")
	w.get("a", "/v2/fleet/trust/manifests/root")
	w.get("a", "/v2/fleet/nodes/a/blobs/latest")
	if got := w.told(); len(got) != 0 {
		t.Errorf("told of what is its own: %q", got)
	}
	w.get("a", "/v2/fleet/nodes/b/manifests/signed")
	w.get("nobody", "/v2/fleet/nodes/b/manifests/signed")
	if got := w.told(); !slices.Equal(got, []string{"a fleet/nodes/b"}) {
		t.Errorf("told: %q", got)
	}
	w.get("a", "/v2/x/manifests/"+someDigest+"?ns=elsewhere.example")
	w.hub.Close() // all is counted then
	got := map[string]float64{}
	metrics := prometheus.NewPedanticRegistry()
	metrics.MustRegister(w.registry.Collectors()...)
	all, err := metrics.Gather()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	for _, m := range all[0].GetMetric() {
		got[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
	}
	if want := map[string]float64{"states ok": 2, "states name_unknown": 2, "states unauthorized": 1, "images name_unknown": 1}; !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// Spellings that something behind the hub might read as another path.
func TestPathTricks(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{
		"/v2/fleet/nodes/a/../b/manifests/signed",
		"/v2/fleet/nodes/a/%2e%2e/b/manifests/signed",
		"/v2/fleet/nodes/a/..%2fb/manifests/signed",
		"/v2/fleet/nodes/a%2f..%2fb/manifests/signed",
		"/v2/fleet/nodes/a%2F..%2Fb/manifests/signed",
		"/v2/fleet/nodes/b%2fmanifests%2fsigned/../../../a/manifests/signed",
		"/v2/fleet/nodes/a/manifests/..%2f..%2fb%2fmanifests%2fsigned",
		"/v2/fleet/nodes/a/manifests/../../b/manifests/signed",
		"/v2/fleet/nodes/a/./manifests/signed",
		"/v2/fleet/nodes/a//manifests/signed",
		"/v2/fleet//nodes/a/manifests/signed",
		"/v2//fleet/nodes/a/manifests/signed",
		"//v2/fleet/nodes/a/manifests/signed",
		"/v2/fleet/nodes/A/manifests/signed",
		"/V2/fleet/nodes/a/manifests/signed",
		"/v2/FLEET/nodes/a/manifests/signed",
		"/v2/fleet/nodes/a/Manifests/signed",
		"/v2/fleet/nodes/a/manifests/signed/",
		"/v2/fleet/nodes/%61/manifests/signed",
		"/v2/fleet/nodes/a/manifests/signed%00",
		"/v2/fleet/nodes/a/manifests/sign%20ed",
		"/v2/fleet/nodes/a;b/manifests/signed",
		`/v2/fleet/nodes/a\..\b/manifests/signed`,
		"/v2/fleet/nodes/a/manifests/signed%3Fx=y",
		"/v2/fleet/nodes/a/blobs/sha256%3A" + someDigest[7:],
		"/v2/fleet/nodes/a/blobs/sha256:../../../b",
		"/v2/fleet/nodes/a/manifests/" + strings.Repeat("x", 200),
		"/v2/" + strings.Repeat("x", 300) + "/manifests/signed",
	} {
		got := w.get("a", path)
		if asked := w.store.requests(); got.status != 404 && got.status != 400 || len(asked) != 0 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	if got := w.get("a", "/v2/fleet/nodes/a/manifests/signed"); got.status != 200 {
		t.Error("the control:", got.status)
	}
}

func TestStatesPassWhatMatters(t *testing.T) {
	w := newWorld(t)
	w.store.serve = func(rw http.ResponseWriter, r *http.Request) {
		for k, v := range map[string]string{"Etag": `"d"`, "Docker-Content-Digest": "d", "Preference-Applied": "wait=1", "Content-Range": "bytes 0-1/9", "Set-Cookie": "x", "Server": "y"} {
			rw.Header().Set(k, v)
		}
		rw.WriteHeader(http.StatusPartialContent)
		io.WriteString(rw, "ab")
	}
	got := w.ask("a", "GET", "/v2/fleet/nodes/a/manifests/signed?n=3&last=x&artifactType=t&secret=1", http.Header{
		"If-None-Match": {`"d"`, `"e"`}, "Prefer": {"wait=1"}, "Range": {"bytes=0-1"}, "Accept": {"a/b"}, "Cookie": {"c"}, "X-Forwarded-For": {"1.2.3.4"}})
	if got.status != 206 || got.body != "ab" || got.header.Get("Etag") != `"d"` || got.header.Get("Preference-Applied") != "wait=1" || got.header.Get("Content-Range") == "" ||
		got.header.Get("Docker-Content-Digest") != "d" || got.header.Get("Set-Cookie") != "" || got.header.Get("Server") != "" {
		t.Errorf("%+v", got)
	}
	asked := w.store.requests()[0]
	if h := asked.Header; len(h["If-None-Match"]) != 2 || h.Get("Prefer") != "wait=1" || h.Get("Range") != "bytes=0-1" || h.Get("Accept") != "a/b" ||
		h.Get("Authorization") != "" || h.Get("Cookie") != "" || h.Get("X-Forwarded-For") != "" {
		t.Errorf("%v", h)
	}
	if asked.URL.RawQuery != "artifactType=t&last=x&n=3" {
		t.Error(asked.URL.RawQuery)
	}
	for _, status := range []int{401, 403, 302} {
		w.store.serve = func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Location", "http://elsewhere/")
			rw.WriteHeader(status)
		}
		if got := w.get("a", "/v2/fleet/nodes/a/manifests/signed"); got.status != 502 || got.header.Get("Location") != "" {
			t.Errorf("%d of the store is the node's %d", status, got.status)
		}
	}
	w.store.serve = func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(304) }
	if got := w.get("a", "/v2/fleet/nodes/a/manifests/signed"); got.status != 304 || got.body != "" {
		t.Errorf("%+v", got)
	}
	w.store.serve = func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "100")
		io.WriteString(rw, "half")
		rw.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	q, err := http.NewRequest("GET", w.hub.URL+"/v2/fleet/nodes/a/manifests/signed", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer a")
	res, err := http.DefaultClient.Do(q)
	if err == nil {
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("half an answer looks whole: %q", b)
		}
	}
}

// A node that is removed while it waits for a change does not get the change.
func TestRemovedWhileWaiting(t *testing.T) {
	for _, removed := range []bool{false, true} {
		w := newWorld(t)
		waiting, change := make(chan struct{}), make(chan struct{})
		w.store.serve = func(rw http.ResponseWriter, _ *http.Request) {
			close(waiting)
			<-change
			time.Sleep(2 * waited)
			io.WriteString(rw, "state")
		}
		got := make(chan answered, 1)
		go func() { got <- w.get("a", "/v2/fleet/nodes/a/manifests/signed") }()
		<-waiting
		if removed {
			w.fleet.set("a", nil)
		}
		close(change)
		if a := <-got; removed && (a.status != 401 || strings.Contains(a.body, "state")) || !removed && a.body != "state" {
			t.Errorf("removed %v: %d %s", removed, a.status, a.body)
		}
	}
}

func TestLeavingEndsTheWaitBehind(t *testing.T) {
	w := newWorld(t)
	waiting, ended := make(chan struct{}), make(chan struct{})
	w.store.serve = func(_ http.ResponseWriter, r *http.Request) {
		close(waiting)
		<-r.Context().Done()
		close(ended)
	}
	ctx, cancel := context.WithCancel(t.Context())
	q, err := http.NewRequestWithContext(ctx, "GET", w.hub.URL+"/v2/fleet/nodes/a/manifests/signed", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer a")
	go func() { <-waiting; cancel() }()
	if res, err := http.DefaultClient.Do(q); err == nil {
		res.Body.Close()
		t.Error("an answer")
	}
	<-ended
}

// No node takes all of the hub.
func TestRequestsOfANodeAreBounded(t *testing.T) {
	w := newWorld(t)
	waiting, change := make(chan struct{}, 2*maxRequests), make(chan struct{})
	w.store.serve = func(_ http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/a/") {
			waiting <- struct{}{}
			<-change
		}
	}
	done := make(chan int, maxRequests)
	for range maxRequests {
		go func() { done <- w.get("a", "/v2/fleet/nodes/a/manifests/signed").status }()
	}
	for range maxRequests {
		<-waiting
	}
	if got := w.get("a", "/v2/fleet/trust/manifests/root"); got.status != 429 || got.header.Get("Retry-After") == "" {
		t.Errorf("%+v", got)
	}
	if got := w.get("b", "/v2/fleet/nodes/b/manifests/signed"); got.status != 200 {
		t.Errorf("another node suffers: %d", got.status)
	}
	close(change)
	for range maxRequests {
		if status := <-done; status != 200 {
			t.Error(status)
		}
	}
}

// BenchmarkHeldWait tells the memory of one held wait, client and store included: the
// difference to a request that goes straight to the store is the hub's.
func BenchmarkHeldWait(b *testing.B) {
	w := newWorld(b)
	const n = 500
	waiting, change := make(chan struct{}, n), make(chan struct{})
	w.store.serve = func(_ http.ResponseWriter, r *http.Request) {
		waiting <- struct{}{}
		select {
		case <-change:
		case <-r.Context().Done():
		}
	}
	direct := httptest.NewServer(w.store)
	defer direct.Close()
	measure := func(url string) float64 {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range n {
			q, err := http.NewRequestWithContext(ctx, "GET", url+"/v2/fleet/nodes/a/manifests/signed", nil)
			if err != nil {
				b.Fatal(err)
			}
			name := "a"
			if i >= maxRequests {
				name = "n" + strings.Repeat("x", i%60) + string(rune('a'+i/60))
				w.fleet.set(name, &roster.Node{})
				q.URL.Path = "/v2/fleet/nodes/" + name + "/manifests/signed"
			}
			q.Header.Set("Authorization", "Bearer "+name)
			go func() {
				if res, err := http.DefaultTransport.RoundTrip(q); err == nil {
					res.Body.Close()
				}
			}()
		}
		for range n {
			<-waiting
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		return float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse) / n
	}
	for b.Loop() {
		straight := measure(direct.URL)
		b.ReportMetric(measure(w.hub.URL)-straight, "B/wait")
	}
	close(change)
}
