package env

import (
	"os"
	"testing"
)

// Need skips the test for a reason, or fails it where everything must be present.
func Need(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI=true, but %v", err)
	}
	t.Skip(err)
}
