package schema_test

import (
	"strings"
	"testing"
	"time"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
)

// TestScalars shows each kind of value what it takes and what it refuses.
func TestScalars(t *testing.T) {
	v := v1(t)
	hex := strings.Repeat("0", 64)
	for def, values := range map[string]struct{ good, bad []string }{
		"#Name": {
			[]string{"a", "gw-7", "0", strings.Repeat("a", 63)},
			[]string{"", "-a", "A", "a_b", "a.b", "a b", "a\n", strings.Repeat("a", 64), "ä"},
		},
		"#Duration": {
			[]string{"1ms", "500ms", "10s", "1h30m", "90m", "1h1m1s1ms"},
			[]string{"", "0s", "5", "-1s", "1d", "1.5h", "1us", " 1s", "1s ", "100000h", "1h1h1h1h1h"},
		},
		"#Quantity": {
			[]string{"1", "65536", "64MiB", "4GiB", "1TiB", "500k", "64M", "4G", "512KiB"},
			[]string{"", "0", "0MiB", "64MB", "1.5GiB", "-1", "1Ki", "4 GiB", "64m", "1000000MiB", "1e9"},
		},
		"#CPUSet": {
			[]string{"0", "0-1,3", "12"},
			[]string{"", "0-", "0..3", ",1", "1,", "a", "0 1"},
		},
		"#Image": {
			[]string{
				"web", "web:1", "r.example/a", "r.example:5000/a/b-c_d.e:1.2-x@sha256:" + hex, "127.0.0.1:5001/selvedge-demo/hello@sha256:" + hex,
				"my_team/app:1", "localhost/a",
			},
			[]string{
				"", "/a", "a/", "a//b", "A/b", "r.example/A", "a b", "a@sha256:" + hex[1:], "a@sha512:" + hex, "a@", "a:", "a:b:c",
				"https://r.example/a", "r.example/../a", "a@sha256:" + hex + "\n", "-a", strings.Repeat("a", 600),
			},
		},
		"#Artifact": {
			[]string{"r.example/m@sha256:" + hex},
			[]string{"r.example/m", "r.example/m:1"},
		},
		"#Path": {
			[]string{"/a", "/a/b", "/.a", "/..a", "/...", "/a.b/c-d", "/a b", "/dev/ttyUSB0"},
			[]string{"", "/", "a", "/a/", "//a", "/.", "/..", "/a/.", "/a/../b", "/a/./b", "/a:b", "/a,b", "/a\nb", "/a\x00", "/" + strings.Repeat("a", 1024)},
		},
		"#FileName": {
			[]string{"a", "a.b", ".env", "A_b-c.toml"},
			[]string{"", ".", "..", "...", "a/b", "a b", "a\\b", "..a"},
		},
		"#EnvName": {
			[]string{"A", "_a1"},
			[]string{"", "1A", "A-B", "A=B", "A B"},
		},
		"#Address": {
			[]string{"0.0.0.0", "127.0.0.1", "::", "::1", "fe80::1"},
			[]string{"", "eth0", "1.2.3", "localhost", "1.2.3.4:80"},
		},
		"#User": {
			[]string{"0", "1000:1000", "lp:lp", "_www", "nobody"},
			[]string{"", ":", "1000:", "a:b:c", "Root", "a b"},
		},
		"#Signal": {[]string{"SIGTERM", "SIGUSR1"}, []string{"", "TERM", "sigterm", "15"}},
		"#URL": {
			[]string{"https://a.example", "http://a:8080/b?c=d", "https://[::1]:8443/x"},
			[]string{"", "a.example", "ftp://a/", "https://", "https://a b/", "https:///x", "https://user@a/"},
		},
		"#URLPath":      {[]string{"/", "/healthz", "/a?b=c"}, []string{"", "a", "/a b", "/a#b", "/a\n"}},
		"#LabelKey":     {[]string{"role", "a.b_c-D"}, []string{"", "a b", ".a", "a/b"}},
		"#LabelValue":   {[]string{"", "Gateway 1", "ä", "a/b"}, []string{"a\nb", "a\x00", strings.Repeat("a", 129)}},
		"#NodeKey":      {[]string{"U" + strings.Repeat("A", 55)}, []string{"", "A" + strings.Repeat("A", 55), "U" + strings.Repeat("A", 54), "U" + strings.Repeat("1", 55), "SU" + strings.Repeat("A", 56)}},
		"#Percent":      {[]string{"0%", "5%", "100%"}, []string{"", "5", "101%", "-1%", "05%"}},
		"#Cron":         {[]string{"0 2 * * *", "*/5 0-6 1,15 * MON-FRI"}, []string{"", "0 2 * *", "every night", "0 2 * * * *", "0  2 * * *"}},
		"#TimeZone":     {[]string{"UTC", "Europe/Berlin", "America/Argentina/Salta", "Etc/GMT+1"}, []string{"", "/UTC", "../etc/passwd", "a b"}},
		"#RepoPath":     {[]string{"k8s", "k8s/dash.v2"}, []string{"", "/k8s", "../k8s", "k8s/", "k8s/../x", "."}},
		"#HostPort":     {[]string{"10.1.2.3:502", "plc.local:502", "[::1]:502"}, []string{"", "10.1.2.3", ":502", "a b:1"}},
		"#PropertyName": {[]string{"temperature", "T_1-a"}, []string{"", "a/b", "+", "#", "a b"}},
	} {
		d := v.LookupPath(cue.ParsePath(def))
		if !d.Exists() {
			t.Errorf("no %s", def)
			continue
		}
		ctx := cuecontext.New()
		for _, s := range values.good {
			if err := d.Unify(ctx.Encode(s)).Validate(cue.Concrete(true)); err != nil {
				t.Errorf("%s refuses %q: %v", def, s, err)
			}
			if def == "#Duration" {
				if _, err := time.ParseDuration(s); err != nil {
					t.Error(err)
				}
			}
		}
		for _, s := range values.bad {
			if d.Unify(ctx.Encode(s)).Validate(cue.Concrete(true)) == nil {
				t.Errorf("%s takes %q", def, s)
			}
		}
	}
}
