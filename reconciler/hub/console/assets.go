package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"

	"selvedge/schema/hubapi"
)

//go:embed assets templates
var embedded embed.FS

// files are served below a hash of all of them, so that browsers may keep them for good.
type files struct {
	hash   string
	byName map[string][]byte
}

var mediaTypes = map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8"}

func loadAssets() (*files, error) {
	list, err := embedded.ReadDir("assets")
	if err != nil {
		return nil, err
	}
	f, sum := &files{byName: map[string][]byte{}}, sha256.New()
	for _, e := range list {
		b, err := embedded.ReadFile(path.Join("assets", e.Name()))
		if err != nil {
			return nil, err
		}
		f.byName[e.Name()] = b
		sum.Write([]byte(e.Name()))
		sum.Write(b)
	}
	f.hash = hex.EncodeToString(sum.Sum(nil)[:8])
	return f, nil
}

// path is where a file is served.
func (f *files) path(name string) string { return "/assets/" + f.hash + "/" + name }

func asset(x *exchange, w http.ResponseWriter) error {
	name := x.r.PathValue("file")
	b, ok := x.files.byName[name]
	if !ok || x.r.PathValue("hash") != x.files.hash {
		return &hubapi.Problem{Title: "Not found", Status: http.StatusNotFound, Reason: hubapi.ReasonNotFound, Detail: "the console was replaced by another version; load the page anew"}
	}
	give(w, name, b)
	return nil
}

func favicon(x *exchange, w http.ResponseWriter) error {
	give(w, "icon.svg", x.files.byName["icon.svg"])
	return nil
}

func give(w http.ResponseWriter, name string, b []byte) {
	w.Header().Set("Content-Type", mediaTypes[path.Ext(name)])
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Del("Vary")
	_, _ = w.Write(b) // the reader left
}
