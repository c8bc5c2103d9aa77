package validate

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue"
	cueerrors "cuelang.org/go/cue/errors"

	"selvedge/schema/fleet"
)

// finding is one of CUE's errors, taken apart.
type finding struct {
	path []string
	msg  string
	pos  []fleet.Position // in files of the repo's people
}

// report turns CUE's errors into problems in people's words.
func (u *unit) report(err error) {
	var all []finding
	for _, e := range cueerrors.Errors(err) {
		if f := u.take(e); !strings.Contains(f.msg, "no such file or directory") || !u.fs.refusedAny() { // that has been said better
			all = append(all, f)
		}
	}
	for len(all) > 0 {
		n := 1
		if disjunction.MatchString(all[0].msg) { // a heading, then an error an alternative
			for n < len(all) && len(all[n].path) >= len(all[0].path) && slices.Equal(all[n].path[:len(all[0].path)], all[0].path) {
				n++
			}
			u.tell(alternatives(all[:n]))
		} else {
			u.tell(all[0])
		}
		all = all[n:]
	}
}

func (u *unit) take(e cueerrors.Error) finding {
	format, args := e.Msg()
	f := finding{msg: fmt.Sprintf(format, args...)}
	for _, s := range e.Path() {
		if q, err := strconv.Unquote(s); err == nil {
			s = q
		}
		f.path = append(f.path, s)
	}
	if f.msg == "import failed" || f.msg == "@embed" || strings.HasPrefix(f.msg, "failed to ") || strings.HasPrefix(f.msg, "error in call to ") || f.msg == "" { // the reason is inside
		f.msg = strings.TrimPrefix(e.Error(), strings.Join(e.Path(), ".")+": ")
	}
	for _, p := range append(e.InputPositions(), e.Position()) {
		if q := u.position(p); !foreign(q.File) && !slices.Contains(f.pos, q) {
			f.pos = append(f.pos, q)
		}
	}
	return f
}

var (
	disjunction  = regexp.MustCompile(`^\d+ errors in empty disjunction:`)
	mismatched   = regexp.MustCompile(`(?s)^conflicting values (.+) and (.+) \(mismatched types (.+) and (.+)\)$`)
	conflicting  = regexp.MustCompile(`(?s)^conflicting values (.+) and (.+)$`)
	outOfBound   = regexp.MustCompile(`(?s)^invalid value (.+) \(out of bound (.+)\)$`)
	notSatisfied = regexp.MustCompile(`(?s)^invalid value (.+) \(does not satisfy (.+?)\)(?:: (.*))?$`)
	constraint   = regexp.MustCompile(`^(=~|!~|!=|[<>]=?|\*|\(|(string|number|int|float|bool|bytes|struct|strings)\b|[a-z]+\.[A-Z])|^\{\[?\.\.\.|^\[\.\.\.`)
	incomplete   = regexp.MustCompile(`(?s)^incomplete value (.+)$`)
	notFound     = regexp.MustCompile(`^reference (".+") not found$`)
	notFinite    = regexp.MustCompile(`illegal number start "\+?(-?\w+)"`)
	validName    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	undefined    = regexp.MustCompile(`^undefined field: (.+)$`)
)

// alternatives makes one finding of the errors of a disjunction, the first of which is its heading.
func alternatives(fs []finding) finding {
	head, rest := fs[0], fs[1:]
	var wants []string
	for _, f := range rest {
		m := conflicting.FindStringSubmatch(f.msg)
		if m == nil || mismatched.MatchString(f.msg) {
			continue
		}
		wants = append(wants, m[1])
		head.pos = append(head.pos, f.pos...)
	}
	for _, f := range rest {
		// A conflict with the default says nothing when another alternative tells more.
		if !conflicting.MatchString(f.msg) || mismatched.MatchString(f.msg) && len(wants) == 0 {
			return f
		}
	}
	for _, f := range rest {
		if mismatched.MatchString(f.msg) && len(wants) == 1 {
			return f
		}
	}
	if len(wants) > 0 {
		m := conflicting.FindStringSubmatch(rest[0].msg)
		for _, f := range rest {
			if x := conflicting.FindStringSubmatch(f.msg); x != nil && !mismatched.MatchString(f.msg) {
				m = x
			}
		}
		head.msg = fmt.Sprintf("%s is not allowed; write %s", short(m[2]), strings.Join(wants, " or "))
		return head
	}
	if len(rest) > 0 {
		return rest[0]
	}
	return head
}

func (u *unit) tell(f finding) {
	kind, name, rest := split(f.path)
	p := fleet.Problem{Kind: kind, Name: name}
	if len(f.pos) > 0 {
		p.Position = f.pos[0]
	} else if kind != "" {
		p.Position = u.placeOf(kind, name).Position
	}
	if p.File == "" {
		p.File = filePath(u.job.Dir)
	}
	msg := u.words(f)
	skip := 1
	if name != "" {
		skip = 2
	}
	switch {
	case strings.HasPrefix(msg, "unknown field"), strings.HasPrefix(msg, "missing field"),
		strings.Contains(msg, "is no valid name"), strings.Contains(msg, "of the alternatives"):
		// the field is in the message
		rest = strings.Join(f.path[min(len(f.path), skip):max(len(f.path)-1, min(len(f.path), skip))], ".")
		if name != "" && len(f.path) == 2 {
			p.Name = ""
		} else if len(f.path) == 1 {
			p.Kind = ""
		}
	}
	if rest != "" {
		msg = rest + ": " + msg
	}
	p.Message = msg
	u.add(p)
}

// words says CUE's message as a person would.
func (u *unit) words(f finding) string {
	last := ""
	if len(f.path) > 0 {
		last = f.path[len(f.path)-1]
	}
	switch {
	case last == "_exactlyOne": // how the schema counts alternatives
		return "more than one of the alternatives is given; keep one"
	case last == "_missing":
		return "none of the alternatives is given; set one of them"
	case f.msg == "field not allowed":
		return u.unknown(f.path)
	case f.msg == "field is required but not present":
		return fmt.Sprintf("missing field %q; set it", last)
	}
	if m := mismatched.FindStringSubmatch(f.msg); m != nil {
		value, got, want := m[2], m[4], m[3]
		switch {
		case constraint.MatchString(m[1]):
		case constraint.MatchString(m[2]):
			value, got, want = m[1], m[3], m[4]
		default: // two values of different types: the nearest is most likely the mistake
			return fmt.Sprintf("two values, %s and %s, of which one is %s and one %s; keep one", short(m[1]), short(m[2]), article(m[3]), article(m[4]))
		}
		return fmt.Sprintf("%s is %s, not %s; write %s", short(value), article(got), article(want), article(want))
	}
	if m := conflicting.FindStringSubmatch(f.msg); m != nil {
		also := ""
		if len(f.pos) > 1 {
			also = " (the other at " + f.pos[1].String() + ")"
		}
		return fmt.Sprintf("two values, %s and %s%s; keep one", short(m[1]), short(m[2]), also)
	}
	if m := outOfBound.FindStringSubmatch(f.msg); m != nil {
		if pattern, ok := strings.CutPrefix(m[2], "=~"); ok {
			return fmt.Sprintf("%s is not valid here; it must match %s", short(m[1]), pattern)
		}
		if pattern, ok := strings.CutPrefix(m[2], "!~"); ok {
			return fmt.Sprintf("%s is not valid here; it must not match %s", short(m[1]), pattern)
		}
		return fmt.Sprintf("%s is out of range; it must be %s", short(m[1]), m[2])
	}
	if m := notSatisfied.FindStringSubmatch(f.msg); m != nil {
		return unsatisfied(m[1], m[2], m[3])
	}
	if m := incomplete.FindStringSubmatch(f.msg); m != nil {
		return fmt.Sprintf("no value yet, only %s; set it", short(m[1]))
	}
	if m := notFound.FindStringSubmatch(f.msg); m != nil {
		return fmt.Sprintf("unknown name %s; declare it, or write it in quotes if it is text", m[1])
	}
	if m := undefined.FindStringSubmatch(f.msg); m != nil {
		return fmt.Sprintf("there is no field %q; check the reference", strings.Trim(m[1], `"`))
	}
	if m := notFinite.FindStringSubmatch(f.msg); m != nil {
		return m[1] + " is no number that a state can hold; write a finite one"
	}
	return oneLine(f.msg)
}

func unsatisfied(value, rule, detail string) string {
	switch {
	case strings.HasPrefix(rule, "struct.MaxFields"), strings.HasPrefix(rule, "list.MaxItems"), strings.HasPrefix(rule, "strings.MaxRunes"):
		return "too long: at most " + number(rule) + " are allowed; make it shorter"
	case strings.HasPrefix(rule, "list.MinItems"):
		return "too short: at least " + number(rule) + " must be given; add one"
	case strings.HasPrefix(rule, "matchN"):
		return "exactly one of the alternatives must be given (" + oneLine(detail) + "); keep one"
	}
	return fmt.Sprintf("%s does not satisfy %s; correct it", short(value), rule)
}

func number(rule string) string {
	_, n, _ := strings.Cut(rule, "(")
	return strings.TrimSuffix(n, ")")
}

func article(typ string) string {
	switch typ {
	case "string", "number", "bool", "struct", "list", "float", "bytes":
		return "a " + typ
	case "int":
		return "an integer"
	}
	return typ
}

// unknown names a field that the schema does not have, and those that it might have meant.
func (u *unit) unknown(path []string) string {
	if len(path) == 0 {
		return "unknown field; remove it"
	}
	name := path[len(path)-1]
	if len(path) > 2 && slices.Contains(entityKinds, path[0]) && !validName.MatchString(path[1]) {
		return fmt.Sprintf("%q is no valid name; use lower-case letters, digits and dashes, at most 63", path[1])
	}
	if n := len(path); n >= 4 { // a bad key of a map: CUE then blames all that is below it
		switch key := path[n-2]; path[n-3] {
		case "container", "port", "config", "model", "secret":
			if !validName.MatchString(key) {
				return fmt.Sprintf("%q is no valid name; use lower-case letters, digits and dashes, at most 63", key)
			}
		case "mount":
			if !strings.HasPrefix(key, "/") {
				return fmt.Sprintf("%q is no valid name here; write an absolute path", key)
			}
		}
	}
	var have []string
	at := u.value
	for _, s := range path[:len(path)-1] {
		next := at.LookupPath(cue.MakePath(cue.Str(s)))
		if !next.Exists() {
			if i, err := strconv.Atoi(s); err == nil {
				next = at.LookupPath(cue.MakePath(cue.Index(i)))
			}
		}
		at = next
	}
	if len(path) > 1 && !at.Exists() {
		return fmt.Sprintf("unknown field %q; remove it", name)
	}
	if it, err := u.siblings(at, path); err == nil {
		for it.Next() {
			if s := it.Selector(); s.LabelType() == cue.StringLabel {
				if n := s.Unquoted(); n != name && !slices.Contains(have, n) {
					have = append(have, n)
				}
			}
		}
	}
	best, dist := "", 4
	for _, h := range have {
		if d := distance(name, h); d < dist && d <= (len(name)+1)/2 {
			best, dist = h, d
		}
	}
	slices.Sort(have)
	switch {
	case len(path) == 2 && slices.Contains(entityKinds, path[0]):
		return fmt.Sprintf("%q is no valid name; use lower-case letters, digits and dashes, at most 63", name)
	case best != "":
		return fmt.Sprintf("unknown field %q; did you mean %q?", name, best)
	case len(have) == 0:
		return fmt.Sprintf("%q is no valid name here; see the schema", name)
	}
	return fmt.Sprintf("unknown field %q; there are %s", name, strings.Join(have, ", "))
}

// siblings lists what may stand beside a field. At the top that is what the schema
// declares; a value in error may not tell.
func (u *unit) siblings(at cue.Value, path []string) (*cue.Iterator, error) {
	if len(path) == 1 {
		if def := u.definition("repo"); def.Exists() {
			at = def
		}
	} else if len(path) > 2 && slices.Contains(entityKinds, path[0]) {
		def := u.definition(path[0])
		for _, s := range path[2 : len(path)-1] {
			next := def.LookupPath(cue.MakePath(cue.Str(s).Optional()))
			if !next.Exists() {
				next = def.LookupPath(cue.MakePath(cue.Str(s)))
			}
			if !next.Exists() {
				next = def.LookupPath(cue.MakePath(cue.AnyString))
			}
			def = next
		}
		if def.Exists() {
			at = def
		}
	}
	return at.Fields(cue.Optional(true))
}

// distance is Levenshtein's.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// short cuts a value to what helps.
func short(s string) string {
	s = oneLine(s)
	if r := []rune(s); len(r) > 80 {
		return string(r[:77]) + "…"
	}
	return s
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
