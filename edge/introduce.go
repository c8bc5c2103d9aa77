package edge

import (
	"encoding/json"
	"os"
	"path/filepath"

	"selvedge/edge/identity"
	"selvedge/edge/measure"
	"selvedge/schema/wire"
)

// Introduce makes this machine's keys, if there are none, and returns the file by which a
// person can approve it without any link (wire.Introduction).
func Introduce(dir string) ([]byte, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := guarded(dir); err != nil {
		return nil, err
	}
	key, err := identity.LoadOrCreate(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	i := wire.Introduction{Format: wire.IntroductionFormat, PublicKey: key.Public(), Machine: measure.New(measure.Config{Dir: dir}).Machine()}
	if i.Recipient, err = identity.Recipient(filepath.Join(dir, ageFile)); err != nil {
		return nil, err
	}
	if i.Signature, err = key.Sign(i.Message()); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(i, "", "  ")
	return append(b, '\n'), err
}
