package runtimetest

import (
	"errors"
	"testing"

	"selvedge/edge/apply"
)

func TestFake(t *testing.T) {
	f := NewFake()
	f.FailPull("missing", errors.New("not found"))
	Run(t, Bed{Runtime: f, Image: "image", Missing: "missing",
		Kill:   func(_ *testing.T, i apply.Instance) { f.Exit(i.Key(), 137) },
		Pause:  func(_ *testing.T, i apply.Instance) { f.Pause(i.Key()) },
		Delete: func(_ *testing.T, i apply.Instance) { f.Delete(i.Key()) },
	})
}
