package logfile

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

// written is what the driver encodes.
type written struct {
	Log    string    `json:"log,omitempty"`
	Stream string    `json:"stream,omitempty"`
	Time   time.Time `json:"time"`
}

// entry is a line as the log driver writes it, without its end.
func entry(t testing.TB, text string, at time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(&written{text, "stdout", at}); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func TestJSONFile(t *testing.T) {
	at := time.Date(2026, 11, 24, 1, 2, 3, 456, time.UTC)
	whole := string(entry(t, "whole\n", at))
	for _, c := range []struct{ line, want string }{
		{whole, "whole\n"},
		{string(entry(t, "no end", at)), "no end\n"},
		{string(entry(t, "\x1b[2J<script>\"\\ \t\r\n", at)), "\x1b[2J<script>\"\\ \t\r\n"},
		{string(entry(t, `trap "time":"1" \" {"log":"`+"\n", at)), `trap "time":"1" \" {"log":"` + "\n"},
		{string(entry(t, "\xff\x00 binary \U0001F600\u2028\n", at)), "\ufffd\x00 binary \U0001F600\u2028\n"},
		{`{"log":"\ud83d\ude00 \ud83d \ude00 \u00e9\/\b\f","stream":"stdout","time":"2026-11-24T01:02:03Z"}`, "\U0001F600 \ufffd \ufffd é/\b\f\n"},
		{`{"stream":"stdout","log":"another order\n","time":"2026-11-24T01:02:03Z"}`, "another order\n"},
		{`{"log":"half a li` + whole, "whole\n"}, // a full disk
		{whole[:len(whole)-30] + whole, "whole\n"},
		{whole[:20], ""},
		{whole[:len(whole)-1], ""},
		{"", ""}, {"junk", ""}, {"{}", ""}, {`{"log":"`, ""}, {`{"log":"\`, ""}, {`{"log":"\u12"}`, ""}, {`{"log":1}`, ""}, {`{"log":"\x","time":""}`, ""},
		{`{"log":"","time":""}`, ""},
	} {
		if got := string(JSONFile([]byte("kept"), []byte(c.line), Options{})); got != "kept"+c.want {
			t.Errorf("%.100q: %.100q", c.line, got)
		}
	}
	if got := string(JSONFile(nil, []byte(whole), Options{Timestamps: true})); got != "2026-11-24T01:02:03.000000456Z whole\n" {
		t.Errorf("%q", got)
	}
	for _, c := range []struct {
		since time.Time
		want  string
	}{{at, "whole\n"}, {at.Add(1), ""}, {at.Add(-1), "whole\n"}} {
		if got := string(JSONFile(nil, []byte(whole), Options{Since: c.since})); got != c.want {
			t.Errorf("since %s: %q", c.since, got)
		}
	}
}

func FuzzJSONFile(f *testing.F) {
	f.Add("text\n", []byte(`{"log":"a\u0041\n","stream":"stderr","time":"2026-11-24T01:02:03Z"}`))
	f.Add("\xff\"\\ud800<>&\u2028", []byte(`{"log":"`))
	f.Fuzz(func(t *testing.T, text string, line []byte) {
		for _, o := range []Options{{}, {Timestamps: true, Since: time.Unix(1, 0)}} {
			JSONFile(nil, line, o) // whatever it is
		}
		line2 := entry(t, text, time.Unix(2, 0))
		var want written
		if err := json.Unmarshal(line2, &want); err != nil {
			t.Fatal(err)
		}
		if want.Log == "" {
			return
		}
		if got := string(JSONFile(nil, line2, Options{})); got != string(ended([]byte(want.Log))) {
			t.Errorf("%q, not %q", got, want.Log)
		}
	})
}
