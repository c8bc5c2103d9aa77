package main

import "testing"

// TestOffered hands no shell what it would act on, whoever named it.
func TestOffered(t *testing.T) {
	for s, want := range map[string]bool{
		"gw-7": true, "gw-7/hmi/web": true, "folders/plant-a/line-1": true, "site=x,role=gateway": true, "7KQ2-M9XD": true, "line-box": true,
		"": false, "-rf": false, "$(id)": false, "a;id": false, "a|b": false, "a&b": false, "a b": false, "a\nb": false, "a`id`": false, "~root": false,
		"a*": false, "a?": false, "a[b]": false, "{a,b}": false, "a>b": false, "a!b": false, "#a": false, "a\\b": false, "a'b": false, `a"b`: false,
		"a\x1bb": false, "a\u202eb": false, "(a)": false, "a\n": false,
	} {
		if got := offered.MatchString(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}
