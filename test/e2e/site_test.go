package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"selvedge/edge"
	"selvedge/edge/apply/containerd"
	"selvedge/schema"
	"selvedge/test/env"
	"selvedge/test/world"
)

const (
	node      = "gw-e2e"
	namespace = "selvedge-e2e"
	bridge    = "selvedge-e2e"
	states    = "127.0.0.1:15080"
	images    = "127.0.0.1:15000"
	workspace = "folders/site/line"
	webPort   = 18080

	// patience bounds every wait; it is no measure of anything.
	patience = time.Minute
)

// site is a platform and one node of it.
type site struct {
	*testing.T
	dir, bin   string
	password   string
	agentDir   string
	containerd *env.Daemon
	registry   *env.OCIRegistry
	reconciler *world.Process
	agent      *world.Process
	image      map[string]string // by version
}

// newSite sets all of it up; nothing of it runs yet but containerd and the registry.
func newSite(t *testing.T) *site {
	t.Helper()
	env.Need(t, env.CanContainerd())
	env.Need(t, env.CanRegistry())
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "selvedge-e2e-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	w := &site{T: t, dir: dir, bin: bin, password: rand.Text(), agentDir: filepath.Join(dir, "agent"),
		containerd: env.Containerd(t), image: map[string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			w.logs()
		}
		w.agent.End(syscall.SIGKILL)
		w.reconciler.End(syscall.SIGKILL)
		w.stopRegistry()
		w.purge()
		_ = unix.Unmount(w.agentDir, unix.MNT_DETACH) // nearly always nothing is mounted there
		os.RemoveAll(dir)
	})
	w.startRegistry()
	w.keys()
	w.repo()
	return w
}

// enrol makes the node's key and puts the node into Git, with no app.
func (w *site) enrol() {
	w.Helper()
	public := w.run("selvedge-edge", "init", "--dir", w.agentDir, "--node", node, "--registry", "http://"+states, "--root", w.path("trust", "1.root.json"))
	w.write("node.cue", fmt.Sprintf("package fleet\n\nnode: %q: {\n\tlabels: role: \"gateway\"\n\tidentity: publicKey: %q\n}\n", node, strings.TrimSpace(public)))
	w.push("The node")
}

func (w *site) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

func (w *site) keys() {
	w.Helper()
	w.run("selvedge", "keys", "generate", "--out", w.path("root"))
	w.run("selvedge", "keys", "generate", "--out", w.path("cosign"))
	w.run("selvedge", "keys", "root", "init", "--trust", w.path("trust"), "--root", w.path("root.pub"), "--signer", w.path("cosign.pub"), "--sign-with", w.path("root.key"))
}

func (w *site) repo() {
	w.Helper()
	w.git(w.dir, "init", "-q", "--bare", "-b", "main", w.path("fleet.git"))
	w.git(w.dir, "clone", "-q", w.path("fleet.git"), w.path("clone"))
	files := schema.Vendor()
	files["cue.mod/module.cue"] = []byte("module: \"acme.example/fleet@v0\"\nlanguage: version: \"" + schema.LanguageVersion + "\"\n")
	files["platform.cue"] = []byte("@experiment(explicitopen)\n\npackage fleet\n\nimport \"selvedge.dev/schema/v1\"\n\nv1.#Repo\n\nplatform: name: \"Acme\"\n")
	files[workspace+"/workspace.cue"] = []byte("package fleet\n\nworkspace: title: \"Line\"\n")
	for name, data := range files {
		file := w.path("clone", filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			w.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			w.Fatal(err)
		}
	}
}

func (w *site) write(name, text string) {
	w.Helper()
	if err := os.WriteFile(w.path("clone", workspace, name), []byte(text), 0o644); err != nil {
		w.Fatal(err)
	}
}

// app describes a hello app.
type app struct {
	name     string // "" means web
	image    string // reference; "" means that of version 1
	port     int    // 0 means webPort
	greeting string
	fail     string
	deadline string // "" means 60s
}

// deploy writes apps into the clone and pushes them.
func (w *site) deploy(apps ...app) {
	w.Helper()
	for _, a := range apps {
		w.writeApp(a)
	}
	w.push("Change of apps")
}

func (w *site) writeApp(a app) {
	w.Helper()
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&a.name, "web")
	def(&a.image, w.hello("1"))
	def(&a.deadline, "60s")
	if a.port == 0 {
		a.port = webPort
	}
	fail := ""
	if a.fail != "" {
		fail = fmt.Sprintf("env: FAIL: %q", a.fail)
	}
	w.write(a.name+".cue", fmt.Sprintf(`package fleet

app: %[1]q: {
	placement: nodes: [%[2]q]
	container: web: {
		image: %[3]q
		port: http: {container: 8080, host: %[4]d}
		env: {GREETING: %[5]q, CONFIG: "/etc/hello/motd.txt"}
		%[6]s
		resources: {cpu: 0.5, memory: "64MiB"}
		probe: {http: {port: 8080, path: "/healthz"}, interval: "1s", timeout: "1s"}
		stop: timeout: "2s"
	}
	config: %[1]q: mount: "/etc/hello"
	update: deadline: %[7]q
}

config: %[1]q: file: "motd.txt": "config of %[5]s\n"
`, a.name, node, a.image, a.port, a.greeting, fail, a.deadline))
}

// remove takes an app out of the clone.
func (w *site) remove(name string) {
	w.Helper()
	if err := os.Remove(w.path("clone", workspace, name+".cue")); err != nil {
		w.Fatal(err)
	}
}

// hello returns the image of a version, pushed.
func (w *site) hello(version string) string {
	w.Helper()
	if w.image[version] == "" {
		w.image[version] = env.Image(w, images, "e2e/hello", version)
	}
	return w.image[version]
}

func (w *site) push(message string) {
	w.Helper()
	dir := w.path("clone")
	w.git(dir, "add", "-A")
	w.git(dir, "-c", "user.name=E2E", "-c", "user.email=e2e@example.com", "-c", "commit.gpgsign=false", "commit", "-q", "-m", message)
	w.git(dir, "push", "-q", "origin", "HEAD:main")
}

func (w *site) startRegistry() {
	w.Helper()
	r, err := env.StartRegistryAt(images, "")
	if err != nil {
		w.Fatal(err)
	}
	w.registry = r
}

func (w *site) stopRegistry() {
	if w.registry != nil {
		w.registry.Stop() // its files are temporary
		w.registry = nil
	}
}

func (w *site) startReconciler() {
	w.Helper()
	w.reconciler = w.spawn("selvedge-reconciler", "run", "--repo", w.path("fleet.git"), "--branch", "main", "--data", w.path("reconciler"),
		"--key", w.path("cosign.key"), "--trust", w.path("trust"), "--listen", states)
}

func (w *site) startAgent() {
	w.Helper()
	w.agent = w.spawn("selvedge-edge", "run", "--dir", w.agentDir, "--containerd", w.containerd.Address,
		"--namespace", namespace, "--run-dir", w.path("run"), "--bridge", bridge, "--interval", "1s")
}

// purge takes away what a node that is not drained leaves, for the tests that follow.
func (w *site) purge() {
	r := containerd.New(containerd.Config{Address: w.containerd.Address, Namespace: namespace, DataDir: filepath.Join(w.agentDir, "containers"),
		RunDir: w.path("run"), Bridge: bridge})
	defer r.Close()
	if err := r.Purge(context.Background()); err != nil {
		w.Error(err)
	}
}

func (w *site) spawn(name string, args ...string) *world.Process {
	w.Helper()
	cmd := exec.Command(filepath.Join(w.bin, name), args...)
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD="+w.password)
	p, err := world.Spawn(w.path(name+".log"), cmd)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

func (w *site) run(name string, args ...string) string {
	w.Helper()
	cmd := exec.Command(filepath.Join(w.bin, name), args...)
	cmd.Dir, cmd.Env = w.dir, append(os.Environ(), "COSIGN_PASSWORD="+w.password)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.Fatalf("%s %s: %v: %s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

func (w *site) git(dir string, args ...string) {
	w.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// ctr asks containerd behind everybody's back.
func (w *site) ctr(ns string, args ...string) string {
	w.Helper()
	out, err := exec.Command("ctr", append([]string{"--address", w.containerd.Address, "-n", ns}, args...)...).CombinedOutput()
	if err != nil {
		w.Fatalf("ctr %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// killContainers kills every container process of the node.
func (w *site) killContainers() {
	w.Helper()
	for id := range strings.FieldsSeq(w.ctr(namespace, "task", "ls", "-q")) {
		w.ctr(namespace, "task", "kill", "-s", "SIGKILL", id)
	}
}

// status is what people see.
func (w *site) status() (s edge.Status) {
	cmd := exec.Command(filepath.Join(w.bin, "selvedge-edge"), "status", "--dir", w.agentDir, "-o", "json")
	out, _ := cmd.Output() // exit 1: not well, which is an answer
	_ = json.Unmarshal(out, &s)
	return s
}

func (w *site) until(what string, ok func() bool) {
	w.Helper()
	for began := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > patience {
			b, _ := json.Marshal(w.status())
			w.Fatalf("waited for %s in vain; status: %s", what, b)
		}
	}
}

// says waits until an app greets like that.
func (w *site) says(greeting string) {
	w.Helper()
	w.until("the app to greet "+greeting, func() bool { return w.greets(webPort, greeting) })
}

func (w *site) greets(port int, greeting string) bool {
	return strings.Contains(get(port), "hello "+greeting+",")
}

// well waits until the node runs the newest state in health.
func (w *site) well() {
	w.Helper()
	w.until("the node to be well", func() bool { return w.status().Well() })
}

func get(port int) string { return fetch(fmt.Sprintf("http://127.0.0.1:%d/", port)) }

func fetch(url string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	req.Close = true // the old connection may be to the old container
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return string(b)
}

func (w *site) logs() {
	for _, name := range []string{"selvedge-reconciler.log", "selvedge-edge.log"} {
		text, _ := os.ReadFile(w.path(name))
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		w.Logf("%s ends with:\n%s", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}
