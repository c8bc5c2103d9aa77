package env

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// OCIRegistry is a private docker-registry that keeps its content in a folder.
type OCIRegistry struct {
	Addr  string // 127.0.0.1:port, plain HTTP
	Dir   string
	cmd   *exec.Cmd
	ended <-chan struct{}
}

// CanRegistry says why this machine cannot run one, or nil.
func CanRegistry() error {
	if _, err := exec.LookPath("docker-registry"); err != nil {
		return fmt.Errorf("%w: run make deps", err)
	}
	return nil
}

// Registry starts a private OCI registry for a test and returns its address. It knows no
// referrers API, as many do not, and allows to delete.
func Registry(t testing.TB) (addr string) {
	t.Helper()
	Need(t, CanRegistry())
	r, err := StartRegistry("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r.Addr
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// StartRegistry starts a private OCI registry below the temporary folder. With an
// htpasswd file (bcrypt) it asks for passwords. Stop it after use.
func StartRegistry(htpasswd string) (*OCIRegistry, error) {
	return StartRegistryAt("127.0.0.1:0", htpasswd)
}

// StartRegistryAt is StartRegistry on an address of loopback.
func StartRegistryAt(addr, htpasswd string) (*OCIRegistry, error) {
	dir, err := os.MkdirTemp("", "selvedge-registry-")
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http: {addr: %q}
`, filepath.Join(dir, "data"), addr)
	if htpasswd != "" {
		conf += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", htpasswd)
	}
	r := &OCIRegistry{Dir: dir}
	if err := r.start(conf); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return r, nil
}

func (r *OCIRegistry) start(conf string) error {
	name, logName := filepath.Join(r.Dir, "config.yml"), filepath.Join(r.Dir, "log")
	if err := os.WriteFile(name, []byte(conf), 0o600); err != nil {
		return err
	}
	log, err := os.Create(logName)
	if err != nil {
		return err
	}
	defer log.Close()
	r.cmd = exec.Command("docker-registry", "serve", name)
	r.cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // REGISTRY_… would change the configuration
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if r.ended, err = Start(r.cmd); err != nil {
		return fmt.Errorf("start docker-registry: %w", err)
	}
	deadline := time.After(30 * time.Second)
	for {
		b, err := os.ReadFile(logName)
		if err != nil {
			return errors.Join(err, r.kill())
		}
		if m := listening.FindSubmatch(b); m != nil {
			r.Addr = string(m[1])
			return nil
		}
		select {
		case <-r.ended:
			return fmt.Errorf("docker-registry ended: %s", bytes.TrimSpace(b[max(len(b)-1000, 0):]))
		case <-deadline:
			return errors.Join(errors.New("docker-registry does not say where it listens"), r.kill())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (r *OCIRegistry) kill() error {
	err := r.cmd.Process.Kill()
	<-r.ended
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Stop ends the registry and removes its content.
func (r *OCIRegistry) Stop() error { return errors.Join(r.kill(), os.RemoveAll(r.Dir)) }
