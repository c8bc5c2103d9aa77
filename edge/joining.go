package edge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"selvedge/edge/auth"
	"selvedge/edge/identity"
	"selvedge/edge/join"
	"selvedge/edge/measure"
	"selvedge/edge/store"
	"selvedge/internal/atomicfile"
	"selvedge/internal/backoff"
	"selvedge/internal/control"
	"selvedge/schema/wire"
)

// JoinOptions are what a join line says.
type JoinOptions struct {
	Hubs        []string
	Token       string
	Pin         string // sha256:… of a certificate that the hub's goes back to
	CAFile      string // PEM, in place of Pin; with neither, the system's certificates
	Fingerprint string // of the root of trust
	Now         func() time.Time

	// Patience is how long to ask again while hubs are busy or away; 0: not at all, less: without
	// end. Delayed, if not nil, hears of each time.
	Patience time.Duration
	Delayed  func(err error, pause time.Duration)
}

// Joined is how far joining is.
type Joined struct {
	Node      string // let in, under this name
	Code      string // waits, under this code; "" with no Node: under one that was lost on the way
	PublicKey string
}

// Join prepares a directory for a node that a hub lets in, and asks it to. It may be called
// again, after whatever happened: keys are made once, and a request that was heard is not made twice.
func Join(ctx context.Context, dir string, o JoinOptions) (Joined, error) {
	retry := backoff.Backoff{Max: 30 * time.Second}
	for end := time.Now().Add(o.Patience); ; {
		j, err := joinOnce(ctx, dir, o)
		after, passing := auth.Passing(err)
		pause := after + retry.Next()
		if !passing || ctx.Err() != nil || o.Patience >= 0 && time.Now().Add(pause).After(end) {
			return j, err
		}
		if o.Delayed != nil {
			o.Delayed(err, pause)
		}
		select {
		case <-ctx.Done():
			return j, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func joinOnce(ctx context.Context, dir string, o JoinOptions) (Joined, error) {
	before, err := loadSettings(dir)
	known := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Joined{}, err
	}
	if known {
		if err := guarded(dir); err != nil {
			return Joined{}, err
		}
		if before.Fingerprint != o.Fingerprint {
			return Joined{}, fmt.Errorf("%s trusts the root %s already; a node's root changes only by signed root documents", dir, before.Fingerprint)
		}
	}
	at, root, ca, err := o.look(ctx)
	if err != nil {
		return Joined{}, err
	}
	s := before // a node that was set up before keeps all but its way to the hub
	s.Hubs, s.HubCA, s.HubPin, s.Fingerprint = at.Hubs, at.HubCA, "", at.Fingerprint
	key, recipient, err := s.prepare(dir, root, ca)
	if err != nil {
		return Joined{}, err
	}
	client, err := s.client(dir, key, o.Now)
	if err != nil {
		return Joined{}, err
	}
	defer client.Close()
	j := Joined{Node: s.Node, PublicKey: key.Public()}
	if proven, err := s.proven(dir, key); err != nil {
		return j, err
	} else if proven {
		return j, s.still(ctx, client, key)
	}
	out, err := join.Ask(ctx, client, wire.JoinRequest{Token: o.Token, Recipient: recipient, Machine: measure.New(measure.Config{Dir: dir}).Machine()}, known)
	if err != nil {
		return Joined{PublicKey: key.Public()}, err
	}
	if out.Code != "" {
		s.Code = out.Code
	}
	s.Node = out.Node
	return Joined{Node: s.Node, Code: s.Code, PublicKey: key.Public()}, s.save(dir)
}

// proven reports whether a state was verified under the node's name; then the name stays.
func (s Settings) proven(dir string, key *identity.Key) (bool, error) {
	if s.Node == "" {
		return false, nil
	}
	held, err := store.Read(filepath.Join(dir, storeDir), s.Node, key.Public())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return held.Floor.Generation > 0, err
}

// still asks whether the node is let in under the name that it has.
func (s Settings) still(ctx context.Context, client *auth.Client, key *identity.Key) error {
	g, err := client.Token(ctx)
	switch {
	case err == nil && g.Node == s.Node:
		return nil
	case err == nil:
		return fmt.Errorf("hub %s calls this node %q, and it is %q: the name stays; is the node's public key %s at another name in Git?", g.Hub, g.Node, s.Node, key.Public())
	case join.Is(err, wire.ProblemUnknownNode), join.Is(err, wire.ProblemPending):
		return fmt.Errorf("%w; this machine was node %q, and only that. To let it in again, put its key %s back into Git, by a revert, or by 'selvedge-edge introduce' here and 'selvedge node approve --file' there with --name %s. To begin anew, join with another directory (--dir)",
			err, s.Node, key.Public(), s.Node)
	}
	return err
}

// look finds out what is to be pinned. Nothing is written before it is known to be right.
func (o JoinOptions) look(ctx context.Context) (s Settings, root, ca []byte, err error) {
	if len(o.Hubs) == 0 || o.Token == "" || !auth.ValidPin(o.Fingerprint) {
		return s, nil, nil, fmt.Errorf("%w: a hub, a token and the root's fingerprint (sha256:…) are needed", ErrSettings)
	}
	if o.CAFile != "" {
		if ca, err = os.ReadFile(o.CAFile); err != nil {
			return s, nil, nil, fmt.Errorf("the hub's CA: %w", err)
		}
	}
	client, err := auth.New(auth.Config{Hubs: o.Hubs, CA: ca, Pin: o.Pin, Now: o.Now})
	if err != nil {
		return s, nil, nil, fmt.Errorf("%w: %w", ErrSettings, err)
	}
	defer client.Close()
	if root, err = join.Root(ctx, client, o.Fingerprint); err != nil {
		return s, nil, nil, err
	}
	s = Settings{Hubs: client.Hubs(), Fingerprint: o.Fingerprint}
	if ca = client.CA(); ca != nil {
		s.HubCA = hubCAFile
	}
	return s, root, ca, nil
}

// prepare makes the keys, if there are none, and writes what was pinned; the settings last: a
// directory that has them is complete.
func (s Settings) prepare(dir string, root, ca []byte) (*identity.Key, string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	if err := guarded(dir); err != nil {
		return nil, "", err
	}
	key, err := identity.LoadOrCreate(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, "", err
	}
	recipient, err := identity.Recipient(filepath.Join(dir, ageFile))
	if err != nil {
		return nil, "", err
	}
	if err := atomicfile.Write(filepath.Join(dir, rootFile), root, 0o600); err != nil {
		return nil, "", err
	}
	if s.HubCA != "" {
		if err := atomicfile.Write(filepath.Join(dir, hubCAFile), ca, 0o600); err != nil {
			return nil, "", err
		}
	}
	return key, recipient, s.save(dir)
}

// Ask asks a hub once whether this node was let in, and keeps the name if so.
func Ask(ctx context.Context, dir string) (Joined, error) {
	s, key, err := load(dir)
	if err != nil {
		return Joined{}, err
	}
	j := Joined{Node: s.Node, Code: s.Code, PublicKey: key.Public()}
	if s.Node != "" {
		return j, nil
	}
	client, err := s.client(dir, key, nil)
	if err != nil {
		return j, err
	}
	defer client.Close()
	g, err := client.Token(ctx)
	if err != nil {
		return j, err
	}
	s.Node, j.Node = g.Node, g.Node
	return j, s.save(dir)
}

// joining waits until a hub lets this node in.
func (a *Agent) joining(ctx context.Context) error {
	unlock, err := alone(a.cfg.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	inner, stop := context.WithCancel(ctx)
	served := make(chan struct{})
	go func() {
		defer close(served)
		a.answering(inner)
	}()
	defer func() { stop(); <-served }()
	a.cfg.Log.Info("waiting to be let in", "code", a.settings.Code, "publicKey", a.key.Public())
	retry := backoff.Backoff{Min: 2 * time.Second, Max: 2 * time.Minute}
	for {
		j, err := Ask(ctx, a.cfg.Dir)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			a.mu.Lock()
			a.settings.Node, a.link = j.Node, Link{}
			a.mu.Unlock()
			a.cfg.Log.Info("let in", "node", j.Node)
			return nil
		}
		pause := backoff.Jitter(a.cfg.Interval)
		if join.Is(err, wire.ProblemPending) {
			retry.Reset()
			next := "selvedge node approve " + a.settings.Code
			if a.settings.Code == "" {
				next = "selvedge node pending"
			}
			err = fmt.Errorf("%w: it waits for approval: %s", err, next)
		} else if pause = retry.Next(); join.Is(err, wire.ProblemUnknownNode) {
			err = fmt.Errorf("%w: the request was dropped, or never heard; run 'selvedge-edge join' again with a new token, or put the public key into Git", err)
		}
		a.lost(err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.wake:
		case <-a.news:
		case <-time.After(pause):
		}
	}
}

// alone keeps a second agent out of a directory that has no store yet.
func alone(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "joining.lock"), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use; is selvedge-edge running already?", filepath.Join(dir, control.Socket))
	}
	return func() { f.Close() }, nil
}
