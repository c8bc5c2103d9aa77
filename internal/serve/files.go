package serve

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Files returns what serves the certificate of two PEM files: the chain and its key. They are
// looked at once a second at most, when somebody dials; while they cannot be read, as in the
// middle of a replacement, the one before stays in use. At the start that is an error.
func Files(cert, key string, log *slog.Logger) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	if log == nil {
		log = slog.Default()
	}
	k := &keyPair{cert: cert, key: key, log: log}
	_, err := k.get(nil)
	return k.get, err
}

// keyPair is a certificate that is read again when its files change.
type keyPair struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamp   [2]stamp
	pair    *tls.Certificate
}

type stamp struct {
	time time.Time
	size int64
}

func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pair != nil && time.Since(k.checked) < time.Second {
		return k.pair, nil
	}
	k.checked = time.Now()
	var now [2]stamp
	for i, name := range []string{k.cert, k.key} {
		if info, err := os.Stat(name); err == nil {
			now[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	if k.pair != nil && now == k.stamp {
		return k.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	if err == nil {
		k.pair, k.stamp = &pair, now
		return k.pair, nil
	}
	err = fmt.Errorf("load certificate: %w", err)
	if k.pair == nil {
		return nil, err
	}
	k.log.Warn("the old certificate stays in use", "error", err)
	return k.pair, nil
}
