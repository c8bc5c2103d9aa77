package archtest

import "testing"

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		want          bool
	}{
		{"reconciler/resolve", "schema/fleet", true},
		{"reconciler/resolve", "reconciler/validate", false},
		{"reconciler", "reconciler/validate", true},
		{"edge/apply", "edge/verify", true},
		{"edge/verify", "edge/apply", false},
		{"edge/apply/containerd", "edge/apply", true},
		{"edge/pull", "schema/fleet", false},
		{"edge", "reconciler", false},
		{"schema/fleet", "internal/backoff", false},
		{"cmd/selvedge", "edge", false},
		{"cmd/selvedge-edge", "edge", true},
		{"elsewhere", "schema", false},
	} {
		if got, why := Allowed(c.pkg, c.imported); got != c.want {
			t.Errorf("Allowed(%s, %s) = %v (%s)", c.pkg, c.imported, got, why)
		}
	}
}
