package enrol

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"selvedge/schema/hubapi"
)

var errSignature = errors.New("the signature is not by this key over this hub's URL: is the URL that was dialed one of the hub's own (--url)?")

// problem writes an error of RFC 9457.
func problem(w http.ResponseWriter, p hubapi.Problem) {
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	b, err := json.Marshal(p)
	if err != nil {
		b = []byte("{}")
	}
	h := w.Header()
	h.Set("Content-Type", hubapi.MediaTypeProblem)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	w.Write(append(b, '\n'))
}

func invalid(detail string) hubapi.Problem {
	return hubapi.Problem{Status: http.StatusBadRequest, Reason: hubapi.ReasonInvalid, Detail: detail}
}

func unavailable(w http.ResponseWriter, detail string) {
	w.Header().Set("Retry-After", "5")
	problem(w, hubapi.Problem{Status: http.StatusServiceUnavailable, Reason: hubapi.ReasonUnavailable, Detail: detail})
}

// answer writes an answer, for nobody else unless its Cache-Control is set already.
func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		unavailable(w, "the answer cannot be written")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(append(b, '\n'))
}

// bounded answers a source, or all, that asks too often.
func (e *Enrol) bounded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if wait := e.limits.take(e.c.Source(r)); wait > 0 {
			e.limited.Add(1)
			w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
			problem(w, hubapi.Problem{Status: http.StatusTooManyRequests, Reason: hubapi.ReasonBusy, Detail: "too many requests; ask again later"})
			return
		}
		next(w, r)
	}
}

// read takes a request's JSON of at most max bytes; unknown members are ignored.
func read(w http.ResponseWriter, r *http.Request, max int64, into any) bool {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, max))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		problem(w, hubapi.Problem{Status: http.StatusRequestEntityTooLarge, Reason: hubapi.ReasonInvalid, Detail: "the request is too large"})
		return false
	case err != nil:
		problem(w, invalid("the request cannot be read"))
		return false
	}
	if err := json.Unmarshal(b, into); err != nil {
		problem(w, invalid("the request is not the JSON that is expected here"))
		return false
	}
	return true
}
