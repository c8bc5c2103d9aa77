package reconciler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"selvedge/internal/atomicfile"
	"selvedge/reconciler/trustdir"
	"selvedge/schema/nodestate"
)

// beginTrust comes first: nodes must know a signer before they meet its states. If it cannot be
// done nothing is signed, but who is put out by the commit is told all the same: a signing key
// that was taken out must not keep a stolen token alive.
func (r *Reconciler) beginTrust(ctx context.Context, p *pass) error {
	p.untrusted = r.publishTrust(ctx)
	return nil
}

func (r *Reconciler) publishTrust(ctx context.Context) error {
	chain, err := trustdir.Load(r.cfg.TrustDir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; make the root of trust with 'selvedge keys root init'", err)
	}
	if err != nil {
		return fmt.Errorf("root of trust: %w", err)
	}
	r.fingerprint = chain.First.Fingerprint()
	if digest := digestOf(chain); digest != r.trust {
		if err := r.cfg.Publisher.PutTrust(ctx, chain.Docs); err != nil {
			return err
		}
		r.trust = digest
		r.cfg.Log.Info("trust published", "version", chain.Latest.Version(), "fingerprint", chain.First.Fingerprint())
	}
	// only now: that a key was taken out must reach the nodes, above all if it is this one
	if !chain.Signs(r.cfg.Signer.Hint()) {
		return fmt.Errorf("the signing key is not listed in root document %d of %s, so no node accepts its states; run with a key that is, or add this one with 'selvedge keys root rotate --add-signer'",
			chain.Latest.Version(), r.cfg.TrustDir)
	}
	return nil
}

// trustChanged reports whether the trust directory holds other documents than those
// that are published, or none that can be read, which a pass then tells.
func (r *Reconciler) trustChanged() bool {
	chain, err := trustdir.Load(r.cfg.TrustDir)
	return err != nil || digestOf(chain) != r.trust
}

func digestOf(c *trustdir.Chain) string { return nodestate.Digest(bytes.Join(c.Docs, nil)) }

// signedByFile remembers which key signed what is published: after a change of the key,
// equal content is signed anew.
const signedByFile = "signed-by.json"

type signedBy struct {
	Hint  string   `json:"hint"`            // of the key that signed every published state
	Older []string `json:"older,omitempty"` // but those of these nodes, which another one signed
}

func loadSignedBy(file string) (signedBy, error) {
	var s signedBy
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w; remove the file to start without it: then every state is signed anew, once", file, err)
	}
	return s, nil
}

func saveSignedBy(file string, s signedBy) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.Write(file, b, 0o600)
}
