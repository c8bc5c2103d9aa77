package console

import (
	"bytes"
	"net/http"
	"net/url"

	"selvedge/schema/hubapi"
)

// notice is how something that was asked for ended.
type notice struct {
	Bad         bool
	Title, Text string
}

// failed is for answers that are not the hub's own, as of a proxy before it.
var failed = notice{Bad: true, Title: "It did not work", Text: "What came back is no answer of the hub. Try again; if it stays so, look at what stands before the hub."}

// notice answers a form: as a part for the page that sent it or, without its script, as a page.
func (x *exchange) notice(w http.ResponseWriter, code int, n notice) {
	if x.r.Header.Get("Hx-Request") == "" {
		x.show(w, code, "done", &pageData{Title: n.Title}, n)
		return
	}
	var b bytes.Buffer
	if err := x.render.part(&b, "notice", n); err != nil {
		x.c.Log.Error("a notice cannot be shown", "id", x.id, "error", err)
	}
	x.write(w, code, b.Bytes())
}

func (x *exchange) form(w http.ResponseWriter) (url.Values, error) {
	x.r.Body = http.MaxBytesReader(w, x.r.Body, 8<<10)
	if err := x.r.ParseForm(); err != nil {
		return nil, &hubapi.Problem{Title: "Cannot be read", Status: http.StatusBadRequest, Reason: hubapi.ReasonInvalid, Detail: "the form could not be read; load the page anew and try again"}
	}
	return x.r.PostForm, nil
}

func restart(x *exchange, w http.ResponseWriter) error {
	form, err := x.form(w)
	if err != nil {
		return err
	}
	node, app, container := x.r.PathValue("node"), form.Get("app"), form.Get("container")
	if err := x.c.Ops.Restart(x.r.Context(), x.caller, node, hubapi.RestartRequest{App: app, Container: container}); err != nil {
		return err
	}
	what := app
	if container != "" && container != app {
		what += " / " + container
	}
	x.notice(w, http.StatusOK, notice{Title: "Restarted", Text: "App " + clip(120, what) + " on " + clip(80, node) + " was restarted."})
	return nil
}

func reject(x *exchange, w http.ResponseWriter) error {
	code := x.r.PathValue("code")
	if err := x.c.Ops.DropPending(x.r.Context(), x.caller, code); err != nil {
		return err
	}
	x.notice(w, http.StatusOK, notice{Title: "Rejected", Text: "The request " + clip(40, code) + " is forgotten. The machine may ask again with another token."})
	return nil
}
