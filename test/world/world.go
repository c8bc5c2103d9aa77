package world

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"selvedge/test/env"
)

// Places of examples-repo that are changed here.
const (
	NodeFile  = "folders/munich/lab/workspace.cue"
	AppFile   = "folders/munich/lab/hello.cue"
	Workspace = "folders/munich/lab"
	Guide     = "lab-box"
	Admin     = "ana" // identity with the role admin at the platform
	Images    = "127.0.0.1:5001"
)

// World is everything that was started.
type World struct {
	Bin, Examples string
	Dir           string // all files
	Repo, Clone   string // bare, and a person's clone of it
	StatesAddr    string // of the reconciler
	HubURL        string
	HubCA         string // sha256: digest
	Token         string // API token of Admin
	HubFlags      []string
	Registry      *env.OCIRegistry
	Reconciler    *Process
	Hub           *Process
	Nodes         []*Node

	hubAddr  string
	password string
}

// New makes the folder. bin holds the built commands, examples the repo to deploy.
func New(bin, examples string) (*World, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("containers need root; run as root")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	if examples, err = filepath.Abs(examples); err != nil {
		return nil, err
	}
	for _, addr := range []string{Images, "127.0.0.1:18080", "127.0.0.1:18081", "127.0.0.1:18082"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("%w; the example uses this port, stop what has it (another demo?)", err)
		}
		l.Close()
	}
	dir, err := os.MkdirTemp("", "selvedge-world-")
	if err != nil {
		return nil, err
	}
	return &World{
		Bin: bin, Examples: examples, Dir: dir,
		Repo: filepath.Join(dir, "fleet.git"), Clone: filepath.Join(dir, "clone"),
		password: rand.Text(),
	}, nil
}

// Step is one thing to set up.
type Step struct {
	What string
	Do   func(context.Context) error
}

// Cloud is what there is without nodes, in order.
func (w *World) Cloud() []Step {
	return []Step{
		{"an image registry on " + Images, w.StartRegistry},
		{"a bare Git repo from examples-repo, with the images built here", w.makeRepo},
		{"keys: root of trust, signing key", w.makeKeys},
		{"an API token for " + Admin + ", its hash in Git", w.makeToken},
		{"the reconciler", w.StartReconciler},
		{"the hub", w.StartHub},
	}
}

// Do takes steps, telling each.
func (w *World) Do(ctx context.Context, tell func(string), steps ...Step) error {
	for _, s := range steps {
		tell(s.What)
		if err := s.Do(ctx); err != nil {
			return fmt.Errorf("%s: %w\n%s", s.What, err, w.Logs())
		}
	}
	return nil
}

// StartRegistry starts the image registry, again with what it held.
func (w *World) StartRegistry(context.Context) (err error) {
	if err := env.CanRegistry(); err != nil {
		return err
	}
	w.Registry, err = env.StartRegistryAt(Images, "")
	return err
}

// makeRepo deploys the example as it stands, but for the identity of gw-demo: it joins. The
// digests of the images that are built here differ only if this machine's Go, or its
// architecture, is another than that of the example's.
func (w *World) makeRepo(ctx context.Context) error {
	digests := map[string]string{}
	for name, version := range env.DemoImages {
		ref, err := env.PushImage(ctx, Images, "selvedge-demo/hello", version)
		if err != nil {
			return err
		}
		_, digests[name], _ = strings.Cut(ref, "@")
	}
	if err := w.Git(ctx, w.Dir, "init", "-q", "--bare", "-b", "main", w.Repo); err != nil {
		return err
	}
	if err := w.Git(ctx, w.Dir, "clone", "-q", w.Repo, w.Clone); err != nil {
		return err
	}
	for k, v := range map[string]string{"user.name": "Ana", "user.email": "ana@acme.example", "commit.gpgsign": "false"} {
		if err := w.Git(ctx, w.Clone, "config", k, v); err != nil {
			return err
		}
	}
	if err := os.CopyFS(w.Clone, os.DirFS(w.Examples)); err != nil {
		return err
	}
	name := filepath.Join(w.Clone, "images.cue")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for image, digest := range digests {
		if text, err = env.SetImage(text, image, digest); err != nil {
			return err
		}
	}
	if err := os.WriteFile(name, text, 0o644); err != nil {
		return err
	}
	err = w.Edit(NodeFile, func(s string) string {
		before, after, ok := strings.Cut(s, `node: "gw-demo": {`)
		if !ok {
			return s
		}
		body, rest, _ := strings.Cut(after, "\n}")
		lines := slices.DeleteFunc(strings.Split(body, "\n"), func(l string) bool { return strings.Contains(l, "identity:") })
		return before + `node: "gw-demo": {` + strings.Join(lines, "\n") + "\n}" + rest
	})
	if err != nil {
		return err
	}
	return w.Commit(ctx, "The example fleet")
}

func (w *World) makeKeys(ctx context.Context) error {
	for _, args := range [][]string{
		{"keys", "generate", "--out", filepath.Join(w.Dir, "root")},
		{"keys", "generate", "--out", filepath.Join(w.Dir, "cosign")},
		{"keys", "root", "init", "--trust", filepath.Join(w.Dir, "trust"), "--root", filepath.Join(w.Dir, "root.pub"),
			"--signer", filepath.Join(w.Dir, "cosign.pub"), "--sign-with", filepath.Join(w.Dir, "root.key")},
	} {
		if _, err := w.Run(ctx, w.Dir, w.Command("selvedge"), args...); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) makeToken(ctx context.Context) error {
	out, err := w.Run(ctx, w.Clone, w.Command("selvedge"), "token", "create", "demo", "--identity", Admin, "--expires", "24h", "-C", w.Clone)
	if err != nil {
		return err
	}
	w.Token = strings.TrimSpace(out)
	return w.Push(ctx)
}

// StartReconciler starts the reconciler, again with what it kept.
func (w *World) StartReconciler(context.Context) (err error) {
	if w.StatesAddr == "" {
		if w.StatesAddr, err = FreeAddr("127.0.0.1"); err != nil {
			return err
		}
	}
	w.Reconciler, err = w.Spawn("selvedge-reconciler", exec.Command(w.Command("selvedge-reconciler"), "run", "--repo", w.Repo, "--branch", "main",
		"--data", w.ReconcilerDir(), "--key", filepath.Join(w.Dir, "cosign.key"), "--trust", filepath.Join(w.Dir, "trust"), "--listen", w.StatesAddr))
	return err
}

// ReconcilerDir is the reconciler's directory.
func (w *World) ReconcilerDir() string { return filepath.Join(w.Dir, "reconciler") }

// HubDir is the hub's directory.
func (w *World) HubDir() string { return filepath.Join(w.Dir, "hub") }

// StartHub starts the hub on all addresses of this machine, over TLS, again where it was.
func (w *World) StartHub(ctx context.Context) (err error) {
	if w.hubAddr == "" {
		_, port, err := freePort()
		if err != nil {
			return err
		}
		w.hubAddr = ":" + port
		w.HubURL = "https://localhost:" + port
	}
	args := []string{"run", "--data", w.HubDir(), "--reconciler", "unix:" + filepath.Join(w.ReconcilerDir(), "hub.sock"),
		"--listen", w.hubAddr, "--url", w.HubURL, "--images", Images + "=http://" + Images}
	for _, n := range w.Nodes {
		if n.Netns != nil {
			args = append(args, "--url", w.URLFor(n))
		}
	}
	if w.Hub, err = w.Spawn("selvedge-hub", exec.Command(w.Command("selvedge-hub"), append(args, w.HubFlags...)...)); err != nil {
		return err
	}
	err = w.Until(ctx, time.Minute, "the hub to be up", func() bool {
		return exec.CommandContext(ctx, w.Command("selvedge-hub"), "status", "--data", w.HubDir()).Run() == nil || !w.Hub.Running()
	})
	if err == nil && !w.Hub.Running() {
		err = errors.New("the hub ended")
	}
	if err != nil {
		return err
	}
	out, err := w.Run(ctx, w.Dir, w.Command("selvedge-hub"), "ca", "--data", w.HubDir(), "--digest")
	if err != nil {
		return err
	}
	w.HubCA = strings.TrimSpace(out)
	return w.writeEnv()
}

// URLFor is the hub's address as a node dials it.
func (w *World) URLFor(n *Node) string {
	if n.Netns == nil {
		return w.HubURL
	}
	return "https://" + net.JoinHostPort(n.Netns.Here, w.hubAddr[1:])
}

// Logs returns the last lines of what the daemons said.
func (w *World) Logs() string {
	var b strings.Builder
	names, err := filepath.Glob(filepath.Join(w.Dir, "*.log"))
	if err != nil {
		return err.Error()
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(name), strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	return b.String()
}

// Close ends everything and, unless keep is set, removes all files.
func (w *World) Close(keep bool) error {
	var errs []error
	for _, n := range w.Nodes {
		errs = append(errs, n.close())
	}
	w.Hub.End(syscall.SIGTERM)
	w.Reconciler.End(syscall.SIGTERM)
	if w.Registry != nil {
		_ = w.Registry.Stop() // its files are temporary
	}
	if !keep {
		errs = append(errs, os.RemoveAll(w.Dir))
	}
	return errors.Join(errs...)
}

func freePort() (addr, port string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer l.Close()
	_, port, err = net.SplitHostPort(l.Addr().String())
	return l.Addr().String(), port, err
}

// FreeAddr returns an address of a host that nobody listens on.
func FreeAddr(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
