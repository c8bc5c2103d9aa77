package console

import (
	"errors"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// funcs are what templates may call.
func funcs(f *files, now func() time.Time) template.FuncMap {
	return template.FuncMap{
		"asset":    f.path,
		"clean":    clean,
		"clip":     clip,
		"short":    short,
		"bytes":    size,
		"cores":    cores,
		"num":      number,
		"stamp":    stamp,
		"iso":      func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"ago":      func(t time.Time) string { return ago(now(), t) },
		"until":    func(t time.Time) string { return until(now(), t) },
		"gen":      generation,
		"mark":     mark,
		"place":    place,
		"pairs":    pairs,
		"percent":  percent,
		"add":      func(a, b int) int { return a + b },
		"sub":      func(a, b int) int { return a - b },
		"bar":      bar,
		"plural":   plural,
		"image":    image,
		"json":     func(s string) string { return strconv.Quote(s) },
		"key":      domID,
		"author":   author,
		"sentence": sentence,
		"ends":     func(s string) bool { return strings.HasSuffix(s, ".") || strings.HasSuffix(s, "…") },
		"failed":   func() notice { return failed },
		"of":       func(m map[hubapi.Readiness]int, r string) int { return m[hubapi.Readiness(r)] },
	}
}

// clean makes every character of a stranger's text one that can be seen and that changes
// nothing around it: no controls, and none that turn the direction of what follows.
func clean(s string) string {
	if strings.IndexFunc(s, odd) < 0 && utf8.ValidString(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r < 0x20:
			return 0x2400 + r // its picture
		case r == 0x7f:
			return 0x2421
		case odd(r):
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
}

func odd(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < 0x20, r >= 0x7f && r < 0xa0:
		return true
	case r == 0x61c, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f, r == 0xfeff, r >= 0xe0000 && r <= 0xe0fff:
		return true
	}
	return unicode.Is(unicode.Cs, r)
}

// clip is clean with an end.
func clip(n int, s string) string {
	if len(s) > 4*n { // no more characters than that are needed
		s = strings.ToValidUTF8(s[:4*n], "")
	}
	s = clean(s)
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// short is a commit's or a digest's start.
func short(hash string) string {
	hash = strings.TrimPrefix(hash, "sha256:")
	return clip(10, hash[:min(len(hash), 9)])
}

// image is an image's name and the start of its digest.
func image(ref string) string {
	name, digest, ok := strings.Cut(ref, "@")
	if !ok {
		return clip(200, ref)
	}
	return clip(200, name) + "@" + short(digest)
}

func size(n int64) string {
	f := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB", "GiB", "TiB"} {
		if math.Abs(f) < 1024 || unit == "TiB" {
			if unit == "B" || math.Abs(f) >= 99.95 {
				return fmt.Sprintf("%.0f %s", f, unit)
			}
			return fmt.Sprintf("%.1f %s", f, unit)
		}
		f /= 1024
	}
	return ""
}

func cores(f float64) string {
	switch {
	case f == 0:
		return "0"
	case f < 0.01:
		return "<0.01"
	case f == math.Trunc(f):
		return strconv.FormatFloat(f, 'f', 0, 64)
	case f < 10:
		return strconv.FormatFloat(f, 'f', 2, 64)
	}
	return strconv.FormatFloat(f, 'f', 1, 64)
}

// number groups digits by three.
func number(n any) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + " " + s[i:] // narrow and unbroken
	}
	return s
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// ago is coarse, so that it does not change with each look.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := now.Sub(t)
	switch {
	case d < 20*time.Second:
		return "just now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d/(20*time.Second))*20)
	}
	return span(d) + " ago"
}

func until(now, t time.Time) string {
	if d := t.Sub(now); d > 0 {
		return "in " + span(d)
	}
	return "now"
}

func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "1 min"
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return number(int(d.Hours()/24)) + " days"
}

func generation(r wire.Ref) string {
	if r.Generation == 0 {
		return "–"
	}
	return number(r.Generation)
}

// badge is a state with its tone: colours are of tones, words and shapes tell it without.
type badge struct{ Tone, Shape, Text string }

var shapes = map[string]string{"ok": "✓", "bad": "✕", "warn": "!", "idle": "○", "busy": "↻", "unknown": "?"}

// mark says how something is shown, by its word.
func mark(v any) badge {
	word := fmt.Sprint(v)
	tone := map[string]string{
		"Ready": "ok", "NotReady": "bad", "Unknown": "unknown", "Waiting": "idle",
		"running": "ok", "exited": "bad", "lost": "bad", "absent": "idle", "created": "busy", "paused": "warn",
		"done": "ok", "failed": "bad", "applying": "busy", "waiting": "idle", "unknown": "unknown",
		"info": "idle", "warning": "warn", "error": "bad",
		"healthy": "ok", "unhealthy": "bad", "connected": "ok", "offline": "idle",
	}[word]
	if tone == "" {
		tone = "idle"
	}
	text := word
	if word == "NotReady" {
		text = "Not ready"
	}
	return badge{tone, shapes[tone], clip(40, text)}
}

// sentence begins with a capital, as errors in Go do not.
func sentence(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}

// author is a commit's author without the address.
func author(s string) string {
	name, _, _ := strings.Cut(s, " <")
	return clip(60, name)
}

func place(path string) string {
	if path == "" {
		return "the platform"
	}
	return clip(200, strings.TrimPrefix(path, "folders/"))
}

// pairs are labels in order.
func pairs(m map[string]string) (out []string) {
	for k, v := range m {
		out = append(out, clip(120, k+"="+v))
	}
	slices.Sort(out)
	return out
}

func percent(part, whole int) int {
	if whole <= 0 {
		return 0
	}
	if part < whole { // not all until it is all
		return min(99, part*100/whole)
	}
	return 100
}

func plural(n int, one, more string) string {
	if n == 1 {
		return number(n) + " " + one
	}
	return number(n) + " " + more
}

// domID makes an element's id of a name.
func domID(parts ...string) string {
	var b strings.Builder
	for _, r := range strings.Join(parts, ".") {
		if r < 128 && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-') {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "_%x_", r)
		}
		if b.Len() > 200 {
			break
		}
	}
	return b.String()
}

// segment is a part of a bar of a thousand units.
type segment struct {
	Tone string
	X, W float64
}

// bar lays tones and counts out side by side; what is there is never too thin to be seen.
func bar(whole int, counts ...any) (out []segment, err error) {
	x := 0.0
	for i := 0; i+1 < len(counts); i += 2 {
		tone, _ := counts[i].(string)
		n, ok := counts[i+1].(int)
		if !ok {
			return nil, errors.New("bar: want tones and counts")
		}
		if n <= 0 || whole <= 0 {
			continue
		}
		w := max(8, float64(n)*1000/float64(whole))
		w = min(w, 1000-x)
		out = append(out, segment{tone, x, w})
		x += w
	}
	return out, nil
}

func asProblem(err error) *hubapi.Problem {
	if p, ok := errors.AsType[*hubapi.Problem](err); ok {
		return p
	}
	return &hubapi.Problem{Title: "Not signed in", Status: 500, Detail: "the hub could not look at it; try again"}
}

// problemsFirst orders what is wrong, the worst first.
func problemsFirst(list []roster.Problem) []roster.Problem {
	list = slices.Clone(list)
	rank := map[string]int{"error": 0, "warning": 1}
	slices.SortStableFunc(list, func(a, b roster.Problem) int {
		ra, oka := rank[a.Severity]
		rb, okb := rank[b.Severity]
		if !oka {
			ra = 2
		}
		if !okb {
			rb = 2
		}
		return ra - rb
	})
	return list
}
