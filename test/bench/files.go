package main

import (
	"fmt"
	"syscall"
)

// files lets this process, and those that it starts, open so many files.
func files(n int) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	want := uint64(n)
	if l.Cur >= want && l.Max >= want {
		return nil
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: want, Max: max(l.Max, want)}); err != nil {
		return fmt.Errorf("%d open files are needed and %d allowed: run as root, or raise the limit: %w", n, l.Max, err)
	}
	return nil
}
