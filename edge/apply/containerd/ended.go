package containerd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"selvedge/edge/apply"
	"selvedge/internal/logfile"
)

// What is kept of the logs of removed containers.
const (
	keptRuns = 2        // of a container
	keptAll  = 200      // of the node
	keptSize = 64 << 20 // bytes of the node
)

// runFile describes a removed container, beside its log.
const runFile = "run.json"

// run is a removed container whose log is kept.
type run struct {
	ID         string    `json:"id"`
	App        string    `json:"app"`
	Container  string    `json:"container"`
	Image      string    `json:"image,omitempty"`
	Generation int64     `json:"generation,omitempty"`
	ExitCode   int       `json:"exitCode"`
	Ended      time.Time `json:"ended"`         // for people: the clock may be wrong
	Seq        int64     `json:"seq,omitempty"` // one higher than of those before
	size       int64
}

func (r *Runtime) endedDir() string { return filepath.Join(r.c.DataDir, "ended") }

// Ended lists removed containers whose logs are kept, oldest first.
func (r *Runtime) Ended(context.Context) ([]apply.Instance, error) {
	list, err := r.runs()
	var out []apply.Instance
	for _, x := range list {
		out = append(out, apply.Instance{ID: x.ID, App: x.App, Container: x.Container, Image: x.Image, Generation: x.Generation,
			State: apply.Exited, ExitCode: x.ExitCode, Since: x.Ended})
	}
	return out, err
}

// keep moves the log of a container that is being removed to where it is kept for a while,
// if anything was printed. Its logger has ended.
func (r *Runtime) keep(dir string, x run) error {
	names, size, err := logFiles(dir, x.ID)
	if err != nil || size == 0 {
		return err
	}
	r.keeping.Lock()
	defer r.keeping.Unlock()
	tmp, to := filepath.Join(r.endedDir(), ".new-"+x.ID), filepath.Join(r.endedDir(), x.ID)
	if err := errors.Join(os.RemoveAll(tmp), os.RemoveAll(to), os.MkdirAll(tmp, 0o700)); err != nil {
		return err
	}
	list, err := r.runs()
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if x.Seq = 1; len(list) > 0 {
		x.Seq = list[len(list)-1].Seq + 1
	}
	b, err := json.Marshal(x)
	if err == nil {
		err = os.WriteFile(filepath.Join(tmp, runFile), b, 0o600)
	}
	for _, name := range names {
		if err == nil {
			err = os.Rename(filepath.Join(dir, name), filepath.Join(tmp, name))
		}
	}
	if err == nil {
		err = os.Rename(tmp, to)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return r.forget()
}

// logFiles lists the files of a container's log; all else in the folder is not for keeping.
func logFiles(dir, id string) (names []string, size int64, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	for _, e := range entries {
		fi, err := e.Info()
		if _, ours := logfile.Number(logName(id), e.Name()); err != nil || !ours || !fi.Mode().IsRegular() {
			continue
		}
		names = append(names, e.Name())
		size += fi.Size()
	}
	return names, size, err
}

// runs lists what is kept, oldest first. What cannot be read is left out.
func (r *Runtime) runs() ([]run, error) {
	entries, err := os.ReadDir(r.endedDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the logs of ended containers: %w", err)
	}
	var out []run
	for _, e := range entries {
		var x run
		dir := filepath.Join(r.endedDir(), e.Name())
		b, err := os.ReadFile(filepath.Join(dir, runFile))
		if err != nil || json.Unmarshal(b, &x) != nil || x.ID != e.Name() || !containerID.MatchString(x.ID) {
			continue
		}
		if _, x.size, err = logFiles(dir, x.ID); err == nil {
			out = append(out, x)
		}
	}
	slices.SortStableFunc(out, func(a, b run) int { return cmp.Or(cmp.Compare(a.Seq, b.Seq), a.Ended.Compare(b.Ended)) })
	return out, nil
}

// forget removes what is too much, the oldest first, and what an interrupted keep left.
func (r *Runtime) forget() error {
	list, err := r.runs()
	if err != nil {
		return err
	}
	stays := map[string]bool{}
	of := map[apply.Key]int{}
	var size int64
	for n := len(list) - 1; n >= 0; n-- {
		x := list[n]
		k := apply.Key{App: x.App, Container: x.Container}
		if of[k]++; of[k] > keptRuns || len(stays) >= keptAll || size+x.size > keptSize && len(stays) > 0 {
			continue
		}
		size += x.size
		stays[x.ID] = true
	}
	entries, err := os.ReadDir(r.endedDir())
	for _, e := range entries {
		if !stays[e.Name()] {
			err = errors.Join(err, os.RemoveAll(filepath.Join(r.endedDir(), e.Name())))
		}
	}
	return err
}

// noted returns the name that a container of ours was noted with.
func (r *Runtime) noted(id string) (apply.Key, error) {
	var k apply.Key
	b, err := os.ReadFile(filepath.Join(r.journal(), id))
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		return k, fmt.Errorf("container %.12s: %w: its name is not noted", id, apply.ErrUnknown)
	}
	return k, nil
}
