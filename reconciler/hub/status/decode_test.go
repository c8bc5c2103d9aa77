package status

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

func TestDropped(t *testing.T) {
	many := good("gw-1", 1, 7, start)
	many.Apps[0].Containers = make([]wire.Instance, wire.MaxInstance+1)
	other := good("gw-2", 1, 7, start)
	mute := good("gw-1", 1, 7, start)
	mute.Epoch = ""
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, c := range map[string]struct{ data, reason string }{
		"nothing":             {"", "malformed"},
		"half":                {`{"node":"gw-1","epoch":`, "malformed"},
		"no object":           {`[1,2]`, "malformed"},
		"number too large":    {`{"node":"gw-1","epoch":"e","usage":{"cpu":1e999}}`, "malformed"},
		"text for a number":   {`{"node":"gw-1","epoch":"e","seq":"1"}`, "malformed"},
		"a time of no form":   {`{"node":"gw-1","epoch":"e","time":"yesterday"}`, "malformed"},
		"deep":                {strings.Repeat(`{"machine":`, 500) + "1" + strings.Repeat("}", 500), "foreign"},
		"no epoch":            {text(mute), "malformed"},
		"another's name":      {text(other), "foreign"},
		"no name":             {`{"epoch":"e"}`, "foreign"},
		"too many containers": {text(many), "oversized"},
		"a bomb of objects":   {`{"node":"gw-1","epoch":"e","apps":[` + strings.Repeat(`{},`, 100000) + `{}]}`, "oversized"},
		"too long":            {`{"node":"gw-1","epoch":"` + strings.Repeat("x", wire.MaxStatus) + `"}`, "oversized"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.want(map[string]roster.Node{"gw-1": wanted(7), "gw-2": wanted(7)})
			for range 5 {
				w.Report("gw-1", []byte(c.data))
			}
			if got := value(t, w, "selvedge_fleet_reports_dropped_total", c.reason); got != 5 {
				t.Errorf("%v counted", got)
			}
			if w.status("gw-1") != "Unknown" || w.status("gw-2") != "Unknown" || w.reasons("gw-1") != "ReportRefused" || w.reasons("gw-2") != "" {
				t.Error(w.status("gw-1"), w.status("gw-2"), w.reasons("gw-1"), w.reasons("gw-2"))
			}
			w.report(good("gw-1", 9, 7, w.now)) // and it works when it behaves
			if w.status("gw-1") != "Ready" {
				t.Error("then:", w.status("gw-1"))
			}
		})
	}
}

func TestCleaned(t *testing.T) {
	s := good("gw-1", 1, 7, start)
	s.Why = "\x1b[2Jred\x00\u202eevil\n" + strings.Repeat("ü", wire.MaxText)
	s.Time = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	s.Machine.CPUs, s.Usage.Memory, s.Usage.CPU = -4, -1, 1e300
	s.Apps[0].Containers[0].Restarts = math.MaxInt
	s.Apps[0].Containers[0].LastExit = wire.LastExit{Code: math.MaxInt, At: s.Time, Reason: "\x1b[31m" + strings.Repeat("x", 2*wire.MaxText)}
	s.State.Rejected = make([]wire.Rejected, 100)
	s.Conditions = []wire.Condition{{Type: "Behind"}, {Type: "no word"}, {Type: "DiskPressure"}, {Type: "DiskPressure"}}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	d, err := decodeStatus("gw-1", b)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(d.Why, "[2Jredevil ") || len(d.Why) > wire.MaxText || !utf8.ValidString(d.Why) {
		t.Errorf("why is %.40q", d.Why)
	}
	if !d.Time.IsZero() || d.Machine.CPUs != 0 || d.Usage.Memory != 0 || d.Usage.CPU > maxCPU || d.Apps[0].Containers[0].Restarts != math.MaxInt32 || len(d.State.Rejected) != maxRejected || len(d.Conditions) != 1 {
		t.Errorf("%+v", d)
	}
	if e := d.Apps[0].Containers[0].LastExit; e.Code != math.MaxInt32 || !e.At.IsZero() || !strings.HasPrefix(e.Reason, "[31mxx") || len(e.Reason) > wire.MaxText {
		t.Errorf("last exit %d at %v, %d bytes: %.20q", e.Code, e.At, len(e.Reason), e.Reason)
	}
}

func checkTexts(t *testing.T, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal("what was decoded cannot be told on:", err)
	}
	var back any
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if len(v) > wire.MaxText || !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl) {
				t.Fatalf("a text: %.60q", v)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(back)
}

func FuzzDecodeStatus(f *testing.F) {
	f.Add([]byte(`{"node":"gw-1","epoch":"e","seq":1,"time":"2026-11-24T12:00:00Z","state":{"pulled":{"generation":7,"digest":"d"},"rejected":[{"generation":8}],"hold":{"reason":"r"}},"conditions":[{"type":"Refused"}],"well":true}`))
	f.Add([]byte(`{"node":"gw-1","epoch":"e","apps":[{"containers":[{"usage":{"cpu":-1}}]}],"usage":{"temperature":1e300},"why":"\u001b"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeStatus("gw-1", data)
		if err != nil {
			return
		}
		if s.Node != "gw-1" || s.Epoch == "" {
			t.Fatalf("%+v", s)
		}
		checkTexts(t, s)
		judge(facts{want: wanted(1), report: s, deadline: start.Add(1)}, start)
	})
}

func FuzzDecodeEvents(f *testing.F) {
	f.Add([]byte(`{"node":"gw-1","epoch":"e","events":[{"seq":1,"severity":"loud","reason":"a b","message":"\u0007"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decodeEvents("gw-1", data)
		if err != nil {
			return
		}
		for _, x := range e.Events {
			if severities[x.Severity] == 0 || !word.MatchString(x.Reason) {
				t.Fatalf("%+v", x)
			}
		}
		checkTexts(t, e)
	})
}

func FuzzDecodeFile(f *testing.F) {
	var h history
	h.add(start, good("gw-1", 1, 7, start))
	f.Add(h.encode(true)) // small ones, of which more are tried
	f.Add([]byte("\x01\x00\x02\x02"))
	f.Add([]byte("\x90\xbf\x05\x04gw-1\x02"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := decodeHistory(data); err == nil {
			h.samples(h.node, time.Time{})
			h.add(start, good("gw-1", 1, 7, start))
		}
		decodeAlive(data)
		_, _ = place(string(data), "")
	})
}
