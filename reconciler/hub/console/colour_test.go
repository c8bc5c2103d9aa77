package console

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestContrast measures pairs of text and ground as WCAG 2 does
// (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio): AA asks for 4.5.
func TestContrast(t *testing.T) {
	css, err := embedded.ReadFile("assets/console.css")
	if err != nil {
		t.Fatal(err)
	}
	schemes := regexp.MustCompile(`(?s):root \{(.*?)\n *\}`).FindAllStringSubmatch(string(css), -1)
	if len(schemes) != 2 {
		t.Fatalf("%d schemes", len(schemes))
	}
	for _, scheme := range schemes {
		colours := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(scheme[1], -1) {
			colours[m[1]] = luminance(m[2])
		}
		for _, pair := range strings.Fields("ink/ground ink/card ink/soft dim/ground dim/card dim/soft link/ground link/card on-accent/accent ok/ok-ground bad/bad-ground warn/warn-ground unknown/unknown-ground idle/idle-ground busy/busy-ground bad/card warn/card log-ink/log") {
			text, ground, _ := strings.Cut(pair, "/")
			a, oka := colours[text]
			b, okb := colours[ground]
			if got := (max(a, b) + 0.05) / (min(a, b) + 0.05); !oka || !okb || got < 4.5 {
				t.Errorf("%s: %.2f", pair, got)
			}
		}
	}
}

// luminance is a colour's, relative to white's.
func luminance(rgb string) (l float64) {
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, _ := strconv.ParseUint(rgb[2*i:2*i+2], 16, 8) // the expression saw to it
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		l += weight * c
	}
	return l
}
