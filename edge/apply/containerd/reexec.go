package containerd

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	shimlog "github.com/containerd/containerd/v2/core/runtime/v2/logging"
	"github.com/containerd/nerdctl/v2/pkg/clientutil"
	"github.com/containerd/nerdctl/v2/pkg/logging"
	"github.com/containerd/nerdctl/v2/pkg/logging/jsonfile"
	"github.com/containerd/nerdctl/v2/pkg/ocihook"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"selvedge/internal/logfile"
)

// hookArgs are the settings that the hook process gets on its command line: it sees
// nothing of ours.
type hookArgs struct{ dataRoot, address, cniPath, netConfDir string }

func (h *hookArgs) flags() *flag.FlagSet {
	fs := flag.NewFlagSet("oci-hook", flag.ContinueOnError)
	fs.StringVar(&h.dataRoot, "data-root", "", "")
	fs.StringVar(&h.address, "address", "", "")
	fs.StringVar(&h.cniPath, "cni-path", "", "")
	fs.StringVar(&h.netConfDir, "cni-netconfpath", "", "")
	return fs
}

func (h *hookArgs) list() []string {
	return []string{"--data-root=" + h.dataRoot, "--address=" + h.address, "--cni-path=" + h.cniPath, "--cni-netconfpath=" + h.netConfDir}
}

// Reexec does the work of a container's logger or network hook if this process was
// started as one. Call it first in main, and return when it says handled.
func Reexec() (handled bool, err error) {
	n := len(os.Args)
	switch {
	case n == 3 && os.Args[1] == logging.MagicArgv1:
		shimlog.Run(logger(os.Args[2])) // exits
		return true, nil
	case n >= 4 && os.Args[n-3] == "internal" && os.Args[n-2] == "oci-hook":
		return true, hook(os.Args[1:n-3], os.Args[n-1])
	}
	return false, nil
}

func hook(args []string, event string) error {
	var h hookArgs
	if err := h.flags().Parse(args); err != nil {
		return fmt.Errorf("oci-hook: %w", err)
	}
	store, err := clientutil.DataStore(h.dataRoot, h.address)
	if err != nil {
		return fmt.Errorf("oci-hook: %w", err)
	}
	lock, err := lockChains(unix.LOCK_SH)
	if err != nil {
		return fmt.Errorf("oci-hook: %w", err)
	}
	defer lock.Close()
	stdin, err := io.ReadAll(io.LimitReader(os.Stdin, maxState))
	if err != nil {
		return fmt.Errorf("oci-hook: %w", err)
	}
	if event == "createRuntime" {
		var s specs.State
		if err := json.Unmarshal(stdin, &s); err != nil {
			return fmt.Errorf("oci-hook: %w", err)
		}
		if c := unconnected(s, store, h.cniPath, h.netConfDir); c != nil {
			return c.run()
		}
	}
	return ocihook.Run(bytes.NewReader(stdin), os.Stderr, event, store, h.cniPath, h.netConfDir, "")
}

// maxState bounds what a hook is told of its container.
const maxState = 1 << 20

// maxLine bounds one log line; longer ones are cut into several.
const maxLine = 16 << 10

// logger keeps what a container prints, in the form of nerdctl's json-file driver, until both
// streams end. nerdctl's own asks containerd when the container ends, and dies with it: the
// container's next line would kill it by SIGPIPE. Its files are in the order of the clock, which
// may be set back.
func logger(dataStore string) shimlog.LoggerFunc {
	return func(_ context.Context, cfg *shimlog.Config, ready func() error) error {
		lc, err := logging.LoadLogConfig(dataStore, cfg.Namespace, cfg.ID)
		if err != nil {
			return err
		}
		w := writer(jsonfile.Path(dataStore, cfg.Namespace, cfg.ID), lc.Opts)
		defer w.Close()
		// held until the last line is written: whoever reads to the end waits for it
		lock, err := os.OpenFile(filepath.Join(dataStore, "containers", cfg.Namespace, cfg.ID, loggerLock), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		defer lock.Close()
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			return fmt.Errorf("lock the log: %w", err)
		}
		if err := ready(); err != nil {
			return err
		}
		stdout, stderr := make(chan string, 64), make(chan string, 64)
		var wg sync.WaitGroup
		wg.Go(func() { pump(cfg.Stdout, stdout) })
		wg.Go(func() { pump(cfg.Stderr, stderr) })
		err = jsonfile.Encode(stdout, stderr, lossy{w})
		wg.Wait()
		return err
	}
}

// writer is where a container's log goes, as logOptions has it.
func writer(path string, opts map[string]string) *logfile.Writer {
	return &logfile.Writer{Path: path, Size: cmp.Or(number(opts["max-size"]), 10<<20), Keep: int(max(number(opts["max-file"])-1, 1))}
}

// lossy drops what cannot be written, as on a full disk: the container must not wait for it, and
// the next line may find room.
type lossy struct{ w io.Writer }

func (l lossy) Write(p []byte) (int, error) {
	_, _ = l.w.Write(p)
	return len(p), nil
}

// pump sends lines of at most maxLine bytes until the stream ends.
func pump(r io.Reader, lines chan<- string) {
	defer close(lines)
	br := bufio.NewReaderSize(r, maxLine)
	for {
		b, err := br.ReadSlice('\n')
		if len(b) > 0 {
			s := string(b)
			if errors.Is(err, bufio.ErrBufferFull) {
				s += "\n"
			}
			lines <- s
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// loggerLock is the file that a container's logger holds a lock on for as long as it writes;
// nerdctl's own readers know it by this name.
const loggerLock = "logger-lock"
