package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strconv"
	"strings"

	"selvedge/schema/hubapi"
)

//go:embed assets templates
var embedded embed.FS

// files are served below a hash of all of them, so that browsers may keep them for good.
type files struct {
	hash   string
	byName map[string][]byte
	packed map[string][]byte // with gzip, but for those that gain nothing
}

var mediaTypes = map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8"}

func loadAssets() (*files, error) {
	list, err := embedded.ReadDir("assets")
	if err != nil {
		return nil, err
	}
	f, sum := &files{byName: map[string][]byte{}, packed: map[string][]byte{}}, sha256.New()
	for _, e := range list {
		b, err := embedded.ReadFile(path.Join("assets", e.Name()))
		if err != nil {
			return nil, err
		}
		f.byName[e.Name()] = b
		if small := packed(b, gzip.BestCompression); len(small) < len(b) {
			f.packed[e.Name()] = small
		}
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
	x.give(w, name, b, "public, max-age=31536000, immutable")
	return nil
}

func favicon(x *exchange, w http.ResponseWriter) error {
	x.give(w, "icon.svg", x.files.byName["icon.svg"], "public, max-age=3600") // its address tells no version
	return nil
}

func (x *exchange) give(w http.ResponseWriter, name string, b []byte, keep string) {
	h := w.Header()
	h.Set("Content-Type", mediaTypes[path.Ext(name)])
	h.Set("Cache-Control", keep)
	h.Set("Vary", "Accept-Encoding")
	if small, ok := x.files.packed[name]; ok && packs(x.r) {
		h.Set("Content-Encoding", "gzip")
		b = small
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the reader left
}

// packs reports whether the reader takes gzip.
func packs(r *http.Request) bool {
	for _, part := range strings.Split(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, quality, _ := strings.Cut(part, ";")
		if strings.TrimSpace(name) != "gzip" {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(quality), "q="), 64)
		return err != nil || q > 0
	}
	return false
}

func packed(b []byte, level int) []byte {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, level)
	if err != nil {
		return b // of a level that there is not
	}
	_, _ = z.Write(b) // memory takes it
	_ = z.Close()
	return out.Bytes()
}
