package hub

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
)

// TestTrustFollowsNoRedirect: the credentials of the registry of states are for it alone.
func TestTrustFollowsNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("asked with %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	asked := false
	states := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("Authorization") != ""
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}))
	defer states.Close()
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("hub:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base, err := url.Parse(states.URL)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := trustFrom(&authorized{http.DefaultTransport, file}, base, func() string { return "fleet" })(t.Context())
	if err == nil || len(docs) > 0 || !asked {
		t.Error(docs, err, asked)
	}
}
