package show

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"plain äöü 日本 🙂":      "plain äöü 日本 🙂",
		"a\x1b[2J\x07\r\n\tb": `a\x1b[2J\x07\x0d\n\tb`,
		"\xff\xfe":            `\xff\xfe`,
		"\u009b31m":           `\u009b31m`,
		"a\u202ecod.exe":      `a\u202ecod.exe`,
		"\u2028\U000e0041":    `\u2028\U000e0041`,
		"del\x7f":             `del\x7f`,
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
	if got := Short("äöüß", 3); got != "äö…" {
		t.Errorf("Short: %q", got)
	}
}

func TestLines(t *testing.T) {
	if got := Lines("one\r\n\x1b[2Jtwo\n"); got != "one\n\\x1b[2Jtwo\n" {
		t.Errorf("%q", got)
	}
}

func TestFilter(t *testing.T) {
	for in, want := range map[string]string{
		"plain äöü 🙂\tx\n":                        "plain äöü 🙂\tx\n",
		"\x1b[31mred\x1b[0m\x1b[1;38;5;9mx":       "\x1b[31mred\x1b[0m\x1b[1;38;5;9mx",
		"a\x1b[2Jb\x1b[10;10Hc\x1b[?1049hd":       "abcd",
		"a\x1b]0;title\x07b\x1b]52;c;eA==\x1b\\c": "abc",
		"a\x1bP$q\"p\x1b\\b\x1b_x\x1b\\c":         "abc",
		"a\x1bcb\x1b(Bc\x1b7d":                    "abcd",
		"a\r\b\x07\x00b":                          "ab",
		"\x9b2Jx\xc2\x9b2J\xc2\xa0y":              "2Jx2J\u00a0y",
		"\x1b[6n\x1b[c\x1b[>cq":                   "q",
		"open \x1b]0;no end\nnext\n":              "open \nnext\n",
		"open \x1b[31\nnext\n":                    "open \nnext\n",
		"open \x1b\nnext\x1b":                     "open \nnext",
		"\x1b[?31mx\x1b[1$my":                     "xy",
		"\xff\xc3(":                               "\xc3(",
	} {
		var whole, pieces bytes.Buffer
		w := Filter(&whole)
		if _, err := w.Write([]byte(in)); err != nil {
			t.Fatal(err)
		}
		p := Filter(&pieces)
		for i := range len(in) {
			if n, err := p.Write([]byte{in[i]}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		if whole.String() != want || pieces.String() != want {
			t.Errorf("%q: %q, in pieces %q; want %q", in, whole.String(), pieces.String(), want)
		}
	}
}

func TestTable(t *testing.T) {
	table := &Table{Heading: []string{"NAME", "STATE"}}
	table.Add("ü\x1b[2J", Cell{"Ready", Green})
	table.Add("b", "")
	var plain, coloured strings.Builder
	if err := table.Write(&plain, false); err != nil {
		t.Fatal(err)
	}
	if want := "NAME       STATE\nü\\x1b[2J   Ready\nb          -\n"; plain.String() != want {
		t.Errorf("got\n%swant\n%s", plain.String(), want)
	}
	if err := table.Write(&coloured, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(coloured.String(), "\x1b[32mReady\x1b[0m") || strings.Contains(coloured.String(), "\x1b[2J") {
		t.Errorf("%q", coloured.String())
	}
	if Colours(&plain) || Terminal(&plain) {
		t.Error("a buffer is no terminal")
	}
}

func TestColumns(t *testing.T) {
	var out strings.Builder
	var c Columns
	for _, row := range [][]any{{"a", "", "x"}, {"three\x1b", "b", "y"}, {"ü", Cell{"", Red}, "z"}} {
		table := &Table{Heading: []string{"NAME", "TO"}}
		table.Add(row...)
		c.Fill(table)
		if err := table.Write(&out, false); err != nil {
			t.Fatal(err)
		}
	}
	if want := "a      -    x\nthree\\x1b   b    y\nü           -    z\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestScreen(t *testing.T) {
	const start, line, end = "\x1b[?7l\x1b[H", "\x1b[K\n", "\x1b[J\x1b[?7h"
	for _, c := range []struct {
		text string
		rows int
		want string
	}{
		{"a\nb\n", 24, "a" + line + "b" + line},
		{"a\nb\nc\n", 4, "a" + line + "b" + line + "c" + line},
		{"a\nb\nc\nd\n", 4, "a" + line + "b" + line + "… 2 more lines; they need a taller window" + line},
		{"a\nb\nc\n", 0, "a" + line + "b" + line + "c" + line},
	} {
		if got := Screen(c.text, c.rows); got != start+c.want+end {
			t.Errorf("%q in %d rows: %q", c.text, c.rows, got)
		}
	}
}

// TestYAML gives back what JSON would, whatever the strings look like.
func TestYAML(t *testing.T) {
	type value struct {
		Name  string            `json:"name"`
		Map   map[string]string `json:"map"`
		List  []any             `json:"list"`
		Empty []string          `json:"empty"`
		Time  time.Time         `json:"time"`
	}
	v := value{Name: "true", Map: map[string]string{"a": "1", "no": "0x10", "x: y": "- z\n# c", "z\u202e": "a\nb", "e": "\x1b[2J\u202e\x7f\x00\u0085\u009b\ufeff\U000e0041\\u0041", "t": "2026-01-01"},
		List: []any{1.5, true, nil, "null", "~", ""}, Time: time.Unix(0, 0).UTC()}
	var b bytes.Buffer
	if err := YAML(&b, v); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(strings.ReplaceAll(b.String(), "\n", ""), hidden) || !strings.HasPrefix(b.String(), "name: \"true\"\nmap:\n") {
		t.Errorf("%q", b.String())
	}
	var back any
	if err := yaml.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(v)
	var want any
	_ = json.Unmarshal(text, &want)
	wanted, _ := json.Marshal(want)
	if !bytes.Equal(got, wanted) {
		t.Errorf("got %s\nwant %s", got, wanted)
	}
}

// TestJSON shows a terminal nothing to act on, and programs every byte.
func TestJSON(t *testing.T) {
	v := map[string]string{"a": "\x1b[2J\u202e\x7f\x00\u0085\u009b\ufeff\U000e0041\\u0041\n\tä🙂"}
	for name, write := range map[string]func(io.Writer, any) error{"JSON": JSON, "Line": Line} {
		var b bytes.Buffer
		if err := write(&b, v); err != nil {
			t.Fatal(err)
		}
		if text := strings.ReplaceAll(b.String(), "\n", ""); strings.ContainsFunc(text, hidden) || !strings.Contains(text, "ä🙂") {
			t.Errorf("%s: %q", name, text)
		}
		var back map[string]string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back["a"] != v["a"] {
			t.Errorf("%s: %q %v", name, back, err)
		}
	}
	var line bytes.Buffer
	if err := Line(&line, v); err != nil || bytes.Count(line.Bytes(), []byte("\n")) != 1 {
		t.Errorf("%q %v", line.String(), err)
	}
}

func TestUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 119 * time.Second: "119s", 150 * time.Second: "2m30s", 20 * time.Minute: "20m",
		5*time.Hour + 30*time.Minute: "5h30m", 30 * time.Hour: "30h", 3 * 24 * time.Hour: "3d", 100 * 24 * time.Hour: "100d",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 512: "512", 2048: "2Ki", 64 << 20: "64Mi", 16 << 30: "16Gi"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"\x1b[31mx", "\x1b]0;x\x07", "\x9b", "\xc2\x9b", "\x1b\x1b[\x1b]", "ä"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		_, _ = Filter(&out).Write(b)
		rest := out.String()
		for {
			i := strings.IndexByte(rest, 0x1b)
			if i < 0 {
				break
			}
			end := strings.IndexByte(rest[i:], 'm')
			if end < 2 || rest[i+1] != '[' || !digits([]byte(rest[i+2:i+end])) {
				t.Fatalf("%q lets %q through", b, rest[i:])
			}
			rest = rest[:i] + rest[i+end+1:]
		}
		for i := range len(rest) {
			if c := rest[i]; c < 0x20 && c != '\n' && c != '\t' || c == 0x7f {
				t.Fatalf("%q lets byte %x through", b, c)
			}
		}
		for _, r := range rest {
			if r >= 0x80 && r <= 0x9f {
				t.Fatalf("%q lets %U through", b, r)
			}
		}
	})
}

func FuzzText(f *testing.F) {
	f.Add("a\x1b\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := Text(s)
		if strings.ContainsFunc(got, hidden) || !utf8.ValidString(got) {
			t.Fatalf("%q → %q", s, got)
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	text := bytes.Repeat([]byte("2026-11-24 \x1b[32minfo\x1b[0m some message of a container äöü\n"), 1000)
	w := Filter(&bytes.Buffer{})
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		w.(*filter).w = &discard{}
		_, _ = w.Write(text)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
