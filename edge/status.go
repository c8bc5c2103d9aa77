package edge

import (
	"os"
	"path/filepath"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/identity"
	"selvedge/edge/store"
	"selvedge/schema/wire"
)

// Status is what the agent knows of its node.
type Status struct {
	Node      string       `json:"node"`
	PublicKey string       `json:"publicKey"`
	Registry  string       `json:"registry"`
	Running   bool         `json:"running"` // the agent; false: what follows is from its files
	Link      Link         `json:"link,omitzero"`
	Refused   *Refusal     `json:"refused,omitempty"`
	Update    Update       `json:"update,omitzero"`
	Store     store.Status `json:"store"`
	Apply     apply.Status `json:"apply,omitzero"`
	Hub       *Hub         `json:"hub,omitempty"` // nil: the node has none
}

// Link is how the registry was last met.
type Link struct {
	Contact time.Time `json:"contact,omitzero"` // last answer
	Error   string    `json:"error,omitempty"`  // why there is no state, or no answer
	Since   time.Time `json:"since,omitzero"`   // of Error
}

// Refusal is an answer that was not believed, or could not be kept: an alarm.
type Refusal struct {
	Reason     string    `json:"reason"`
	Message    string    `json:"message"`
	Generation int64     `json:"generation,omitempty"`
	Digest     string    `json:"digest,omitempty"`
	Since      time.Time `json:"since"`
	Count      int       `json:"count"`
}

// Reasons of a Refusal beside those of verify.Reason.
const (
	reasonTrust = "trust" // root documents that prove nothing
	reasonStore = "store" // the disk does not take the state
)

// Well reports whether the node runs what is wanted, as far as it knows, in health, and would
// come back to it.
func (s Status) Well() bool {
	return s.Running && s.Store.Current != nil && s.Store.LastGood != nil && s.Store.LastGood.Digest == s.Store.Current.Digest && s.Apply.Healthy && s.Apply.RuntimeError == "" && s.Refused == nil && s.Store.Hold == nil &&
		s.Store.Current.Generation == s.Store.Floor.Generation
}

// Status returns what is known now.
func (a *Agent) Status() Status {
	a.mu.Lock()
	s := Status{Node: a.settings.Node, Registry: a.settings.from(), Running: true, Hub: a.hubStatus(), Link: a.link}
	if a.key != nil {
		s.PublicKey = a.key.Public()
	}
	ready, st, ap := a.ready.Load(), a.store, a.apply
	a.mu.Unlock()
	if !ready {
		return s // there is no store before there is a name
	}
	s.Store, s.Apply = st.Status(), ap.Status()
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Update = a.next
	if s.Update.Phase == "" {
		s.Update = a.now
	}
	if s.Update.Phase == "" {
		s.Update.Phase = Idle
	}
	refused := a.refused
	if refused == nil {
		refused = a.misnamed
	}
	if refused != nil {
		r := *refused
		s.Refused = &r
	}
	return s
}

// ReadStatus returns what the files of an agent tell that does not run.
func ReadStatus(dir string) (Status, error) {
	settings, key, err := load(dir)
	if err != nil {
		return Status{}, err
	}
	s := Status{Node: settings.Node, PublicKey: key.Public(), Registry: settings.from(), Store: store.Status{Node: settings.Node}}
	if len(settings.Hubs) > 0 {
		s.Hub = &Hub{URLs: settings.Hubs, Joining: settings.Node == "", Code: settings.Code}
	}
	if st, err := store.Read(filepath.Join(dir, storeDir), settings.Node, key.Public()); err == nil {
		s.Store = st // otherwise it never ran
	}
	return s, nil
}

// Hold keeps a node where it is, across restarts: nothing new is begun.
func Hold(dir, reason string) error {
	_, key, err := load(dir)
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, storeDir), 0o700) // a node may be held before it ever ran
	}
	if err != nil {
		return err
	}
	return store.Hold(filepath.Join(dir, storeDir), key, reason, time.Now())
}

// Release ends a hold, and has the agent try again what failed here.
func Release(dir string) error {
	settings, key, err := load(dir)
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, storeDir), 0o700)
	}
	if err != nil {
		return err
	}
	return store.Release(filepath.Join(dir, storeDir), settings.Node, key)
}

func load(dir string) (Settings, *identity.Key, error) {
	settings, err := LoadSettings(dir)
	if err != nil {
		return Settings{}, nil, err
	}
	key, err := identity.Load(filepath.Join(dir, keyFile))
	return settings, key, err
}

// contact notes an answer; why is set if it held no state.
func (a *Agent) contact(why error) {
	if err := a.store.Contact(); err != nil {
		a.cfg.Log.Warn("note the time of contact", "error", err)
	}
	a.mu.Lock()
	was := a.link
	a.link = Link{Contact: time.Now()}
	if why != nil {
		a.link.Error, a.link.Since = why.Error(), since(was, why)
	}
	a.mu.Unlock()
	switch {
	case why != nil && was.Error != why.Error():
		a.cfg.Log.Warn("no state for this node", "error", why)
	case why == nil && was.Error != "":
		a.cfg.Log.Info("the registry answers again")
	}
}

// lost notes that there was no answer, and says it once.
func (a *Agent) lost(why error) {
	a.mu.Lock()
	was := a.link
	a.link.Error, a.link.Since = why.Error(), since(was, why)
	a.mu.Unlock()
	if was.Error != why.Error() {
		a.cfg.Log.Warn("no answer from the registry; running on", "error", why)
	}
}

func since(was Link, why error) time.Time {
	if was.Error == why.Error() {
		return was.Since
	}
	return time.Now()
}

// alarm notes a refusal, or with nil that all is well, and logs each once.
func (a *Agent) alarm(r *Refusal) {
	a.mu.Lock()
	was := a.refused
	if r != nil {
		r.Since, r.Count = time.Now(), 1
		if was != nil && was.Message == r.Message {
			r.Since, r.Count = was.Since, was.Count+1
		}
	}
	a.refused = r
	a.mu.Unlock()
	if r != nil {
		a.counts.refusals.Add(1)
	}
	if r != nil && (was == nil || was.Message != r.Message) {
		a.event(wire.Event{Severity: "error", Reason: "Refused", Generation: r.Generation, Message: r.Message})
		a.cfg.Log.Error("refused", "reason", r.Reason, "generation", r.Generation, "error", r.Message)
	}
}

// calm ends an alarm of that reason.
func (a *Agent) calm(reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused != nil && a.refused.Reason == reason {
		a.refused = nil
	}
}
