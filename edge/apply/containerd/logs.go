package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"selvedge/edge/apply"
	"selvedge/internal/logfile"
)

// Logs writes a container's log from the files of its logger; containerd need not answer.
// The log of a container goes on over its restarts.
func (r *Runtime) Logs(ctx context.Context, id string, o apply.LogOptions, w io.Writer) error {
	if !containerID.MatchString(id) {
		return fmt.Errorf("container %.70q: %w", id, apply.ErrUnknown)
	}
	store, err := r.store()
	if err != nil {
		return err
	}
	live := filepath.Join(store, "containers", r.c.Namespace, id)
	_, err = os.Lstat(live)
	if o.Previous && err == nil {
		before, err := r.before(id)
		if err != nil {
			return err
		}
		id, live = before, filepath.Join(store, "containers", r.c.Namespace, before)
	}
	l := logfile.Log{Dir: live, Moved: filepath.Join(r.endedDir(), id), Name: logName(id), Format: logfile.JSONFile}
	err = l.Read(ctx, logfile.Options{Since: o.Since, Tail: o.Tail, Follow: o.Follow, Timestamps: o.Timestamps}, w)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("container %.12s: %w: its log is not kept", id, apply.ErrUnknown)
	}
	return err
}

// logName is the file that a container's logger writes.
func logName(id string) string { return id + "-json.log" }

// before returns the newest ended container of the same name.
func (r *Runtime) before(id string) (string, error) {
	k, err := r.noted(id)
	if err != nil {
		return "", err
	}
	list, err := r.runs()
	if err != nil {
		return "", err
	}
	for n := len(list) - 1; n >= 0; n-- {
		if list[n].App == k.App && list[n].Container == k.Container {
			return list[n].ID, nil
		}
	}
	return "", fmt.Errorf("%s: %w: no earlier container whose log is kept; the log of the present one goes back over its restarts", k, apply.ErrUnknown)
}
