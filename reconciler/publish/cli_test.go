package publish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/reconciler/publish"
	"selvedge/reconciler/sign"
	"selvedge/schema/nodestate"
	"selvedge/test/env"
)

// tool finds a program in SELVEDGE_TOOLS or PATH.
func tool(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv("SELVEDGE_TOOLS"); dir != "" {
		if p := filepath.Join(dir, name); exec.Command(p, "version").Run() == nil {
			return p
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		env.Need(t, errors.Join(errors.New(name+" is not here: run make tools, and set SELVEDGE_TOOLS to its folder"), err))
	}
	return p
}

// run runs a program with a home of its own, so that nothing of the machine's is used.
func run(t testing.TB, argv ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	home := t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "XDG_RUNTIME_DIR=" + home}
	cmd.Dir = home
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if err != nil {
		return stderr.String(), err
	}
	return out.String(), nil
}

func mustRun(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := run(t, argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

func publicKeyFile(t testing.TB, s *sign.Signer) string {
	t.Helper()
	pem, err := s.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "cosign.pub", pem)
}

func writeFile(t testing.TB, name string, b []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// targets are the places that the programs of others read: host:port, after a put.
func targets(t *testing.T, a ...nodestate.Artifact) map[string]string {
	s := open(t, publish.Config{})
	put(t, s, a...)
	out := map[string]string{"embedded": strings.TrimPrefix(serve(t, s), "http://")}
	if env.CanRegistry() == nil || os.Getenv("CI") == "true" {
		addr := env.Registry(t)
		put(t, openRemote(t, publish.RemoteConfig{Registry: addr}), a...)
		out["registry"] = addr
	}
	return out
}

// tampered is a state whose manifest was changed after it was signed.
func tampered(t testing.TB, a nodestate.Artifact) nodestate.Artifact {
	t.Helper()
	u := unpack(t, a)
	outer, manifest := u.Outer, bytes.Replace(u.Manifest, []byte(`"abcd"`), []byte(`"abce"`), 1)
	if bytes.Equal(manifest, u.Manifest) {
		t.Fatal("nothing changed")
	}
	d := nodestate.Describe(nodestate.MediaTypeManifest, manifest, true)
	outer.Subject = &d
	b, err := json.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	a.Signed = b
	return a
}

func TestCosignVerifies(t *testing.T) {
	bad := artifact(t, "bad", 3)
	where := targets(t, artifact(t, "gw-7", 42), artifact(t, "x--", 1), tampered(t, bad))
	pub := publicKeyFile(t, key(t))
	stranger, err := newSigner()
	if err != nil {
		t.Fatal(err)
	}
	other := publicKeyFile(t, stranger)
	root := writeFile(t, "root.json", []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`))
	for version, flags := range map[string][]string{
		"cosign-v3": nil,
		"cosign-v2": {"--new-bundle-format", "--trusted-root", root},
	} {
		cosign := tool(t, version)
		// Version 2.6 takes -a and ignores it for bundles: it says who signed, not for which
		// node. Nodes do not depend on it; people who do need version 3.
		annotations := version != "cosign-v2"
		for place, addr := range where {
			t.Run(version+" "+place, func(t *testing.T) {
				verify := func(pub, node, repo string) (string, error) {
					argv := append([]string{cosign, "verify", "--key", pub, "--insecure-ignore-tlog=true", "-a", "node=" + node, "--allow-http-registry"}, flags...)
					return run(t, append(argv, addr+"/"+repo+":"+nodestate.TagDesired)...)
				}
				out, err := verify(pub, "gw-7", "nodes/gw-7")
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				for _, want := range []string{`"node":"gw-7"`, `"generation":"42"`} {
					if annotations && !strings.Contains(strings.ReplaceAll(out, " ", ""), want) {
						t.Errorf("no %s in %s", want, out)
					}
				}
				if out, err := verify(pub, "x--", nodestate.NodeRepository("", "x--")); err != nil {
					t.Errorf("%v: %s", err, out)
				}
				for name, args := range map[string][3]string{
					"another key":  {other, "gw-7", "nodes/gw-7"},
					"another node": {pub, "gw-8", "nodes/gw-7"},
					"tampered":     {pub, "bad", "nodes/bad"},
					"not there":    {pub, "gw-9", "nodes/gw-9"},
				} {
					if name == "another node" && !annotations {
						continue
					}
					if out, err := verify(args[0], args[1], args[2]); err == nil {
						t.Errorf("%s: verified: %s", name, out)
					} else if strings.Contains(out, "connection refused") || strings.Contains(out, "unknown flag") {
						t.Errorf("%s: refused for another reason: %s", name, out)
					}
				}
			})
		}
	}
}

func TestSkopeoReads(t *testing.T) {
	skopeo := tool(t, "skopeo")
	a := artifact(t, "gw-7", 42)
	u := unpack(t, a)
	for place, addr := range targets(t, a) {
		t.Run(place, func(t *testing.T) {
			ref := "docker://" + addr + "/nodes/gw-7:"
			for tag, want := range map[string][]byte{nodestate.TagDesired: u.Manifest, nodestate.TagSigned: a.Signed} {
				if got := mustRun(t, skopeo, "inspect", "--raw", "--tls-verify=false", ref+tag); got != string(want) {
					t.Errorf("%s: %.200s", tag, got)
				}
			}
			dir := t.TempDir()
			mustRun(t, skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", ref+nodestate.TagDesired, "oci:"+dir+":x")
			for _, d := range []string{u.ManifestDigest, u.LayerDigest} {
				b, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(d, "sha256:")))
				if err != nil || nodestate.Digest(b) != d {
					t.Errorf("%s: %v", d, err)
				}
			}
		})
	}
}

func TestCraneReads(t *testing.T) {
	crane := tool(t, "crane")
	a := artifact(t, "gw-7", 42)
	u := unpack(t, a)
	for place, addr := range targets(t, a) {
		t.Run(place, func(t *testing.T) {
			repo := addr + "/nodes/gw-7"
			if got := mustRun(t, crane, "digest", "--insecure", repo+":desired"); strings.TrimSpace(got) != u.ManifestDigest {
				t.Errorf("digest %s", got)
			}
			if got := mustRun(t, crane, "manifest", "--insecure", repo+":signed"); strings.TrimSuffix(got, "\n") != string(a.Signed) {
				t.Errorf("manifest %.200s", got)
			}
			if got := mustRun(t, crane, "blob", "--insecure", repo+"@"+u.LayerDigest); got != string(u.Layer) {
				t.Errorf("blob: %d bytes", len(got))
			}
			if got := mustRun(t, crane, "ls", "--insecure", repo); !strings.Contains(got, "desired\n") || !strings.Contains(got, "signed\n") {
				t.Errorf("tags %s", got)
			}
		})
	}
}
