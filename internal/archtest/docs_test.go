package archtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	block = regexp.MustCompile("(?ms)^```(?:sh|ini)\n(.*?)^```")
	ours  = regexp.MustCompile(`(?:^|[\s;&|(/=])(selvedge(?:-reconciler|-hub|-edge)?) ([^|;&>)\n]*)`)
	link  = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
)

// TestDocsCommands holds that commands and flags in the documents exist.
func TestDocsCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the commands")
	}
	help := map[string]string{}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "selvedge/cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	seen := 0
	for _, name := range documents(t) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range block.FindAllStringSubmatch(string(b), -1) {
			for _, m := range ours.FindAllStringSubmatch(strings.ReplaceAll(text[1], "\\\n", " "), -1) {
				words := strings.Fields(m[2])
				sub := []string{m[1]}
				for len(words) > 0 && regexp.MustCompile(`^[a-z]+$`).MatchString(words[0]) && len(sub) < 4 {
					if !knows(t, help, bin, append(sub, words[0])) {
						break // an argument
					}
					sub, words = append(sub, words[0]), words[1:]
				}
				if len(sub) == 1 {
					continue // prose, or a path
				}
				seen++
				for _, w := range words {
					flag, _, _ := strings.Cut(w, "=")
					if !strings.HasPrefix(flag, "--") || flag == "--" {
						continue
					}
					if !regexp.MustCompile(regexp.QuoteMeta(flag) + `\b`).MatchString(help[strings.Join(sub, " ")]) {
						t.Errorf("%s: %q has no flag %s", name, strings.Join(sub, " "), flag)
					}
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d commands were found in the documents", seen)
	}
}

// knows reports whether a command line names a command, and keeps its help.
func knows(t *testing.T, help map[string]string, bin string, sub []string) bool {
	t.Helper()
	key := strings.Join(sub, " ")
	if _, ok := help[key]; !ok {
		args := append(append([]string{}, sub[1:]...), "--help")
		out, err := exec.Command(filepath.Join(bin, sub[0]), args...).Output()
		// an unknown word shows the help of the command before it
		if err != nil || !regexp.MustCompile(`(?m)^  `+regexp.QuoteMeta(key)+`( |$)`).Match(out) {
			out = nil
		}
		help[key] = string(out)
	}
	return help[key] != ""
}

// TestDocsLinks holds that what the documents link to in the repo is there.
func TestDocsLinks(t *testing.T) {
	for _, name := range documents(t) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
}

func documents(t *testing.T) []string {
	t.Helper()
	names := []string{"../../README.md"}
	// not docs/reference, which is generated and full of patterns
	for _, pattern := range []string{"../../docs/*.md", "../../docs/decisions/*.md", "../../docs/changelog/*/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, more...)
	}
	return names
}
