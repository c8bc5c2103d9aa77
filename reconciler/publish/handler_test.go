package publish_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"selvedge/reconciler/publish"
	"selvedge/schema/nodestate"
)

// errorCode returns the code of the distribution spec's error form.
func errorCode(t testing.TB, a answer) string {
	t.Helper()
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(a.body, &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Message == "" {
		t.Fatalf("%d: not the error form: %s", a.status, a.body)
	}
	return e.Errors[0].Code
}

func TestFaults(t *testing.T) {
	s := open(t, publish.Config{Prefix: "p"})
	put(t, s, artifact(t, "a", 1))
	if err := s.PutTrust(t.Context(), roots(t, 1)); err != nil {
		t.Fatal(err)
	}
	base := serve(t, s)
	none := "sha256:" + strings.Repeat("0", 64)
	for _, tc := range []struct {
		path   string
		status int
		code   string
	}{
		{"/v2/p/nodes/a/manifests/nope", 404, "MANIFEST_UNKNOWN"},
		{"/v2/p/nodes/a/manifests/.INVALID", 404, "MANIFEST_UNKNOWN"},
		{"/v2/p/nodes/a/manifests/" + strings.Repeat("x", 129), 404, "MANIFEST_UNKNOWN"},
		{"/v2/p/nodes/a/manifests/" + none, 404, "MANIFEST_UNKNOWN"},
		{"/v2/p/nodes/a/manifests/sha512:" + strings.Repeat("0", 128), 404, "MANIFEST_UNKNOWN"},
		{"/v2/p/nodes/a/manifests/sha256:xyz", 400, "DIGEST_INVALID"},
		{"/v2/p/nodes/a/manifests/sha256:" + strings.Repeat("A", 64), 400, "DIGEST_INVALID"},
		{"/v2/p/nodes/a/manifests/:", 400, "DIGEST_INVALID"},
		{"/v2/p/nodes/a/blobs/" + none, 404, "BLOB_UNKNOWN"},
		{"/v2/p/nodes/a/blobs/nope", 400, "DIGEST_INVALID"},
		{"/v2/p/nodes/a/blobs/", 400, "DIGEST_INVALID"},
		{"/v2/p/nodes/a/referrers/nope", 400, "DIGEST_INVALID"},
		{"/v2/p/nodes/b/manifests/desired", 404, "NAME_UNKNOWN"},
		{"/v2/p/nodes/b/blobs/" + none, 404, "NAME_UNKNOWN"},
		{"/v2/p/nodes/b/tags/list", 404, "NAME_UNKNOWN"},
		{"/v2/p/nodes/b/referrers/" + none, 404, "NAME_UNKNOWN"},
		{"/v2/nodes/a/manifests/desired", 404, "NAME_UNKNOWN"},
		{"/v2/p/manifests/desired", 404, "NAME_UNKNOWN"},
		{"/v2/p/nodes/a/x/manifests/desired", 404, "NAME_UNKNOWN"},
		{"/v2/p/nodes/A/manifests/desired", 400, "NAME_INVALID"},
		{"/v2/p/nodes/a-/manifests/desired", 400, "NAME_INVALID"},
		{"/v2/p/nodes//a/manifests/desired", 400, "NAME_INVALID"},
		{"/v2/p/nodes/../nodes/a/manifests/desired", 400, "NAME_INVALID"},
		{"/v2/p/nodes/%2e%2e/manifests/desired", 400, "NAME_INVALID"},
		{"/v2/p/nodes/a%00/manifests/desired", 400, "NAME_INVALID"},
		{"/v2/p/nodes/a%0d%0aX: y/manifests/desired", 400, "NAME_INVALID"},
		{"/v2//manifests/desired", 400, "NAME_INVALID"},
		{"/v2/" + strings.Repeat("a/", 200) + "manifests/desired", 400, "NAME_INVALID"},
		{"/v2/p/nodes/a/tags/other", 404, "UNSUPPORTED"},
		{"/v2/p/nodes/a/blobs/uploads/", 404, "UNSUPPORTED"},
		{"/v2/_catalog", 404, "UNSUPPORTED"},
		{"/v2/manifests/desired", 404, "UNSUPPORTED"},
		{"/v1/", 404, "UNSUPPORTED"},
		{"/", 404, "UNSUPPORTED"},
		{"/v2/p/nodes/a/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID"},
		{"/v2/p/nodes/a/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"},
		{"/v2/p/nodes/a/tags/list?n=99999999999999999999", 400, "PAGINATION_NUMBER_INVALID"},
	} {
		a := get(t, base+strings.ReplaceAll(tc.path, " ", "%20"))
		if a.status != tc.status || errorCode(t, a) != tc.code {
			t.Errorf("%s: %d %s, want %d %s", tc.path, a.status, a.body, tc.status, tc.code)
		}
		if h := do(t, "HEAD", base+strings.ReplaceAll(tc.path, " ", "%20")); h.status != tc.status || len(h.body) != 0 {
			t.Errorf("HEAD %s: %d", tc.path, h.status)
		}
	}
	for _, method := range []string{"PUT", "POST", "PATCH", "DELETE", "OPTIONS", "BREW"} {
		a := do(t, method, base+"/v2/p/nodes/a/manifests/desired")
		if a.status != 405 || errorCode(t, a) != "UNSUPPORTED" || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %s", method, a.status, a.body)
		}
	}
	if a := get(t, base+"/v2/"); a.status != 200 || a.header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Errorf("/v2/: %d", a.status)
	}
}

func TestBlobRanges(t *testing.T) {
	s := open(t, publish.Config{})
	a := artifact(t, "a", 1)
	put(t, s, a)
	u := unpack(t, a)
	blob := serve(t, s) + "/v2/nodes/a/blobs/" + u.LayerDigest
	n := len(u.Layer)
	for _, tc := range []struct {
		ranges string
		status int
		want   []byte
	}{
		{"bytes=0-9", 206, u.Layer[:10]},
		{"bytes=10-", 206, u.Layer[10:]},
		{"bytes=-5", 206, u.Layer[n-5:]},
		{fmt.Sprintf("bytes=%d-", n), 416, nil},
		{"bytes=0-999999", 206, u.Layer},
	} {
		got := get(t, blob, "Range", tc.ranges)
		if got.status != tc.status || tc.want != nil && string(got.body) != string(tc.want) {
			t.Errorf("%s: %d, %d bytes", tc.ranges, got.status, len(got.body))
		}
	}
	if got := get(t, blob, "If-None-Match", `"`+u.LayerDigest+`"`); got.status != 304 || len(got.body) != 0 {
		t.Error(got.status)
	}
	if got := do(t, "HEAD", blob); got.status != 200 || got.header.Get("Content-Length") != fmt.Sprint(n) || got.header.Get("Docker-Content-Digest") != u.LayerDigest {
		t.Errorf("%d %v", got.status, got.header)
	}
}

func TestConditional(t *testing.T) {
	s := open(t, publish.Config{})
	a := artifact(t, "a", 1)
	put(t, s, a)
	if err := s.PutTrust(t.Context(), roots(t, 1)); err != nil {
		t.Fatal(err)
	}
	base := serve(t, s)
	for _, path := range []string{"/v2/nodes/a/manifests/signed", "/v2/nodes/a/manifests/desired", "/v2/nodes/a/manifests/" + nodestate.Digest(a.Signed), "/v2/trust/manifests/latest"} {
		full := get(t, base+path)
		etag := full.header.Get("Etag")
		for _, inm := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
			got := get(t, base+path, "If-None-Match", inm)
			if got.status != 304 || len(got.body) != 0 || got.header.Get("Etag") != etag {
				t.Errorf("%s, %s: %d", path, inm, got.status)
			}
		}
		for _, inm := range []string{`"x"`, "", `"sha256:"`} {
			if got := get(t, base+path, "If-None-Match", inm); got.status != 200 || string(got.body) != string(full.body) {
				t.Errorf("%s, %s: %d", path, inm, got.status)
			}
		}
		// a wait without a condition, or for something else, does not wait
		if got := get(t, base+path, "Prefer", "wait=60"); got.status != 200 {
			t.Error(got.status)
		}
		if got := get(t, base+path, "Prefer", "wait=60", "If-None-Match", `"x"`); got.status != 200 {
			t.Error(got.status)
		}
	}
}

func TestReferrersAndTags(t *testing.T) {
	s := open(t, publish.Config{})
	a := artifact(t, "a", 1)
	put(t, s, a)
	base := serve(t, s) + "/v2/nodes/a"
	u := unpack(t, a)
	for filter, want := range map[string]int{"": 1, nodestate.MediaTypeBundle: 1, "application/other": 0} {
		path := base + "/referrers/" + u.ManifestDigest
		if filter != "" {
			path += "?artifactType=" + url.QueryEscape(filter)
		}
		got := get(t, path)
		var index struct {
			SchemaVersion int
			MediaType     string
			Manifests     []nodestate.Descriptor
		}
		if err := json.Unmarshal(got.body, &index); err != nil || got.status != 200 || index.SchemaVersion != 2 || len(index.Manifests) != want || index.Manifests == nil {
			t.Fatalf("filter %q: %d %s", filter, got.status, got.body)
		}
		if (filter != "") != (got.header.Get("OCI-Filters-Applied") == "artifactType") {
			t.Errorf("filter %q: header %q", filter, got.header.Get("OCI-Filters-Applied"))
		}
		if want == 1 {
			m := index.Manifests[0]
			if m.Digest != nodestate.Digest(a.Signed) || m.Size != int64(len(a.Signed)) || m.ArtifactType != nodestate.MediaTypeBundle || m.Data != nil {
				t.Errorf("%+v", m)
			}
		}
	}
	for query, want := range map[string]string{
		"": "desired signed", "?n=0": "", "?n=1": "desired", "?n=1&last=desired": "signed", "?last=desired": "signed", "?n=5": "desired signed", "?last=zzz": "",
	} {
		got := get(t, base+"/tags/list"+query)
		var list struct {
			Name string
			Tags []string
		}
		if err := json.Unmarshal(got.body, &list); err != nil || list.Tags == nil || list.Name != "nodes/a" || strings.Join(list.Tags, " ") != want {
			t.Errorf("%q: %s", query, got.body)
		}
		if link := got.header.Get("Link"); (query == "?n=1") != (link == `</v2/nodes/a/tags/list?n=1&last=desired>; rel="next"`) {
			t.Errorf("%q: link %q", query, link)
		}
	}
}

func TestLongPoll(t *testing.T) {
	s := open(t, publish.Config{MaxWaiters: 3})
	put(t, s, artifact(t, "a", 1), artifact(t, "b", 1))
	base := serve(t, s)
	url := base + "/v2/nodes/a/manifests/signed"
	etag := get(t, url).header.Get("Etag")

	// nothing changes: 304 after the wait
	got := get(t, url, "If-None-Match", etag, "Prefer", "respond-async, wait=1;x=y")
	if got.status != 304 || got.header.Get("Preference-Applied") != "wait=1" {
		t.Fatalf("%d %v", got.status, got.header)
	}
	if got := get(t, url, "If-None-Match", etag, "Prefer", "wait=none"); got.status != 304 || got.header.Get("Preference-Applied") != "" {
		t.Fatalf("%d %v", got.status, got.header)
	}

	// three wait, each learns of the change; the fourth is not kept
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			got := get(t, url, "If-None-Match", etag, "Prefer", "wait=3600")
			for got.status == 304 { // the one that counts them below had the place
				got = get(t, url, "If-None-Match", etag, "Prefer", "wait=3600")
			}
			if got.status != 200 || nodestate.Digest(got.body) != strings.Trim(got.header.Get("Etag"), `"`) || got.header.Get("Preference-Applied") != "wait=60" {
				t.Errorf("%d %v", got.status, got.header)
			}
		})
	}
	for full := false; !full; { // until they wait
		got := get(t, url, "If-None-Match", etag, "Prefer", "wait=1")
		full = got.status == 304 && got.header.Get("Preference-Applied") == ""
	}
	put(t, s, artifact(t, "b", 2)) // another node's wakes nobody
	put(t, s, artifact(t, "a", 2))
	wg.Wait()

	// removed while waited for
	etag = get(t, url).header.Get("Etag")
	done := make(chan int)
	go func() { done <- get(t, url, "If-None-Match", etag, "Prefer", "wait=60").status }()
	for stop := false; !stop; {
		select {
		case status := <-done:
			if status != 404 {
				t.Errorf("removed: %d", status)
			}
			stop = true
		case <-time.After(10 * time.Millisecond):
			if err := s.Remove(t.Context(), []string{"a"}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestCloseLetsWaitersGo(t *testing.T) {
	s := open(t, publish.Config{})
	put(t, s, artifact(t, "a", 1))
	url := serve(t, s) + "/v2/nodes/a/manifests/signed"
	etag := get(t, url).header.Get("Etag")
	done := make(chan int)
	go func() { done <- get(t, url, "If-None-Match", etag, "Prefer", "wait=60").status }()
	time.Sleep(50 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if status := <-done; status != 500 && status != 304 { // let go before the file was closed, or after
		t.Error(status)
	}
}

func FuzzHandler(f *testing.F) {
	s := open(f, publish.Config{Prefix: "p"})
	a := artifact(f, "a", 1)
	put(f, s, a)
	u := unpack(f, a)
	h := s.Handler()
	for _, path := range []string{"/v2/", "/v2/p/nodes/a/manifests/signed", "/v2/p/nodes/a/blobs/" + u.LayerDigest, "/v2/p/nodes/a/referrers/" + u.ManifestDigest,
		"/v2/p/nodes/a/tags/list", "/v2/p/trust/manifests/latest", "/v2/p/nodes/a.1/manifests/desired", "/v2/manifests/blobs/tags/list"} {
		f.Add(path, "n=1&last=x", `"x"`, "wait=0", "bytes=1-2")
	}
	f.Fuzz(func(t *testing.T, path, query, match, prefer, ranges string) {
		if strings.Contains(strings.ToLower(prefer), "wait") { // it would
			prefer = "wait=0"
		}
		r := &http.Request{Method: "GET", URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{
			"If-None-Match": {match}, "Prefer": {prefer}, "Range": {ranges}}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(t.Context()))
		switch w.Code {
		case 200:
			if d := w.Header().Get("Docker-Content-Digest"); d != "" && nodestate.Digest(w.Body.Bytes()) != d {
				t.Fatalf("%q: content is not %s", path, d)
			}
			if strings.Contains(path, "/nodes/") && !strings.HasPrefix(path, "/v2/p/nodes/a/") {
				t.Fatalf("%q was served", path)
			}
		case 206, 304, 400, 404, 416:
		default:
			t.Fatalf("%q: %d", path, w.Code)
		}
	})
}
