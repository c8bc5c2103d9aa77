package hub

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"selvedge/reconciler/hub/api"
	"selvedge/reconciler/hub/audit"
	"selvedge/schema/nodestate"
)

// CA returns the certificate of the authority that the hub of a directory made, and its
// fingerprint for join lines.
func CA(dataDir string) (text []byte, fingerprint string, err error) {
	text, err = os.ReadFile(filepath.Join(dataDir, CertDir, "ca.crt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("%w: the hub of %s has made no authority: it never ran, or has its certificate from files", err, dataDir)
	}
	if err != nil {
		return nil, "", err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, "", fmt.Errorf("%s holds no certificate", filepath.Join(dataDir, CertDir, "ca.crt"))
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, "", err
	}
	return text, nodestate.Digest(c.Raw), nil
}

// VerifyAudit checks the audit log of a directory, and that heads which were kept elsewhere
// are in it.
func VerifyAudit(dataDir string, kept ...audit.Head) (audit.Report, error) {
	return audit.Verify(filepath.Join(dataDir, auditFile), kept...)
}

const auditFile = "audit.log"

// OpenAPI returns the document of the API.
func OpenAPI() ([]byte, error) { return api.OpenAPI() }
