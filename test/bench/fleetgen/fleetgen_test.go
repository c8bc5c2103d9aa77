package fleetgen

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"selvedge/reconciler/resolve"
	"selvedge/reconciler/validate"
	"selvedge/schema/fleet"
	"selvedge/schema/nodestate"
)

func TestMain(m *testing.M) {
	validate.Worker() // the validator's children are this executable
	os.Exit(m.Run())
}

func repo(t *testing.T, n int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	if err := Write(dir, n); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestPlainCUEAccepts runs the real cue, and lets it refuse something too.
func TestPlainCUEAccepts(t *testing.T) {
	cue := filepath.Join(os.Getenv("SELVEDGE_TOOLS"), "cue")
	if _, err := os.Stat(cue); err != nil {
		if cue, err = exec.LookPath("cue"); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("cue is missing: run make tools")
			}
			t.Skip("cue is missing: run make tools")
		}
	}
	dir := repo(t, 250)
	vet := func() (string, error) {
		cmd := exec.Command(cue, "vet", "-c", "./folders/...")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CUE_REGISTRY=none")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := vet(); err != nil {
		t.Fatalf("cue vet: %v\n%s", err, out)
	}
	file := filepath.Join(dir, Workspace(249), "nodes.yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(data, []byte("capacity:"), []byte("capacityy:"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := vet(); err == nil || !strings.Contains(out, "capacityy") {
		t.Errorf("a typo passed: %v\n%s", err, out)
	}
}

func TestEveryNodeGetsAState(t *testing.T) {
	const n = 250
	dir := repo(t, n)
	v := validate.New(validate.Config{Log: slog.New(slog.DiscardHandler)})
	defer v.Close()
	r := resolve.New(resolve.Config{})
	states := func() *resolve.Result {
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		f, problems, err := v.Validate(context.Background(), validate.Dir(root))
		if err != nil {
			t.Fatal(err)
		}
		for _, src := range f.Workspaces {
			problems = append(problems, src.Problems...)
		}
		for _, p := range problems {
			if p.Severity == fleet.Error {
				t.Fatal(p)
			}
		}
		return r.Resolve(f, resolve.Accepted{})
	}
	before := states()
	if len(before.Nodes) != n || len(before.Held) != 0 {
		t.Fatalf("%d states, %d held, problems: %v", len(before.Nodes), len(before.Held), before.Problems)
	}
	for _, node := range before.Nodes {
		state, err := nodestate.Decode(node.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(state.Apps) != apps/roles {
			t.Fatalf("%s runs %d apps", node.Node, len(state.Apps))
		}
	}
	name, err := Edit(dir, 123, "changed")
	if err != nil || name != "folders/plant-000/line-1/nodes.yaml" {
		t.Fatal(name, err)
	}
	changes := resolve.Diff(before, states())
	if len(changes) != 1 || changes[0].Node != Node(123) {
		t.Errorf("changes are %v", changes)
	}
}

func TestKeysAreNkeys(t *testing.T) {
	seen := map[string]bool{}
	for i := range 300 {
		pair, err := Key(i)
		if err != nil {
			t.Fatal(err)
		}
		public, err := pair.PublicKey()
		if err != nil || !nkeys.IsValidPublicUserKey(public) || seen[public] {
			t.Fatal(i, public, err)
		}
		seen[public] = true
	}
}

func TestWriteIsRepeatable(t *testing.T) {
	a, b := os.DirFS(repo(t, 120)), os.DirFS(repo(t, 120))
	for _, name := range []string{"platform.cue", Workspace(119) + "/nodes.yaml", Workspace(119) + "/devices.yaml"} {
		x, errx := a.(interface{ ReadFile(string) ([]byte, error) }).ReadFile(name)
		y, erry := b.(interface{ ReadFile(string) ([]byte, error) }).ReadFile(name)
		if errx != nil || erry != nil || !bytes.Equal(x, y) {
			t.Error(name, errx, erry)
		}
	}
	if err := Write(t.TempDir(), 0); err == nil {
		t.Error("a repo of no nodes was written")
	}
	for i, want := range map[int]string{
		0: "folders/plant-000/line-0", 99: "folders/plant-000/line-0", 100: "folders/plant-000/line-1", 1000: "folders/plant-001/line-0",
	} {
		if got := Workspace(i); got != want {
			t.Errorf("node %d is in %s, want %s", i, got, want)
		}
	}
}
