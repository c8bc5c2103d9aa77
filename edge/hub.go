package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"selvedge/edge/auth"
	"selvedge/edge/mirror"
	"selvedge/edge/pull"
	"selvedge/edge/uplink"
	"selvedge/internal/atomicfile"
	"selvedge/internal/backoff"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// errRenamed ends a run whose node has another name than was thought.
var errRenamed = errors.New("the node's name was corrected")

// reasonName is the reason of a Refusal: the hub calls this node by another's name.
const reasonName = "name"

// hub is what an Agent has of a hub. The zero value: none.
type hub struct {
	client *auth.Client
	tokens *auth.Keeper
	link   *uplink.Uplink
	rename context.CancelCauseFunc // ends the run
	fresh  chan struct{}           // capacity 1: there is a new token
}

// openHub makes ready what the settings say of a hub; it dials nobody.
func (a *Agent) openHub() (err error) {
	if a.hub.client, err = a.settings.client(a.cfg.Dir, a.key, a.clock); err != nil {
		return err
	}
	a.hub.fresh = make(chan struct{}, 1)
	a.hub.tokens = auth.NewKeeper(a.hub.client, a.granted)
	link := uplink.New(uplink.Config{
		Node: a.settings.Node, Auth: a.hub.client, Tokens: a.hub.tokens, Sign: a.key.Sign,
		Status: a.Report, Granted: a.remote, Hands: hands{a},
		Notice: a.noticed, Linked: a.linked, Now: a.cfg.Now, Log: a.cfg.Log,
	})
	a.mu.Lock()
	a.hub.link = link
	a.mu.Unlock()
	return nil
}

// clock is for certificates: the later of the machine's clock and the last contact.
func (a *Agent) clock() time.Time {
	if a.store != nil {
		return a.store.Now()
	}
	return a.cfg.Now()
}

// granted looks at a new token before it is used. A node keeps the name that it has verified a
// state for: only before that may the hub correct it.
func (a *Agent) granted(g auth.Grant) error {
	if g.Node == a.settings.Node {
		a.mu.Lock()
		a.misnamed = nil
		a.mu.Unlock()
		select {
		case a.hub.fresh <- struct{}{}:
		default:
		}
		return nil
	}
	if a.store.Floor().Generation == 0 {
		s := a.settings
		s.Node = g.Node
		if err := s.save(a.cfg.Dir); err != nil {
			return fmt.Errorf("keep the name that the hub gives: %w", err)
		}
		a.cfg.Log.Warn("the hub says that this node has another name, and none was proven yet; taking it", "name", g.Node, "before", a.settings.Node)
		a.hub.rename(errRenamed)
		return errRenamed
	}
	err := fmt.Errorf("hub %s calls this node %q, and it is %q: the name stays, and nothing of that hub is used; is the node's public key at another name in Git?", g.Hub, g.Node, a.settings.Node)
	a.mu.Lock()
	was := a.misnamed
	r := &Refusal{Reason: reasonName, Message: err.Error(), Since: time.Now(), Count: 1}
	if was != nil && was.Message == r.Message {
		r.Since, r.Count = was.Since, was.Count+1
	}
	a.misnamed = r
	a.mu.Unlock()
	if was == nil {
		a.cfg.Log.Error("refused", "reason", reasonName, "error", err)
		a.event(wire.Event{Severity: "error", Reason: "Refused", Message: err.Error()})
	}
	return err
}

// access tells where states are pulled from: the hub that gave the token.
func (a *Agent) access(ctx context.Context, refused string) (pull.Access, error) {
	if refused != "" {
		a.hub.tokens.Stale(refused)
	}
	g, err := a.hub.tokens.Grant(ctx)
	if err != nil {
		return pull.Access{}, err
	}
	return pull.Access{Registry: g.Hub, Prefix: g.Prefix, Bearer: g.Bearer}, nil
}

// remote is what the hub may ask: what the state that is being run grants, as far as the newest
// one that was verified grants it, too. What was taken away is gone at once, and going back to an
// older state brings none of it back.
func (a *Agent) remote() nodestate.Remote {
	cur, _ := a.store.Current()
	return cur.Desired().Remote.And(a.store.Floor().Remote)
}

// connecting keeps the live connection. Whatever happens to it stops nothing else.
func (a *Agent) connecting(ctx context.Context) error {
	if a.hub.link == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return a.hub.link.Run(ctx)
}

// mirroring keeps the registry settings that lead image pulls through the hub.
func (a *Agent) mirroring(ctx context.Context) error {
	if a.cfg.HostsDir == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	if a.hub.tokens == nil {
		if err := mirror.Clear(a.cfg.HostsDir); err != nil { // of a hub that was there before: each pull would ask it first
			a.cfg.Log.Warn("registry settings of an earlier hub are still there", "directory", a.cfg.HostsDir, "error", err)
		}
		<-ctx.Done()
		return ctx.Err()
	}
	said := ""
	for {
		pause := time.Minute
		g, err := a.hub.tokens.Renewed(ctx, 0.8)
		if err == nil {
			err = a.mirror(g)
			pause = min(time.Minute, max(time.Second, g.For/20)) // another question may bring a new token meanwhile
		} else {
			pause = max(time.Second, a.hub.tokens.Soon())
			err = nil // it is told as the link's
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			a.cfg.Log.Warn("images may not come through the hub", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.hub.fresh: // the one before may have been refused
		case <-time.After(pause):
		}
	}
}

// mirror writes the settings for a token. A pinned certificate becomes a file: containerd knows no pins.
func (a *Agent) mirror(g auth.Grant) error {
	via := mirror.Via{Hub: g.Hub, CAFile: a.settings.hubCA(a.cfg.Dir), Bearer: g.Bearer}
	if ca := a.hub.client.CA(); via.CAFile == "" && ca != nil {
		via.CAFile = filepath.Join(a.cfg.Dir, hubCAFile)
		if before, err := os.ReadFile(via.CAFile); err != nil || !bytes.Equal(before, ca) {
			if err := atomicfile.Write(via.CAFile, ca, 0o600); err != nil {
				return fmt.Errorf("keep the hub's CA: %w", err)
			}
		}
	}
	return mirror.Write(a.cfg.HostsDir, via, g.Images)
}

// live reports whether a hub tells of changes.
func (a *Agent) live() bool { return a.hub.link != nil && a.hub.link.Link().Connected }

// noticed hears that there may be something new.
func (a *Agent) noticed(n wire.Notice) {
	if n.Trust {
		a.trustDue.Store(true)
	} else if n.Generation != 0 && n.Generation <= a.store.Floor().Generation {
		return
	}
	a.tidings()
}

// linked hears that the live connection came or went: what changed meanwhile was not told.
func (a *Agent) linked(up bool) {
	if up {
		a.tidings()
		return
	}
	time.AfterFunc(backoff.Jitter(a.cfg.Interval), a.tidings) // with the whole fleet, when a hub ends
}

func (a *Agent) tidings() {
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// event tells the hub of something that happened.
func (a *Agent) event(e wire.Event) {
	if a.hub.link != nil {
		a.hub.link.Event(e)
	}
}

// changed has the hub told soon, and has it lose what is not granted any more.
func (a *Agent) changed() {
	if a.hub.link != nil {
		a.hub.link.Changed()
	}
}

// Hub is how the node stands with its hubs.
type Hub struct {
	URLs      []string  `json:"urls"`
	Connected bool      `json:"connected"`
	Joining   bool      `json:"joining,omitempty"` // not let in yet
	Code      string    `json:"code,omitempty"`    // by which people find the request
	Error     string    `json:"error,omitempty"`   // why there is no connection
	Since     time.Time `json:"since,omitzero"`
	Streams   int       `json:"streams,omitempty"` // that people look at now
}

// hubStatus returns nil without a hub.
func (a *Agent) hubStatus() *Hub {
	if len(a.settings.Hubs) == 0 {
		return nil
	}
	h := &Hub{URLs: a.settings.Hubs, Joining: a.settings.Node == "", Code: a.settings.Code}
	if h.Joining {
		h.Error, h.Since = a.link.Error, a.link.Since
	} else {
		h.Code = ""
	}
	if a.ready.Load() {
		l := a.hub.link.Link()
		h.Connected, h.Error, h.Since, h.Streams = l.Connected, l.Why, l.Since, l.Streams
	}
	return h
}

const (
	ageFile   = "identity/age.key"
	hubCAFile = "hub-ca.pem"
)

// hubCA returns the CA file's whole name, or "".
func (s Settings) hubCA(dir string) string {
	if s.HubCA == "" || filepath.IsAbs(s.HubCA) {
		return s.HubCA
	}
	return filepath.Join(dir, s.HubCA)
}
