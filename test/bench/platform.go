package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// platform is a bare repo, a clone of it, keys, and a reconciler that can be started.
type platform struct {
	b          *bench
	dir        string
	repo       string // bare
	clone      string
	data       string // the reconciler's
	addr       string // of the states
	password   string
	reconciler *process
}

// newPlatform makes a repo of what write puts into the clone.
func newPlatform(ctx context.Context, b *bench, write func(dir string) error) (*platform, error) {
	for _, name := range []string{"selvedge", "selvedge-reconciler", "selvedge-hub", "selvedge-edge"} {
		if p := filepath.Join(b.bin, name); !executable(p) {
			return nil, fmt.Errorf("%s is missing: run make build", p)
		}
	}
	dir, err := os.MkdirTemp("", "selvedge-bench-")
	if err != nil {
		return nil, err
	}
	p := &platform{b: b, dir: dir, repo: filepath.Join(dir, "fleet.git"), clone: filepath.Join(dir, "clone"),
		data: filepath.Join(dir, "reconciler"), password: rand.Text()}
	if err := p.prepare(ctx, write); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

func (p *platform) prepare(ctx context.Context, write func(dir string) error) (err error) {
	if p.addr, err = freeAddr(); err != nil {
		return err
	}
	key := func(name string) string { return filepath.Join(p.dir, name) }
	for _, args := range [][]string{
		{"keys", "generate", "--out", key("root")},
		{"keys", "generate", "--out", key("cosign")},
		{"keys", "root", "init", "--trust", key("trust"), "--root", key("root.pub"), "--signer", key("cosign.pub"), "--sign-with", key("root.key")},
	} {
		if _, err := p.run(ctx, p.dir, filepath.Join(p.b.bin, "selvedge"), args...); err != nil {
			return err
		}
	}
	if err := p.git(ctx, p.dir, "init", "-q", "--bare", "-b", "main", p.repo); err != nil {
		return err
	}
	if err := p.git(ctx, p.dir, "clone", "-q", p.repo, p.clone); err != nil {
		return err
	}
	for k, v := range map[string]string{"user.name": "Bench", "user.email": "bench@example.com", "commit.gpgsign": "false"} {
		if err := p.git(ctx, p.clone, "config", k, v); err != nil {
			return err
		}
	}
	if err := write(p.clone); err != nil {
		return err
	}
	_, err = p.push(ctx, "All of it")
	return err
}

// pushed is when a push began, and when the branch moved.
type pushed struct{ began, moved time.Time }

// push commits and pushes all that was changed in the clone.
func (p *platform) push(ctx context.Context, message string) (pushed, error) {
	for _, args := range [][]string{{"add", "-A"}, {"commit", "-q", "-m", message}} {
		if err := p.git(ctx, p.clone, args...); err != nil {
			return pushed{}, err
		}
	}
	began := time.Now()
	if err := p.git(ctx, p.clone, "push", "-q", "origin", "HEAD:main"); err != nil {
		return pushed{}, err
	}
	// Git writes the new value into a file beside it, which it then renames: nobody could see it sooner
	fi, err := os.Stat(filepath.Join(p.repo, "refs", "heads", "main"))
	if err != nil {
		return pushed{}, fmt.Errorf("when the branch moved: %w", err)
	}
	return pushed{began, fi.ModTime()}, nil
}

func (p *platform) head(ctx context.Context) (string, error) {
	out, err := p.run(ctx, p.clone, "git", "rev-parse", "HEAD")
	return strings.TrimSpace(out), err
}

func (p *platform) git(ctx context.Context, dir string, args ...string) error {
	_, err := p.run(ctx, dir, "git", args...)
	return err
}

func (p *platform) run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "COSIGN_PASSWORD="+p.password)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s%s", filepath.Base(name), strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out), nil
}

// startReconciler starts it with the data that it has, which may be none.
func (p *platform) startReconciler() (err error) {
	p.reconciler, err = p.spawn("selvedge-reconciler", "run", "--repo", p.repo, "--branch", "main", "--data", p.data,
		"--key", filepath.Join(p.dir, "cosign.key"), "--trust", filepath.Join(p.dir, "trust"), "--listen", p.addr)
	return err
}

// published waits until the reconciler says that it published a commit, and returns when it did.
func (p *platform) published(ctx context.Context, commit string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		select {
		case l := <-p.reconciler.said:
			if m := publishedLine.FindStringSubmatch(l.text); m != nil && m[1] == commit {
				if m[2] != "0" {
					return l.at, fmt.Errorf("%s nodes are held: %s", m[2], l.text)
				}
				return l.at, nil
			}
			if strings.Contains(l.text, "level=ERROR") || strings.Contains(l.text, "msg=refused") {
				return l.at, errors.New(l.text)
			}
		case <-p.reconciler.done:
			return time.Time{}, fmt.Errorf("the reconciler ended: %s", p.reconciler.tail())
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for commit %s to be published: %w: %s", commit, ctx.Err(), p.reconciler.tail())
		}
	}
}

var publishedLine = regexp.MustCompile(`msg=published commit=([0-9a-f]+) .*held=([0-9]+)`)

// signed asks for the signed state of a node. With an ETag it waits until there is another.
func (p *platform) signed(ctx context.Context, node, etag string) (string, time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/v2/nodes/"+node+"/manifests/signed", http.NoBody)
	if err != nil {
		return "", time.Time{}, err
	}
	req.Header.Set("Accept", "*/*")
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
		req.Header.Set("Prefer", "wait=60")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", time.Time{}, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, 64<<20)); err != nil {
		return "", time.Time{}, err
	}
	at := time.Now()
	if res.StatusCode != http.StatusOK {
		return "", at, fmt.Errorf("%s: %s", req.URL, res.Status)
	}
	return res.Header.Get("ETag"), at, nil
}

// close ends the reconciler and removes all files.
func (p *platform) close() {
	p.reconciler.end()
	os.RemoveAll(p.dir)
}

// process is a daemon of ours.
type process struct {
	cmd  *exec.Cmd
	log  string
	said chan line // what it logs; lines are dropped when nobody listens
	done chan struct{}
}

type line struct {
	at   time.Time
	text string
}

func (p *platform) spawn(name string, args ...string) (*process, error) {
	x := &process{cmd: exec.Command(filepath.Join(p.b.bin, name), args...), log: filepath.Join(p.dir, name+".log"),
		said: make(chan line, 100), done: make(chan struct{})}
	out, err := os.OpenFile(x.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	x.cmd.Env = append(os.Environ(), "COSIGN_PASSWORD="+p.password)
	pipe, err := x.cmd.StderrPipe()
	if err == nil {
		err = x.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	go func() {
		defer close(x.done)
		lines := bufio.NewScanner(pipe)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			l := line{time.Now(), lines.Text()}
			fmt.Fprintln(out, l.text)
			select {
			case x.said <- l:
			default:
			}
		}
		x.cmd.Wait() // how it ended is in its log
		out.Close()
	}()
	return x, nil
}

func (x *process) end() {
	if x == nil {
		return
	}
	x.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-x.done:
	case <-time.After(15 * time.Second):
		x.cmd.Process.Kill()
		<-x.done
	}
}

// tail returns the last lines of what it logged.
func (x *process) tail() string {
	b, err := os.ReadFile(x.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
