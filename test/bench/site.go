package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"selvedge/schema"
	"selvedge/test/env"
)

const (
	siteNode      = "gw-bench"
	siteNamespace = "selvedge-bench"
	siteBridge    = "selvedge-bench"
	siteFolder    = "folders/site/line"
)

// site is a platform with one node, which runs on a containerd of its own.
type site struct {
	*platform
	containerd *env.Daemon
	registry   *env.OCIRegistry
	agent      *process
	image      string // by digest
	client     http.Client
}

// newSite starts all of it; the node runs no app yet.
func newSite(ctx context.Context, b *bench) (s *site, err error) {
	if err := errors.Join(env.CanContainerd(), env.CanRegistry()); err != nil {
		return nil, err
	}
	s = &site{client: http.Client{
		Timeout:   250 * time.Millisecond, // a packet that is lost while the network is made is sent again after a second
		Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil},
	}}
	defer func() {
		if err != nil {
			s.close(context.WithoutCancel(ctx))
		}
	}()
	if s.containerd, err = env.StartContainerd(); err != nil {
		return s, err
	}
	if s.registry, err = env.StartRegistry(""); err != nil {
		return s, err
	}
	if s.image, err = env.PushImage(ctx, s.registry.Addr, "bench/hello", "1"); err != nil {
		return s, err
	}
	if s.platform, err = newPlatform(ctx, b, writeSite); err != nil {
		return s, err
	}
	public, err := s.init(ctx, "--registry", "http://"+s.addr)
	if err != nil {
		return s, err
	}
	node := fmt.Sprintf("package fleet\n\nnode: %q: {\n\tlabels: role: \"gateway\"\n\tidentity: publicKey: %q\n}\n", siteNode, strings.TrimSpace(public))
	if err := s.write("node.cue", node); err != nil {
		return s, err
	}
	if err := s.app("warm", 0, "warm"); err != nil { // the first container pays for the bridge and the image
		return s, err
	}
	if _, err := s.push(ctx, "The node"); err != nil {
		return s, err
	}
	if err := s.startReconciler(); err != nil {
		return s, err
	}
	if err := s.startAgent(); err != nil {
		return s, err
	}
	_, err = s.answer(ctx, 0, "warm")
	return s, err
}

// init sets the node up, and returns its public key.
func (s *site) init(ctx context.Context, where ...string) (string, error) {
	return s.run(ctx, s.dir, filepath.Join(s.b.bin, "selvedge-edge"), append([]string{"init", "--dir", filepath.Join(s.dir, "agent"), "--node", siteNode,
		"--root", filepath.Join(s.dir, "trust", "1.root.json")}, where...)...)
}

func (s *site) startAgent() (err error) {
	s.agent, err = s.spawn("selvedge-edge", "run", "--dir", filepath.Join(s.dir, "agent"), "--containerd", s.containerd.Address,
		"--namespace", siteNamespace, "--run-dir", filepath.Join(s.dir, "run"), "--bridge", siteBridge)
	return err
}

func writeSite(dir string) error {
	files := schema.Vendor()
	files["cue.mod/module.cue"] = []byte("module: \"acme.example/fleet@v0\"\nlanguage: version: \"" + schema.LanguageVersion + "\"\n")
	files["platform.cue"] = []byte("@experiment(explicitopen)\n\npackage fleet\n\nimport \"selvedge.dev/schema/v1\"\n\nv1.#Repo\n\nplatform: name: \"Acme\"\n")
	files[siteFolder+"/workspace.cue"] = []byte("package fleet\n\nworkspace: title: \"Line\"\n")
	for name, data := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) write(name, text string) error {
	return os.WriteFile(filepath.Join(s.clone, siteFolder, name), []byte(text), 0o644)
}

// sitePort is where app number i answers.
func sitePort(i int) int { return 18380 + i }

// app writes an app into the clone, with what the example's have: a port, limits, a probe.
func (s *site) app(name string, i int, greeting string) error {
	return s.write(name+".cue", fmt.Sprintf(`package fleet

app: %q: {
	placement: nodes: [%q]
	container: web: {
		image: %q
		port: http: {container: 8080, host: %d}
		env: GREETING: %q
		resources: {cpu: 0.5, memory: "64MiB"}
		probe: {
			http: {port: 8080, path: "/healthz"}
			interval: "5s"
			timeout:  "1s"
		}
	}
}
`, name, siteNode, s.image, sitePort(i), greeting))
}

func (s *site) drop(name string) error {
	return os.Remove(filepath.Join(s.clone, siteFolder, name+".cue"))
}

// answer waits until an app greets as it should, and returns when it did.
func (s *site) answer(ctx context.Context, i int, greeting string) (time.Time, error) {
	return s.until(ctx, i, func(body string) bool { return strings.Contains(body, "hello "+greeting+",") })
}

// silence waits until nothing answers.
func (s *site) silence(ctx context.Context, i int) error {
	_, err := s.until(ctx, i, func(body string) bool { return body == "" })
	return err
}

func (s *site) until(ctx context.Context, i int, ok func(body string) bool) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		body := s.get(ctx, i)
		if ok(body) {
			return time.Now(), nil
		}
		select {
		case <-ctx.Done():
			err := fmt.Errorf("app on port %d: %w", sitePort(i), ctx.Err())
			if s.agent != nil {
				err = fmt.Errorf("%w; the agent's log ends with\n%s\nthe reconciler's with\n%s", err, s.agent.tail(), s.reconciler.tail())
			}
			return time.Time{}, err
		case <-time.After(time.Millisecond):
		}
	}
}

func (s *site) get(ctx context.Context, i int) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+strconv.Itoa(sitePort(i))+"/", http.NoBody)
	if err != nil {
		return ""
	}
	res, err := s.client.Do(req)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return ""
	}
	return string(b)
}

// close has the agent remove its containers, as for a node that is taken away, and ends everything.
func (s *site) close(ctx context.Context) {
	if s.agent != nil {
		if err := s.drain(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "bench: clean up:", err)
		}
		s.agent.end()
	}
	if s.containerd != nil {
		if err := s.containerd.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "bench: clean up:", err)
		}
	}
	if s.registry != nil {
		s.registry.Stop() // its files are temporary
	}
	if s.platform != nil {
		s.run(ctx, s.dir, "ip", "link", "del", siteBridge) // ours, and not there if no app ever ran
		s.platform.close()
	}
}

func (s *site) drain(ctx context.Context) error {
	file := filepath.Join(s.clone, siteFolder, "node.cue")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), "labels:", "drain: true\n\tlabels:", 1)), 0o644); err != nil {
		return err
	}
	if _, err := s.push(ctx, "Take the node away"); err != nil {
		return err
	}
	for begun := time.Now(); time.Since(begun) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
		out, err := s.run(ctx, s.dir, "ctr", "--address", s.containerd.Address, "-n", siteNamespace, "container", "ls", "-q")
		if err == nil && strings.TrimSpace(out) == "" {
			return nil
		}
	}
	return errors.New("the agent's containers do not end")
}
