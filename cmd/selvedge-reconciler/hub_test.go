package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"selvedge/reconciler/feed"
	"selvedge/reconciler/hub/follow"
	"selvedge/schema"
	"selvedge/test/env"
	"selvedge/test/script"
)

// roster follows a reconciler until a commit is in force.
func roster(t *testing.T, c follow.Config, commit string) *follow.View {
	t.Helper()
	c.Log = slog.New(slog.DiscardHandler)
	f, err := follow.New(c)
	must(t, err)
	got := make(chan *follow.View, 1)
	f.OnDelta(func(v *follow.View, _ follow.Delta) {
		if v.Fleet.InForce.Hash == commit {
			select {
			case got <- v:
			default:
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	defer func() { cancel(); <-done }()
	select {
	case v := <-got:
		return v
	case <-ctx.Done():
		t.Fatalf("commit %s is not told; %+v", commit, f.View().Fleet)
		return nil
	}
}

// TestHubs holds that hubs are served on the socket and with mutual TLS, and monitors with metrics;
// and that all of it is told again by a reconciler that starts while Git is away.
func TestHubs(t *testing.T) {
	_, err := exec.LookPath("git")
	env.Need(t, err)
	dir := t.TempDir()
	repo, clone, data := filepath.Join(dir, "fleet.git"), filepath.Join(dir, "clone"), filepath.Join(dir, "data")
	gitRun(t, dir, "init", "-q", "--bare", "-b", "main", repo)
	gitRun(t, dir, "clone", "-q", repo, clone)
	for name, b := range schema.Vendor() {
		write(t, filepath.Join(clone, name), b)
	}
	write(t, filepath.Join(clone, "cue.mod/module.cue"), []byte("module: \"example.com/fleet@v0\"\nlanguage: version: \"v0.17.0\"\n"))
	write(t, filepath.Join(clone, "platform.cue"), []byte("@experiment(explicitopen)\n\npackage fleet\n\nimport \"selvedge.dev/schema/v1\"\n\nv1.#Repo\n\nplatform: {name: \"Acme\", engine: 1}\n"))
	write(t, filepath.Join(clone, "folders/w0/workspace.cue"), fmt.Appendf(nil, "package fleet\n\nworkspace: title: \"w\"\nnode: \"gw-1\": {labels: role: \"gateway\", identity: publicKey: %q}\n", nodeKey(t)))
	write(t, filepath.Join(clone, "folders/w0/apps.cue"), fmt.Appendf(nil, app, 1))
	gitRun(t, clone, "add", "-A")
	gitRun(t, clone, "commit", "-q", "-m", "one")
	gitRun(t, clone, "push", "-q", "origin", "HEAD:main")
	commit := gitRun(t, clone, "rev-parse", "HEAD")

	signingKeys(t, dir)
	hub, pool := certificates(t, dir)

	hubAddr, metricsAddr := freeAddr(t), freeAddr(t)
	start := func() (stop func()) {
		cmd := exec.Command("selvedge-reconciler", "run", "--repo", repo, "--data", data, "--listen", "127.0.0.1:0", "--prefix", "fleet",
			"--key", filepath.Join(dir, "cosign.key"), "--trust", filepath.Join(dir, "trust"),
			"--hub-listen", hubAddr, "--hub-cert", filepath.Join(dir, "tls.crt"), "--hub-key", filepath.Join(dir, "tls.key"), "--hub-client-ca", filepath.Join(dir, "ca.crt"),
			"--metrics", metricsAddr)
		cmd.Env = append(os.Environ(), "COSIGN_PASSWORD="+script.Password)
		cmd.Stderr = t.Output()
		must(t, cmd.Start())
		return func() {
			must(t, cmd.Process.Signal(os.Interrupt))
			_ = cmd.Wait()
		}
	}
	socket := follow.Config{URL: "unix:" + filepath.Join(data, feed.Socket)}
	far := follow.Config{URL: "https://" + hubAddr, TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{hub}}}
	stop := start()
	for name, c := range map[string]follow.Config{"socket": socket, "mutual TLS": far} {
		v := roster(t, c, commit)
		n, ok := v.Node("gw-1")
		if !ok || n.Generation == 0 || v.Fleet.Prefix != "fleet" || len(v.Changes) != 1 {
			t.Errorf("%s: %+v, %+v", name, n, v.Fleet)
		}
		f, err := follow.New(c)
		must(t, err)
		res, err := (&http.Client{Transport: f.Transport()}).Get(f.Base().JoinPath("/v2/fleet/nodes/gw-1/manifests/signed").String())
		must(t, err)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: the store: %s", name, res.Status)
		}
	}
	if _, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}).Get("https://" + hubAddr + "/v2/"); err == nil {
		t.Error("somebody without a certificate was served")
	}
	for name, want := range map[string]float64{
		`selvedge_reconciler_nodes{state="current"}`: 1, `selvedge_reconciler_in_force`: 1, `selvedge_reconciler_states_signed_total`: 1,
		`selvedge_reconciler_commits_total`: 1, `selvedge_reconciler_workspaces`: 1, `selvedge_reconciler_problems{severity="error"}`: 0,
	} {
		if got, ok := scrape(t, metricsAddr)[name]; !ok || got != want {
			t.Errorf("%s is %v, %v; want %v", name, got, ok, want)
		}
	}
	stop()

	must(t, os.Rename(repo, repo+".away"))
	defer start()()
	v := roster(t, socket, commit)
	if n, ok := v.Node("gw-1"); !ok || n.Generation == 0 || len(v.Changes) != 1 {
		t.Errorf("after a restart without Git: %+v", n)
	}
	for end := time.Now().Add(time.Minute); scrape(t, metricsAddr)[`selvedge_reconciler_errors_total{step="fetch"}`] == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no error of Git is counted")
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// scrape returns the samples of a counter or gauge by name and labels.
func scrape(t *testing.T, addr string) map[string]float64 {
	t.Helper()
	res, err := http.Get("http://" + addr + "/metrics")
	must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(b)))
	must(t, err)
	out := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			key := name
			for _, l := range m.Label {
				key += fmt.Sprintf("{%s=%q}", l.GetName(), l.GetValue())
			}
			out[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// certificates writes a CA and a certificate of 127.0.0.1 to files, and returns one for a hub.
func certificates(t *testing.T, dir string) (hub tls.Certificate, pool *x509.CertPool) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	issue := func(tmpl *x509.Certificate, key *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, key.Public(), caKey)
		must(t, err)
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	caPEM := issue(ca, caKey)
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(caPEM)
	write(t, filepath.Join(dir, "ca.crt"), caPEM)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	cert := issue(&x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, key)
	write(t, filepath.Join(dir, "tls.crt"), cert)
	write(t, filepath.Join(dir, "tls.key"), keyPEM)
	hub, err = tls.X509KeyPair(cert, keyPEM)
	must(t, err)
	return hub, pool
}
