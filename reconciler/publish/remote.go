package publish

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/retry"

	"selvedge/schema/nodestate"
)

// RemoteConfig configures a Remote.
type RemoteConfig struct {
	Registry    string // host[:port]
	Prefix      string // of the repositories' names; empty: none
	PlainHTTP   bool   // on loopback only
	CAFile      string // PEM; empty: the system's
	Credentials string // a docker config file; empty: anonymous
	StatePath   string // file that remembers what was pushed; its folder must exist
	Concurrency int    // states pushed at once; 0 means 8
}

// Remote pushes states to an OCI registry. What was pushed is remembered in a local
// file, so that only what changed is pushed. If that file is lost, every state is signed
// and pushed anew; the registry is then asked for the generation of each, so that none
// goes back. One process at a time pushes to a prefix. It is safe for concurrent use.
type Remote struct {
	config RemoteConfig
	client *auth.Client
	db     *bbolt.DB

	mu sync.Mutex // one batch at a time
}

var (
	bucketMeta = []byte("meta")
	keyTarget  = []byte("target")
)

// OpenRemote opens the local file; it does not dial.
func OpenRemote(c RemoteConfig) (*Remote, error) {
	if c.Prefix != "" && !validName(c.Prefix) {
		return nil, fmt.Errorf("open registry %s: prefix %q is not a repository name by OCI's grammar", c.Registry, c.Prefix)
	}
	if c.PlainHTTP && !loopback(c.Registry) {
		return nil, fmt.Errorf("open registry %s: plain HTTP is for loopback only", c.Registry)
	}
	if c.Concurrency <= 0 {
		c.Concurrency = 8
	}
	client, err := newClient(c)
	if err != nil {
		return nil, fmt.Errorf("open registry %s: %w", c.Registry, err)
	}
	r := &Remote{config: c, client: client}
	if _, err := r.repository(nodestate.TrustRepository(c.Prefix)); err != nil { // the registry's name
		return nil, fmt.Errorf("open registry %q: %w", c.Registry, err)
	}
	if r.db, err = openDB(c.StatePath); err != nil {
		return nil, err
	}
	if err := r.db.Update(r.prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("open registry %s: %w", c.Registry, err), r.db.Close())
	}
	return r, nil
}

// prepare makes the buckets. A file that was about another target keeps only the
// generations: nothing is published there yet.
func (r *Remote) prepare(tx *bbolt.Tx) error {
	for _, b := range [][]byte{bucketNodes, bucketMeta} {
		if _, err := tx.CreateBucketIfNotExists(b); err != nil {
			return err
		}
	}
	target := []byte(r.config.Registry + "/" + r.config.Prefix)
	meta, nodes := tx.Bucket(bucketMeta), tx.Bucket(bucketNodes)
	if old := meta.Get(keyTarget); old != nil && !bytes.Equal(old, target) {
		heads, err := readHeads(nodes)
		if err != nil {
			return err
		}
		for node, h := range heads {
			if err := putHead(nodes, node, nodestate.Head{Generation: h.Generation}); err != nil {
				return err
			}
		}
	}
	return meta.Put(keyTarget, target)
}

func loopback(registry string) bool {
	host := registry
	if h, _, err := net.SplitHostPort(registry); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func newClient(c RemoteConfig) (*auth.Client, error) {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost:   c.Concurrency,
		IdleConnTimeout:       time.Minute,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		ForceAttemptHTTP2:     true,
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA %s: no certificate in it", c.CAFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	client := &auth.Client{
		Client: &http.Client{Transport: retry.NewTransport(transport), Timeout: 2 * time.Minute},
		Cache:  auth.NewCache(),
	}
	client.SetUserAgent("selvedge-reconciler")
	if c.Credentials != "" {
		if _, err := os.Stat(c.Credentials); err != nil { // the library takes a missing file for an empty one
			return nil, fmt.Errorf("read credentials: %w", err)
		}
		store, err := credentials.NewStore(c.Credentials, credentials.StoreOptions{})
		if err != nil {
			return nil, fmt.Errorf("read credentials: %w", err)
		}
		client.Credential = credentials.Credential(store)
	}
	return client, nil
}

// Close closes the local file.
func (r *Remote) Close() error { return r.db.Close() }

// Heads returns what was pushed, by node, with the generations of removed ones. A state
// whose push broke off has no content digest.
func (r *Remote) Heads() (heads map[string]nodestate.Head, err error) {
	err = r.db.View(func(tx *bbolt.Tx) error {
		heads, err = readHeads(tx.Bucket(bucketNodes))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	return heads, nil
}

func readHeads(b *bbolt.Bucket) (map[string]nodestate.Head, error) {
	heads := map[string]nodestate.Head{}
	return heads, b.ForEach(func(k, v []byte) error {
		var h nodestate.Head
		if err := json.Unmarshal(v, &h); err != nil {
			return fmt.Errorf("node %s: %w", k, err)
		}
		heads[string(k)] = h
		return nil
	})
}

func putHead(b *bbolt.Bucket, node string, h nodestate.Head) error {
	v, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return b.Put([]byte(node), v)
}

func (r *Remote) saveHeads(heads map[string]nodestate.Head) error {
	if len(heads) == 0 {
		return nil
	}
	return r.db.Update(func(tx *bbolt.Tx) error {
		for node, h := range heads {
			if err := putHead(tx.Bucket(bucketNodes), node, h); err != nil {
				return err
			}
		}
		return nil
	})
}

// Put pushes a batch. Each state is pushed whole or not at all; those that were pushed
// stay when others fail, and Heads tells which. A generation that is not above the
// published one is refused with ErrGeneration.
func (r *Remote) Put(ctx context.Context, artifacts []nodestate.Artifact) error {
	items, err := check(ctx, artifacts)
	if err != nil {
		return fmt.Errorf("publish %d states: %w", len(artifacts), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	heads, err := r.Heads()
	if err != nil {
		return err
	}
	var batch, unknown []*item
	seen := map[string]bool{}
	for i := range items {
		it := &items[i]
		h, known := heads[it.Node]
		switch {
		case seen[it.Node]:
			return fmt.Errorf("publish %d states: %w: node %s is there twice", len(items), ErrArtifact, it.Node)
		case known && it.Generation <= h.Generation:
			return fmt.Errorf("publish %d states: node %s: %w: %d, published is %d", len(items), it.Node, ErrGeneration, it.Generation, h.Generation)
		case !known:
			unknown = append(unknown, it)
		}
		seen[it.Node] = true
		batch = append(batch, it)
	}
	if err := r.compare(ctx, unknown); err != nil {
		return fmt.Errorf("publish %d states: %w", len(items), err)
	}
	// A generation is used up before it is pushed: were the push to break off, the same
	// number with another digest would be refused by every node that saw the first.
	reserved := map[string]nodestate.Head{}
	for _, it := range batch {
		reserved[it.Node] = nodestate.Head{Generation: it.Generation}
	}
	if err := r.saveHeads(reserved); err != nil {
		return fmt.Errorf("publish %d states: %w", len(items), err)
	}
	done := map[string]nodestate.Head{}
	err = r.each(ctx, len(batch), func(ctx context.Context, i int, mu *sync.Mutex) error {
		it := batch[i]
		if err := r.push(ctx, it); err != nil {
			return fmt.Errorf("node %s: %w", it.Node, err)
		}
		mu.Lock()
		defer mu.Unlock()
		done[it.Node] = nodestate.Head{Generation: it.Generation, ContentDigest: it.ContentDigest}
		return nil
	})
	if err = errors.Join(err, r.saveHeads(done)); err != nil {
		return fmt.Errorf("publish %d states to %s: %w", len(items), r.config.Registry, err)
	}
	return nil
}

// compare asks the registry for the generations of nodes that the local file does not
// know, and remembers those that are too high.
func (r *Remote) compare(ctx context.Context, items []*item) error {
	found := map[string]nodestate.Head{}
	err := r.each(ctx, len(items), func(ctx context.Context, i int, mu *sync.Mutex) error {
		it := items[i]
		published, err := r.generation(ctx, it.Node)
		if err != nil {
			return fmt.Errorf("node %s: %w", it.Node, err)
		}
		if it.Generation > published {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		found[it.Node] = nodestate.Head{Generation: published}
		return fmt.Errorf("node %s: %w: %d, published is %d", it.Node, ErrGeneration, it.Generation, published)
	})
	return errors.Join(err, r.saveHeads(found))
}

// maxErrors bounds how many of a batch's errors are told.
const maxErrors = 5

// each calls f for 0…n-1, so many at once as configured, and joins the first errors. It
// goes on after an error: one bad repository must not hold up the others.
func (r *Remote) each(ctx context.Context, n int, f func(ctx context.Context, i int, mu *sync.Mutex) error) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // for f's results
		errs []error
		more int
		next = make(chan int)
	)
	for range min(n, r.config.Concurrency) {
		wg.Go(func() {
			for i := range next {
				err := f(ctx, i, &mu)
				if err == nil {
					continue
				}
				mu.Lock()
				if len(errs) < maxErrors {
					errs = append(errs, err)
				} else {
					more++
				}
				mu.Unlock()
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	wg.Wait()
	if more > 0 {
		errs = append(errs, fmt.Errorf("and %d more", more))
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// Remove deletes states of nodes from the registry; their generations are remembered. A
// registry that deletes nothing keeps them.
func (r *Remote) Remove(ctx context.Context, nodes []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	heads, err := r.Heads()
	if err != nil {
		return err
	}
	gone := map[string]nodestate.Head{}
	err = r.each(ctx, len(nodes), func(ctx context.Context, i int, mu *sync.Mutex) error {
		node := nodes[i]
		if !nodestate.ValidNode(node) {
			return nil
		}
		if err := r.remove(ctx, node); err != nil && !errors.Is(err, errdef.ErrUnsupported) {
			return fmt.Errorf("node %s: %w", node, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if h, ok := heads[node]; ok {
			gone[node] = nodestate.Head{Generation: h.Generation}
		}
		return nil
	})
	if err = errors.Join(err, r.saveHeads(gone)); err != nil {
		return fmt.Errorf("remove %d states from %s: %w", len(nodes), r.config.Registry, err)
	}
	return nil
}
