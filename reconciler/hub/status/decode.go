package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
	"unique"

	"selvedge/schema/wire"
)

// Bounds besides those of wire.
const (
	maxName       = 256
	maxConditions = 32
	maxRejected   = 16
	maxInt        = 1 << 53 // what JSON's readers in browsers tell apart
	maxCPU        = 1 << 16
)

var (
	errOversized = errors.New("larger than allowed")
	errForeign   = errors.New("names another node")
	word         = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,62}$`)
)

// decodeStatus makes a status of what came on the subject of node. Nothing in it is larger,
// longer or stranger than people and programs expect.
func decodeStatus(node string, data []byte) (*wire.Status, error) {
	if len(data) > wire.MaxStatus {
		return nil, fmt.Errorf("%w: %d bytes", errOversized, len(data))
	}
	// before it is decoded: "{}" is 2 bytes here and 200 there
	if n := bytes.Count(data, []byte("{")); n > 3*wire.MaxInstance+1000 {
		return nil, fmt.Errorf("%w: %d objects", errOversized, n)
	}
	s := &wire.Status{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	if s.Node != node {
		return nil, fmt.Errorf("%w: %q", errForeign, text(s.Node, 64))
	}
	if s.Epoch == "" || len(s.Epoch) > 64 {
		return nil, errors.New("its epoch is empty or longer than 64 bytes")
	}
	if err := cleanStatus(s); err != nil {
		return nil, err
	}
	return s, nil
}

func cleanStatus(s *wire.Status) error {
	s.Node, s.Epoch, s.Why, s.Time = name(s.Node), text(s.Epoch, 64), text(s.Why, wire.MaxText), sane(s.Time)
	s.Agent.Version, s.Agent.Runtime, s.Agent.Started = name(s.Agent.Version), name(s.Agent.Runtime), sane(s.Agent.Started)
	s.Agent.Memory = natural(s.Agent.Memory)
	m := &s.Machine
	m.Hostname, m.OS, m.Kernel, m.Arch, m.Booted = name(m.Hostname), name(m.OS), name(m.Kernel), name(m.Arch), sane(m.Booted)
	m.CPUs, m.Memory = int(min(natural(int64(m.CPUs)), maxCPU)), natural(m.Memory)
	cleanState(&s.State)
	cleanUsage(s.Usage)
	s.LeftOut = int(min(natural(int64(s.LeftOut)), math.MaxInt32))
	s.Conditions = cleanConditions(s.Conditions)

	count := 0
	for i := range s.Apps {
		a := &s.Apps[i]
		a.Name = name(a.Name)
		if count += len(a.Containers); count > wire.MaxInstance || i >= wire.MaxInstance {
			return fmt.Errorf("%w: more than %d apps or containers", errOversized, wire.MaxInstance)
		}
		if a.Containers == nil {
			a.Containers = []wire.Instance{} // "null" is no array, and readers are promised one
		}
		for j := range a.Containers {
			c := &a.Containers[j]
			c.Name, c.ID, c.Image, c.State = name(c.Name), text(c.ID, 128), unique.Make(text(c.Image, 1024)).Value(), name(c.State)
			c.Problem, c.Since = text(c.Problem, wire.MaxText), sane(c.Since)
			c.Restarts, c.ExitCode = int(min(natural(int64(c.Restarts)), math.MaxInt32)), min(max(c.ExitCode, math.MinInt32), math.MaxInt32)
			e := &c.LastExit
			e.Code, e.At, e.Reason = min(max(e.Code, math.MinInt32), math.MaxInt32), sane(e.At), text(e.Reason, wire.MaxText)
			cleanUsage(c.Usage)
		}
	}
	return nil
}

func cleanState(s *wire.State) {
	for _, r := range []*wire.Ref{&s.Pulled, &s.Current, &s.LastGood} {
		r.Generation, r.Digest, r.Commit = natural(r.Generation), text(r.Digest, 128), name(r.Commit)
	}
	if s.LastGood == s.Current {
		s.LastGood = s.Current // one copy of its strings
	}
	if s.Pulled == s.Current {
		s.Pulled = s.Current
	}
	s.Phase, s.Problem, s.LinkError, s.Contact = name(s.Phase), text(s.Problem, wire.MaxText), text(s.LinkError, wire.MaxText), sane(s.Contact)
	if n := len(s.Rejected); n > maxRejected {
		s.Rejected = append([]wire.Rejected(nil), s.Rejected[n-maxRejected:]...)
	}
	for i := range s.Rejected {
		r := &s.Rejected[i]
		r.Generation, r.At, r.Reason = natural(r.Generation), sane(r.At), text(r.Reason, wire.MaxText)
	}
	if r := s.Refused; r != nil {
		r.Reason, r.Message, r.Since, r.Count = name(r.Reason), text(r.Message, wire.MaxText), sane(r.Since), int(natural(int64(r.Count)))
	}
	if h := s.Hold; h != nil {
		h.Reason, h.Since = text(h.Reason, wire.MaxText), sane(h.Since)
	}
}

// cleanConditions keeps one of each type, and none that only the hub can tell.
func cleanConditions(in []wire.Condition) []wire.Condition {
	out := in[:0:0]
	seen := map[string]bool{wire.ConditionBehind: true, wire.ConditionClockOff: true, wire.ConditionIdentity: true}
	for _, c := range in {
		if len(out) == maxConditions {
			break
		}
		if seen[c.Type] || !word.MatchString(c.Type) {
			continue
		}
		seen[c.Type] = true
		out = append(out, wire.Condition{Type: name(c.Type), Message: text(c.Message, wire.MaxText), Since: sane(c.Since)})
	}
	return out
}

func cleanUsage(u *wire.Usage) {
	if u == nil {
		return
	}
	u.CPU, u.Load = amount(u.CPU), amount(u.Load)
	for _, n := range []*int64{&u.Memory, &u.MemoryLimit, &u.Disk, &u.DiskLimit, &u.NetRx, &u.NetTx} {
		*n = natural(*n)
	}
	if t := u.Temperature; t != nil && (*t != *t || *t < -273.15 || *t > 2000) {
		u.Temperature = nil
	}
}

// decodeEvents is decodeStatus for events.
func decodeEvents(node string, data []byte) (*wire.Events, error) {
	if len(data) > wire.MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes", errOversized, len(data))
	}
	if n := bytes.Count(data, []byte("{")); n > 16*wire.MaxEvents {
		return nil, fmt.Errorf("%w: %d objects", errOversized, n)
	}
	e := &wire.Events{}
	if err := json.Unmarshal(data, e); err != nil {
		return nil, err
	}
	if e.Node != node {
		return nil, fmt.Errorf("%w: %q", errForeign, text(e.Node, 64))
	}
	if e.Epoch == "" || len(e.Epoch) > 64 {
		return nil, errors.New("its epoch is empty or longer than 64 bytes")
	}
	if len(e.Events) > wire.MaxEvents {
		return nil, fmt.Errorf("%w: %d events", errOversized, len(e.Events))
	}
	e.Epoch = text(e.Epoch, 64)
	for i := range e.Events {
		cleanEvent(&e.Events[i])
	}
	return e, nil
}

func cleanEvent(e *wire.Event) {
	e.Time, e.App, e.Container, e.Generation, e.Message = sane(e.Time), name(e.App), name(e.Container), natural(e.Generation), text(e.Message, wire.MaxText)
	if severities[e.Severity] == 0 {
		e.Severity = "warning"
	}
	if e.Severity, e.Reason = name(e.Severity), name(e.Reason); !word.MatchString(e.Reason) {
		e.Reason = "Other"
	}
}

// severities orders them.
var severities = map[string]int{"info": 1, "warning": 2, "error": 3}

// name returns a short text that many nodes share, once in memory.
func name(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(text(s, maxName)).Value()
}

// text returns s without what moves a cursor or turns the direction of writing, cut to most bytes.
func text(s string, most int) string {
	plain := len(s) <= most
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.Is(unicode.Cc, r), unicode.Is(unicode.Cf, r), r == '\u2028', r == '\u2029':
			return -1
		}
		return r // invalid bytes become U+FFFD
	}, s)
	if len(s) > most {
		s = s[:most]
		for s != "" {
			if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n > 1 {
				break
			}
			s = s[:len(s)-1]
		}
	}
	return strings.Clone(s)
}

// sane drops times that no clock shows: nodes without a clock start in 1970.
func sane(t time.Time) time.Time {
	if y := t.Year(); y < 1970 || y > 2200 {
		return time.Time{}
	}
	return t.UTC()
}

func natural(n int64) int64 { return min(max(n, 0), maxInt) }

func amount(f float64) float64 {
	if !(f > 0) { // NaN too
		return 0
	}
	return min(f, maxCPU)
}
