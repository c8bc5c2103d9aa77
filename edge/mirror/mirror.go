// Package mirror keeps the registry settings that lead image pulls through a hub:
// <dir>/<host>/hosts.toml, as containerd reads them.
//
// In: the hub, its CA, a bearer, and the hosts whose images the hub passes on. Out: one file of
// mode 0600 a host, with the hub as a mirror before the registry itself. A file that this package
// did not write is never touched, and of its own ones those go that no host needs any more.
package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"selvedge/internal/atomicfile"
)

// mark is the first line of a file that is ours.
const mark = "# Written by selvedge-edge, and again with each token: images come through the hub.\n# To settle this registry yourself, replace the whole file, these lines too.\n"

const file = "hosts.toml"

// hostRE keeps a host from being a path: names, IPv4 addresses, IPv6 ones in brackets, a port.
var hostRE = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$`)

// Via is the hub to pull through.
type Via struct {
	Hub    string // https://host[:port]
	CAFile string // absolute; "" means the system's certificates
	Bearer string
}

// Write makes dir hold settings for these hosts, and no others of ours.
func Write(dir string, via Via, hosts []string) error {
	var errs []error
	want := map[string]bool{}
	for _, h := range hosts {
		if !hostRE.MatchString(h) || len(h) > 255 {
			errs = append(errs, fmt.Errorf("registry %.80q of the hub is no host", h))
			continue
		}
		want[h] = true
		errs = append(errs, via.write(filepath.Join(dir, h), h))
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name(), file)
		if b, err := head(name); want[e.Name()] || err != nil || !ours(b) {
			continue
		}
		errs = append(errs, os.Remove(name))
		os.Remove(filepath.Dir(name)) // if it is empty: a person may keep certificates there
	}
	return errors.Join(errs...)
}

// Clear removes all settings of ours.
func Clear(dir string) error { return Write(dir, Via{}, nil) }

func (v Via) write(dir, host string) error {
	name := filepath.Join(dir, file)
	before, err := head(name)
	if err == nil && !ours(before) {
		return nil // a person's
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	content := v.content(host)
	if bytes.Equal(before, content) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(name, content, 0o600)
}

// content is one hosts.toml (https://github.com/containerd/containerd/blob/main/docs/hosts.md).
func (v Via) content(host string) []byte {
	var b bytes.Buffer
	b.WriteString(mark)
	scheme := "https"
	if bytes.HasPrefix([]byte(host), []byte("localhost:")) || bytes.HasPrefix([]byte(host), []byte("127.")) {
		scheme = "http" // as containerd does itself
	}
	server := scheme + "://" + host
	if host == "docker.io" {
		server = "https://registry-1.docker.io"
	}
	fmt.Fprintf(&b, "server = %s\n\n[host.%s]\n  capabilities = [\"pull\", \"resolve\"]\n", quote(server), quote(v.Hub))
	if v.CAFile != "" {
		fmt.Fprintf(&b, "  ca = %s\n", quote(v.CAFile))
	}
	fmt.Fprintf(&b, "  [host.%s.header]\n    Authorization = [%s]\n", quote(v.Hub), quote("Bearer "+v.Bearer))
	return b.Bytes()
}

// quote makes a basic string of TOML, for printable ASCII.
func quote(s string) string { return strconv.QuoteToASCII(s) }

func ours(b []byte) bool {
	return bytes.HasPrefix(b, []byte(mark[:bytes.IndexByte([]byte(mark), '\n')]))
}

// head reads a file as far as one of ours goes.
func head(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, fs.ErrInvalid)
	}
	return io.ReadAll(io.LimitReader(f, 64<<10))
}
