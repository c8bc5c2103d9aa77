package main

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
	"regexp"
	"strings"
	"syscall"
	"time"

	"selvedge/test/env"
)

const (
	node      = "gw-demo"
	nodeFile  = "folders/munich/lab/workspace.cue"
	appFile   = "folders/munich/lab/hello.cue"
	images    = "127.0.0.1:5001" // as examples-repo names it
	appURL    = "http://127.0.0.1:18080/"
	namespace = "selvedge-demo"
)

// world is everything that the demo started.
type world struct {
	bin, examples string
	dir           string // all files
	repo, clone   string
	reconcilerDir string
	agentDir      string
	statesAddr    string
	password      string
	containerd    *env.Daemon
	registry      *env.OCIRegistry
	reconciler    *process
	agent         *process
	drained       bool // its containers are gone
}

// process is a daemon whose output goes to a file.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func newWorld(bin, examples string) (*world, error) {
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
	for _, addr := range []string{images, "127.0.0.1:18080", "127.0.0.1:18081", "127.0.0.1:18082"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("%w; the example uses this port, stop what has it (another demo?)", err)
		}
		l.Close()
	}
	dir, err := os.MkdirTemp("", "selvedge-demo-")
	if err != nil {
		return nil, err
	}
	return &world{
		bin: bin, examples: examples, dir: dir,
		repo: filepath.Join(dir, "fleet.git"), clone: filepath.Join(dir, "clone"),
		reconcilerDir: filepath.Join(dir, "reconciler"), agentDir: filepath.Join(dir, "agent"),
		password: rand.Text(),
	}, nil
}

// start sets everything up and waits for the app's first answer.
func (w *world) start(ctx context.Context) (err error) {
	for _, s := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"containerd, private to the demo", w.startContainerd},
		{"an image registry on " + images, w.startRegistry},
		{"a bare Git repo from examples-repo, with the images built here", w.makeRepo},
		{"keys: root of trust, signing key", w.makeKeys},
		{"the node's own key, into Git", w.enrol},
		{"the reconciler", w.startReconciler},
		{"the agent of " + node, w.startAgent},
	} {
		fmt.Println("•", s.what)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w\n%s", s.what, err, w.logs())
		}
	}
	body, err := w.answers(ctx, "version 1", time.Minute)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, w.logs())
	}
	fmt.Printf("• %s says: %s", appURL, body)
	return nil
}

func (w *world) startContainerd(context.Context) (err error) {
	w.containerd, err = env.StartContainerd()
	return err
}

func (w *world) startRegistry(ctx context.Context) (err error) {
	if err := env.CanRegistry(); err != nil {
		return err
	}
	w.registry, err = env.StartRegistryAt(images, "")
	return err
}

// makeRepo deploys the example as it stands; the digests of the images that are built here
// differ only if this machine's Go, or its architecture, is another than that of the example's.
func (w *world) makeRepo(ctx context.Context) error {
	digests := map[string]string{}
	for name, version := range env.DemoImages {
		ref, err := env.PushImage(ctx, images, "selvedge-demo/hello", version)
		if err != nil {
			return err
		}
		_, digests[name], _ = strings.Cut(ref, "@")
	}
	if err := w.git(ctx, w.dir, "init", "-q", "--bare", "-b", "main", w.repo); err != nil {
		return err
	}
	if err := w.git(ctx, w.dir, "clone", "-q", w.repo, w.clone); err != nil {
		return err
	}
	for k, v := range map[string]string{"user.name": "Demo", "user.email": "demo@example.com", "commit.gpgsign": "false"} {
		if err := w.git(ctx, w.clone, "config", k, v); err != nil {
			return err
		}
	}
	if err := os.CopyFS(w.clone, os.DirFS(w.examples)); err != nil {
		return err
	}
	name := filepath.Join(w.clone, "images.cue")
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
	return w.commit(ctx, "The example fleet")
}

func (w *world) makeKeys(ctx context.Context) error {
	for _, args := range [][]string{
		{"keys", "generate", "--out", filepath.Join(w.dir, "root")},
		{"keys", "generate", "--out", filepath.Join(w.dir, "cosign")},
		{"keys", "root", "init", "--trust", filepath.Join(w.dir, "trust"), "--root", filepath.Join(w.dir, "root.pub"),
			"--signer", filepath.Join(w.dir, "cosign.pub"), "--sign-with", filepath.Join(w.dir, "root.key")},
	} {
		if _, err := w.run(ctx, w.dir, filepath.Join(w.bin, "selvedge"), args...); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) enrol(ctx context.Context) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	w.statesAddr = addr
	public, err := w.run(ctx, w.dir, filepath.Join(w.bin, "selvedge-edge"), "init", "--dir", w.agentDir, "--node", node,
		"--registry", "http://"+addr, "--root", filepath.Join(w.dir, "trust", "1.root.json"))
	if err != nil {
		return err
	}
	err = w.edit(nodeFile, func(s string) string {
		before, after, _ := strings.Cut(s, `node: "`+node+`"`)
		return before + `node: "` + node + `"` + regexp.MustCompile(`publicKey: "U[A-Z2-7]{55}"`).
			ReplaceAllString(after[:strings.Index(after, "\n}")], `publicKey: "`+strings.TrimSpace(public)+`"`) + after[strings.Index(after, "\n}"):]
	})
	if err != nil {
		return err
	}
	return w.commit(ctx, "Approve "+node)
}

func (w *world) startReconciler(context.Context) (err error) {
	w.reconciler, err = w.spawn("selvedge-reconciler", "run", "--repo", w.repo, "--branch", "main", "--data", w.reconcilerDir,
		"--key", filepath.Join(w.dir, "cosign.key"), "--trust", filepath.Join(w.dir, "trust"), "--listen", w.statesAddr)
	return err
}

func (w *world) startAgent(context.Context) (err error) {
	w.agent, err = w.spawn("selvedge-edge", "run", "--dir", w.agentDir, "--containerd", w.containerd.Address,
		"--namespace", namespace, "--run-dir", filepath.Join(w.dir, "run"), "--bridge", "selvedge-demo", "--interval", "2s")
	return err
}

// spawn starts one of our commands in the background.
func (w *world) spawn(name string, args ...string) (*process, error) {
	out, err := os.OpenFile(filepath.Join(w.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(w.bin, name), args...)
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD="+w.password)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, make(chan struct{})}
	go func() {
		cmd.Wait() // how it ended is in its log
		close(p.done)
	}()
	return p, nil
}

func (p *process) end(s syscall.Signal) {
	if p == nil {
		return
	}
	p.cmd.Process.Signal(s) // it may have ended by itself
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
}

func (w *world) run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "COSIGN_PASSWORD="+w.password)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s%s", filepath.Base(name), args[0], err, out, stderr.String())
	}
	return string(out), nil
}

func (w *world) git(ctx context.Context, dir string, args ...string) error {
	_, err := w.run(ctx, dir, "git", args...)
	return err
}

func (w *world) edit(file string, change func(string) string) error {
	name := filepath.Join(w.clone, file)
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	after := change(string(b))
	if after == string(b) {
		return fmt.Errorf("%s: nothing to change there; does examples-repo still look as the demo expects?", file)
	}
	return os.WriteFile(name, []byte(after), 0o644)
}

func (w *world) commit(ctx context.Context, message string) error {
	for _, args := range [][]string{{"add", "-A"}, {"commit", "-q", "-m", message}, {"push", "-q", "origin", "HEAD:main"}} {
		if err := w.git(ctx, w.clone, args...); err != nil {
			return err
		}
	}
	return nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// logs returns the last lines of what the daemons said.
func (w *world) logs() string {
	var b strings.Builder
	for _, name := range []string{"selvedge-reconciler.log", "selvedge-edge.log"} {
		text, err := os.ReadFile(filepath.Join(w.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&b, "--- %s\n%s\n", name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	return b.String()
}

// drain has the agent remove its containers, as a person would who takes a node away.
func (w *world) drain(ctx context.Context) error {
	err := w.edit(nodeFile, func(s string) string {
		return strings.Replace(s, `node: "`+node+`": {`, `node: "`+node+`": {`+"\n\tdrain: true", 1)
	})
	if err != nil {
		return err
	}
	if err := w.commit(ctx, "Take "+node+" out of service"); err != nil {
		return err
	}
	return w.until(ctx, 30*time.Second, "the containers to end", func() bool {
		out, err := w.run(ctx, w.dir, "ctr", "--address", w.containerd.Address, "-n", namespace, "container", "ls", "-q")
		return err == nil && strings.TrimSpace(out) == ""
	})
}

// close ends everything and removes all files.
func (w *world) close(keep bool) {
	if !w.drained && w.agent != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		if err := w.drain(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "demo: clean up:", err)
		}
		cancel()
	}
	w.agent.end(syscall.SIGTERM)
	w.reconciler.end(syscall.SIGTERM)
	if w.containerd != nil {
		if err := w.containerd.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "demo: clean up:", err)
		}
	}
	if w.registry != nil {
		w.registry.Stop() // its files are temporary
	}
	if link, err := net.InterfaceByName("selvedge-demo"); err == nil {
		exec.Command("ip", "link", "del", link.Name).Run() // our bridge; its containers are gone
	}
	if keep {
		fmt.Fprintln(os.Stderr, "demo: logs are kept in", w.dir)
		return
	}
	os.RemoveAll(w.dir)
}
