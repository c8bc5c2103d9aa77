package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"selvedge/reconciler/publish"
	"selvedge/reconciler/sign"
	"selvedge/schema/nodestate"
	"selvedge/test/bench/fleetgen"
	"selvedge/test/env"
)

// signBatch is what the reconciler signs and publishes together.
const signBatch = 512

// signing measures how many states a second are signed and published.
func signing(ctx context.Context, b *bench) error {
	dir, err := os.MkdirTemp("", "selvedge-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n := b.pick(200, 10000)
	states, err := build(ctx, b, dir, n)
	if err != nil {
		return err
	}
	password := []byte("benchmark")
	private, _, err := sign.GenerateKeyPair(password)
	if err != nil {
		return err
	}
	key := filepath.Join(dir, "cosign.key")
	if err := os.WriteFile(key, private, 0o600); err != nil {
		return err
	}
	signer, err := sign.Load(private, password)
	if err != nil {
		return err
	}
	t := table{head: []string{"WHAT", "STATES", "TIME", "STATES A SECOND", "BESIDE COSIGN"}}
	type row struct {
		what   string
		states int
		took   time.Duration
	}
	var rows []row
	path := filepath.Join(dir, "states.db")
	store, err := publish.Open(publish.Config{Path: path})
	if err != nil {
		return err
	}
	defer store.Close()
	var size int64
	for gen, what := range []string{"signed and put into an empty store", "signed and put over those", "again"} {
		took, bytes, err := signAll(ctx, signer, store, states, int64(gen+1))
		if err != nil {
			return err
		}
		size = bytes
		rows = append(rows, row{what, n, took})
	}
	began := time.Now()
	alone := b.pick(50, 2000)
	for i := range alone {
		if _, err := signer.Sign(states[i%n].content, sign.Meta{Node: states[i%n].node, Generation: 1}); err != nil {
			return err
		}
	}
	rows = append(rows, row{"signed alone, on one core", alone, time.Since(began)})

	if err := env.CanRegistry(); err != nil {
		return err
	}
	registry, err := env.StartRegistry("")
	if err != nil {
		return err
	}
	defer registry.Stop()
	remote, err := publish.OpenRemote(publish.RemoteConfig{Registry: registry.Addr, PlainHTTP: true, StatePath: filepath.Join(dir, "pushed.db")})
	if err != nil {
		return err
	}
	defer remote.Close()
	some := states[:b.pick(20, 500)]
	took, _, err := signAll(ctx, signer, remote, some, 1)
	if err != nil {
		return err
	}
	rows = append(rows, row{"signed and pushed to docker-registry", len(some), took})
	took, err = cosign(ctx, registry.Addr, some[:b.pick(2, 20)], key, string(password))
	if err != nil {
		return err
	}
	theirs := row{"cosign sign, a run an artifact in docker-registry", b.pick(2, 20), took}
	per := func(r row) float64 { return float64(r.states) / r.took.Seconds() }
	for _, r := range append(rows, theirs) {
		t.add(r.what, fmt.Sprint(r.states), ms(r.took), fmt.Sprintf("%.0f", per(r)), fmt.Sprintf("%.0f times", per(r)/per(theirs)))
	}
	t.print(b.out)
	content := 0
	for _, s := range states {
		content += len(s.content)
	}
	fmt.Fprintf(b.out, "\nA state has %d bytes, signed and with all that verifies it %d. Batches of %d.\n", content/n, size/int64(n), signBatch)
	return nil
}

type state struct {
	node    string
	content []byte
}

// build renders the states of a fleet with the command.
func build(ctx context.Context, b *bench, dir string, n int) ([]state, error) {
	repo, out := filepath.Join(dir, "repo"), filepath.Join(dir, "states")
	if err := fleetgen.Write(repo, n); err != nil {
		return nil, err
	}
	if _, err := (&platform{}).run(ctx, dir, filepath.Join(b.bin, "selvedge"), "build", "--out", out, repo); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(out)
	if err != nil {
		return nil, err
	}
	states := make([]state, len(files))
	for i, f := range files {
		states[i].node = strings.TrimSuffix(f.Name(), ".json")
		if states[i].content, err = os.ReadFile(filepath.Join(out, f.Name())); err != nil {
			return nil, err
		}
	}
	if len(states) != n {
		return nil, fmt.Errorf("%d states of %d nodes were built", len(states), n)
	}
	return states, nil
}

// signAll signs and publishes states as the reconciler does, batch by batch.
func signAll(ctx context.Context, signer *sign.Signer, to interface {
	Put(context.Context, []nodestate.Artifact) error
	Heads() (map[string]nodestate.Head, error)
}, states []state, generation int64) (took time.Duration, size int64, err error) {
	began := time.Now()
	for part := range slices.Chunk(states, signBatch) {
		artifacts := make([]nodestate.Artifact, len(part))
		g := new(errgroup.Group)
		g.SetLimit(runtime.GOMAXPROCS(0))
		for i, s := range part {
			g.Go(func() (err error) {
				artifacts[i], err = signer.Sign(s.content, sign.Meta{Node: s.node, Generation: generation, Created: began})
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return 0, 0, err
		}
		if err := to.Put(ctx, artifacts); err != nil {
			return 0, 0, err
		}
		for _, a := range artifacts {
			size += int64(len(a.Signed))
		}
	}
	took = time.Since(began)
	heads, err := to.Heads()
	if err != nil {
		return 0, 0, err
	}
	for h := range maps.Values(heads) {
		if h.Generation != generation {
			return 0, 0, fmt.Errorf("generation %d is published, not %d", h.Generation, generation)
		}
	}
	if len(heads) != len(states) {
		return 0, 0, fmt.Errorf("%d states are published, not %d", len(heads), len(states))
	}
	return took, size, nil
}

// cosign signs artifacts of a registry with the unmodified command, one after the other.
func cosign(ctx context.Context, registry string, states []state, key, password string) (time.Duration, error) {
	cosign, err := tool("cosign-v3")
	if err != nil {
		return 0, err
	}
	p := &platform{password: password}
	began := time.Now()
	for _, s := range states {
		ref := registry + "/nodes/" + s.node + ":desired"
		if _, err := p.run(ctx, filepath.Dir(key), cosign, "sign", "--key", key, "--yes", "--use-signing-config=false", "--tlog-upload=false", "--allow-insecure-registry", ref); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}
