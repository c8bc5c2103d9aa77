package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"selvedge/edge/auth"
	"selvedge/edge/identity"
	"selvedge/edge/pull"
	"selvedge/internal/atomicfile"
	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
)

// Settings are what 'selvedge-edge init' or 'join' fixes about a node; they stand in agent.json
// of the agent's directory.
type Settings struct {
	Node            string `json:"node,omitempty"`     // empty: a hub has not let it in yet
	Registry        string `json:"registry,omitempty"` // https://host[:port]; http:// on loopback only; empty: the hub
	Prefix          string `json:"prefix,omitempty"`
	CAFile          string `json:"caFile,omitempty"`
	CredentialsFile string `json:"credentialsFile,omitempty"`
	AllowHTTP       bool   `json:"allowHTTP,omitempty"`
	Fingerprint     string `json:"fingerprint"` // of the first root document, which was pinned

	Hubs []string `json:"hubs,omitempty"` // https://host[:port], tried in turn
	// HubCA is a PEM file, in the agent's directory unless absolute. HubPin is sha256:… of a
	// certificate that the hub's goes back to, in its place. With neither: the system's certificates.
	HubCA  string `json:"hubCA,omitempty"`
	HubPin string `json:"hubPin,omitempty"`

	Code string `json:"code,omitempty"` // of the request to join
}

const (
	settingsFile = "agent.json"
	keyFile      = "identity/node.key"
	rootFile     = "trust.root.json" // the pinned document; later ones are in the store
)

// Init prepares a directory for a node: it makes the node's key, if there is none, and
// pins the root of trust. It returns the public key, which belongs into the node's
// identity in Git. A directory that was prepared for another node, or with another
// root, is left as it is.
func Init(dir string, s Settings, root []byte) (publicKey string, err error) {
	if err := s.check(); err != nil {
		return "", err
	}
	r, err := trust.Parse(root)
	if err != nil {
		return "", fmt.Errorf("%w; give 1.root.json of the platform's trust directory", err)
	}
	if s.Fingerprint != "" && s.Fingerprint != r.Fingerprint() {
		return "", fmt.Errorf("the root document has the fingerprint %s, but %s was asked for: it is not the one that was meant; compare with 'selvedge keys root show'", r.Fingerprint(), s.Fingerprint)
	}
	s.Fingerprint = r.Fingerprint()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := guarded(dir); err != nil {
		return "", err
	}
	before, err := loadSettings(dir)
	switch {
	case err == nil && before.Node == "":
		return "", fmt.Errorf("%s waits for a hub to let it in; use another directory, or remove this one to start over with a new key", dir)
	case err == nil && before.Node != s.Node:
		return "", fmt.Errorf("%s was set up for node %q; use another directory, or remove this one to start over with a new key", dir, before.Node)
	case err == nil && before.Fingerprint != s.Fingerprint:
		return "", fmt.Errorf("%s trusts the root %s already; a node's root changes only by signed root documents", dir, before.Fingerprint)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	key, err := identity.LoadOrCreate(filepath.Join(dir, keyFile))
	if err != nil {
		return "", err
	}
	if err := atomicfile.Write(filepath.Join(dir, rootFile), root, 0o600); err != nil {
		return "", err
	}
	// last: a directory with settings is complete
	return key.Public(), s.save(dir)
}

func (s Settings) save(dir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, settingsFile), append(b, '\n'), 0o600)
}

// guarded refuses a directory in which others could put a root of trust of their own.
func guarded(dir string) error {
	fi, err := os.Stat(dir)
	if err == nil && fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may write to %s (mode %#o); chmod go-w %[1]s", dir, fi.Mode().Perm())
	}
	return err
}

// ErrSettings marks settings that cannot be right.
var ErrSettings = errors.New("wrong setting")

func (s Settings) check() error {
	if !nodestate.ValidNode(s.Node) {
		return fmt.Errorf("%w: node name %q: want lower-case letters, digits and dashes, at most 63, a letter or digit first", ErrSettings, s.Node)
	}
	if len(s.Hubs) > 0 {
		if _, err := auth.New(auth.Config{Hubs: s.Hubs, Pin: s.HubPin}); err != nil {
			return fmt.Errorf("%w: %w", ErrSettings, err)
		}
		if s.Registry == "" {
			return nil
		}
	}
	c, err := pull.New(s.pull())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSettings, err)
	}
	c.Close()
	return nil
}

// client returns what asks the hubs.
func (s Settings) client(dir string, key *identity.Key, now func() time.Time) (*auth.Client, error) {
	var ca []byte
	if name := s.hubCA(dir); name != "" {
		var err error
		if ca, err = os.ReadFile(name); err != nil {
			return nil, fmt.Errorf("the hub's CA: %w", err)
		}
	}
	return auth.New(auth.Config{Hubs: s.Hubs, CA: ca, Pin: s.HubPin, PublicKey: key.Public(), Sign: key.Sign, Now: now})
}

// from names where states come from, for people.
func (s Settings) from() string {
	if s.Registry == "" && len(s.Hubs) > 0 {
		return s.Hubs[0]
	}
	return s.Registry
}

func (s Settings) pull() pull.Config {
	return pull.Config{
		Registry: s.Registry, Prefix: s.Prefix, Node: s.Node,
		CAFile: s.CAFile, CredentialsFile: s.CredentialsFile, AllowHTTP: s.AllowHTTP,
	}
}

// LoadSettings reads what Init wrote.
func LoadSettings(dir string) (Settings, error) {
	s, err := loadSettings(dir)
	if err == nil {
		err = guarded(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("%s is not set up: %w; run 'selvedge-edge join' or 'selvedge-edge init'", dir, err)
	}
	return s, err
}

func loadSettings(dir string) (Settings, error) {
	var s Settings
	name := filepath.Join(dir, settingsFile)
	b, err := os.ReadFile(name)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w; run 'selvedge-edge init' again", name, err)
	}
	return s, nil
}
