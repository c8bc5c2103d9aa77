package bus

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/nats-io/nuid"

	"selvedge/internal/atomicfile"
)

// keysFile is the one file of the keys' folder, which is the same for all hubs of a cluster.
const keysFile = "bus.json"

// keyFile is what it holds: seeds, and the JWTs of what seldom changes. The account's JWT is
// the first one: servers keep newer ones, with revocations.
type keyFile struct {
	Operator   string `json:"operator"`
	System     string `json:"system"`
	Account    string `json:"account"`
	Signer     string `json:"signer"`
	Routes     string `json:"routes"` // password among servers of a cluster
	OperatorID string `json:"operatorJWT"`
	SystemID   string `json:"systemJWT"`
	AccountID  string `json:"accountJWT"`
}

// keys are those of operator, system account, account and the account's signing key.
type keys struct {
	operator, system, account, signer nkeys.KeyPair

	operatorJWT, systemJWT, accountJWT string
	operatorID, systemID, accountID    string // public keys
	signerID                           string
	routes                             string
}

// loadKeys reads the keys in dir, or makes them if dir has none.
func loadKeys(dir string) (*keys, error) {
	if err := ensureDir(dir); err != nil {
		return nil, fmt.Errorf("bus keys: %w", err)
	}
	name := filepath.Join(dir, keysFile)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = makeKeys(); err == nil {
			err = atomicfile.Write(name, data, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("bus keys: %w", err)
	}
	if info, err := os.Stat(name); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("bus keys: %s may be read by others (mode %04o); its holder can be any node: chmod 600 it", name, info.Mode().Perm())
	}
	k, err := parseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("bus keys: %s: %w; restore it from a backup or copy it from another hub", name, err)
	}
	return k, nil
}

func parseKeys(data []byte) (*keys, error) {
	var f keyFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	k := &keys{operatorJWT: f.OperatorID, systemJWT: f.SystemID, accountJWT: f.AccountID, routes: f.Routes}
	ids := make([]string, 4)
	for i, p := range []struct {
		name, seed string
		prefix     nkeys.PrefixByte
		to         *nkeys.KeyPair
	}{
		{"operator", f.Operator, nkeys.PrefixByteOperator, &k.operator},
		{"system", f.System, nkeys.PrefixByteAccount, &k.system},
		{"account", f.Account, nkeys.PrefixByteAccount, &k.account},
		{"signer", f.Signer, nkeys.PrefixByteAccount, &k.signer},
	} {
		prefix, _, err := nkeys.DecodeSeed([]byte(p.seed))
		if err != nil || prefix != p.prefix {
			return nil, fmt.Errorf("%s is no seed of its kind", p.name)
		}
		if *p.to, err = nkeys.FromSeed([]byte(p.seed)); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if ids[i], err = (*p.to).PublicKey(); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	k.operatorID, k.systemID, k.accountID, k.signerID = ids[0], ids[1], ids[2], ids[3]
	op, err := jwt.DecodeOperatorClaims(k.operatorJWT)
	if err != nil || op.Subject != ids[0] || op.SystemAccount != k.systemID {
		return nil, errors.New("operatorJWT does not fit the seeds")
	}
	for what, want := range map[string][2]string{"systemJWT": {k.systemJWT, k.systemID}, "accountJWT": {k.accountJWT, k.accountID}} {
		if a, err := jwt.DecodeAccountClaims(want[0]); err != nil || a.Subject != want[1] || a.Issuer != ids[0] {
			return nil, fmt.Errorf("%s does not fit the seeds", what)
		}
	}
	if k.routes == "" {
		return nil, errors.New("routes is empty")
	}
	return k, nil
}

func makeKeys() ([]byte, error) {
	var f keyFile
	var pairs [5]nkeys.KeyPair
	var ids [5]string
	for i, p := range []struct {
		create func() (nkeys.KeyPair, error)
		to     *string
	}{
		{nkeys.CreateOperator, &f.Operator},
		{nkeys.CreateAccount, &f.System},
		{nkeys.CreateAccount, &f.Account},
		{nkeys.CreateAccount, &f.Signer},
		{nkeys.CreateUser, &f.Routes}, // 256 random bits as text
	} {
		kp, err := p.create()
		if err != nil {
			return nil, err
		}
		seed, err := kp.Seed()
		if err != nil {
			return nil, err
		}
		*p.to, pairs[i] = string(seed), kp
		if ids[i], err = kp.PublicKey(); err != nil {
			return nil, err
		}
	}
	op := jwt.NewOperatorClaims(ids[0])
	op.Name = "selvedge"
	op.SystemAccount = ids[1]
	sys := jwt.NewAccountClaims(ids[1])
	sys.Name = "system"
	acc := jwt.NewAccountClaims(ids[2])
	acc.Name = "fleet"
	acc.SigningKeys.Add(ids[3])
	acc.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: maxDisk, MemoryStorage: maxMemory, Streams: 64, Consumer: 10000}
	var errs [3]error
	f.OperatorID, errs[0] = op.Encode(pairs[0])
	f.SystemID, errs[1] = sys.Encode(pairs[0])
	f.AccountID, errs[2] = acc.Encode(pairs[0])
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return json.MarshalIndent(f, "", "  ")
}

// own authenticates a connection of the hub itself, in the fleet's account or the system's.
// Its key lives as long as the process; revoked tells of when all JWTs are revoked, for a newer one.
func (k *keys) own(name string, system bool, revoked func(key string) int64) (nats.Option, error) {
	kp, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	id, err := kp.PublicKey()
	if err != nil {
		return nil, err
	}
	return nats.UserJWT(func() (string, error) {
		u := jwt.NewUserClaims(id)
		u.Name = name
		if system {
			return u.Encode(k.system)
		}
		u.IssuerAccount = k.accountID
		return issue(u, k.signer, revoked(id)+1)
	}, kp.Sign), nil
}

// issue signs claims as issued now, or at that Unix time if it is later. Servers compare only
// when things were issued, with each other: a clock that was wrong, or is, must not make what
// is newer look older.
func issue(c jwt.Claims, by nkeys.KeyPair, atLeast int64) (string, error) {
	text, err := c.Encode(by) // fills in all that the library wants, and its own idea of now
	if err != nil {
		return "", err
	}
	data := c.Claims()
	data.IssuedAt = max(time.Now().Unix(), atLeast)
	data.ID = nuid.Next() // the library's is the same for all of a second
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	header, _, _ := strings.Cut(text, ".")
	text = header + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := by.Sign([]byte(text))
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
