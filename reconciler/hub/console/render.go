package console

import (
	"bytes"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"time"

	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
)

type html = template.HTML

// renderer holds the parsed templates.
type renderer struct {
	t *template.Template
}

func newRenderer(f *files, now func() time.Time) (*renderer, error) {
	t, err := template.New("").Funcs(funcs(f, now)).ParseFS(embedded, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("templates of the console: %w", err)
	}
	return &renderer{t}, nil
}

func (r *renderer) part(w io.Writer, name string, data any) error {
	return r.t.ExecuteTemplate(w, name, data)
}

// pageData is what is around every page.
type pageData struct {
	Title   string
	Nav     string // of the entry that is marked
	Bare    bool   // without navigation
	Reload  bool   // after Refresh seconds
	Refresh int
	Who     hubapi.Whoami
	Pending bool // whether nodes that wait are theirs to see
	Body    html
}

// dress fills in who is signed in.
func (x *exchange) dress(d *pageData) {
	d.Who = x.who
	d.Pending = x.mayJoin()
	d.Bare = d.Bare || d.Who.Subject == ""
}

// view is a page: a frame that stays, and parts that are shown again when they change.
type view struct {
	title string
	nav   string
	frame string // template; it places parts by their names
	data  any    // of the frame, under Data
	parts []part
	watch ops.Query     // what makes the parts worth a look
	every time.Duration // and how often to look without that; 0 means 10s
}

// part is rendered by the template of its name, and replaced in place.
type part struct {
	name string // of the template; the last component is its place in the frame
	data any
}

type pageFunc func(x *exchange) (*view, error)

// frameData is what a frame's template gets.
type frameData struct {
	Data  any
	Parts map[string]html
	Live  string // path of the stream
}

func livePath(path string) string { return "/live" + path }

// slot wraps a part, so that the stream finds it.
func slot(name string, body html) html {
	return html(fmt.Sprintf(`<div id="part-%[1]s" class="part" sse-swap="%[1]s" hx-swap="morph:innerHTML">%[2]s</div>`, name, body)) // names are ours
}

// whole shows a page.
func (x *exchange) whole(w http.ResponseWriter, page pageFunc) error {
	v, err := page(x)
	if err != nil {
		return err
	}
	f := frameData{Data: v.data, Parts: map[string]html{}, Live: livePath(x.r.URL.RequestURI())}
	var b bytes.Buffer
	for _, p := range v.parts {
		b.Reset()
		if err := x.render.part(&b, v.frame+"."+p.name, p.data); err != nil {
			return err
		}
		f.Parts[p.name] = slot(p.name, html(b.String())) // of html/template
	}
	b.Reset()
	if err := x.render.part(&b, v.frame, f); err != nil {
		return err
	}
	d := &pageData{Title: v.title, Nav: v.nav, Body: html(b.String())} // of html/template
	x.dress(d)
	var out bytes.Buffer
	out.Grow(len(d.Body) + 8<<10)
	if err := x.render.part(&out, "page", d); err != nil {
		return err
	}
	x.write(w, http.StatusOK, out.Bytes())
	return nil
}
