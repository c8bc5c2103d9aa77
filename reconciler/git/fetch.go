package git

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"selvedge/internal/atomicfile"
)

const (
	maxHaves       = 256 // commits offered to the server to build on
	maxCredentials = 16 << 10
	maxCA          = 1 << 20
	// a server that lets one wait longer for its answer is taken for dead; a big
	// repository's pack takes a while to begin
	headerTimeout = 2 * time.Minute
)

// remote is one conversation with a server.
type remote struct {
	url     *url.URL
	session transport.UploadPackSession
	secrets []string // never to be shown
	left    *atomic.Int64
	close   func()
}

// dial reads credentials and CA and prepares the conversation; it does not connect yet.
func (s *Source) dial(u *url.URL) (*remote, error) {
	r := &remote{url: u, left: new(atomic.Int64)}
	r.left.Store(s.cfg.FetchBytes)
	ep, err := transport.NewEndpoint(u.String())
	if err != nil {
		return nil, &Error{Op: "read", What: "the address of the repository", Kind: ErrConfig, Why: "it is not understood"}
	}
	var auth transport.AuthMethod
	if s.cfg.CredentialsFile != "" {
		user, password, err := readCredentials(s.cfg.CredentialsFile)
		if err != nil {
			return nil, err
		}
		r.secrets = append(r.secrets, password)
		auth = &githttp.BasicAuth{Username: user, Password: password}
	}
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.ResponseHeaderTimeout = headerTimeout
	base.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.cfg.CAFile != "" {
		pem, err := readBounded(s.cfg.CAFile, maxCA)
		if err != nil {
			return nil, &Error{Op: "read", What: s.cfg.CAFile, Kind: ErrConfig, Why: err.Error(), Hint: "check the CA file", cause: err}
		}
		base.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !base.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &Error{Op: "read", What: s.cfg.CAFile, Kind: ErrConfig, Why: "it holds no certificate", Hint: "put the CA's certificate there as PEM"}
		}
	}
	client := &http.Client{Transport: boundedTransport{base, r.left}}
	// credentials stay with the host they are for: go-git drops them when a redirect leaves it
	r.session, err = githttp.NewClientWithOptions(client, &githttp.ClientOptions{RedirectPolicy: githttp.FollowInitialRedirects}).NewUploadPackSession(ep, auth)
	r.close = base.CloseIdleConnections
	return r, err
}

func readCredentials(name string) (user, password string, err error) {
	bad := func(why, hint string, cause error) (string, string, error) {
		return "", "", &Error{Op: "read", What: name, Kind: ErrConfig, Why: why, Hint: hint, cause: cause}
	}
	f, err := os.Open(name)
	if err != nil {
		return bad(err.Error(), "check the credentials file", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return bad("it is not a file", "check the credentials file", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return bad(fmt.Sprintf("others than its owner may read it (%v)", st.Mode().Perm()), "run chmod 600 on it", nil)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCredentials))
	if err != nil {
		return bad(err.Error(), "check the credentials file", err)
	}
	line := strings.TrimSpace(string(data))
	if line == "" || strings.ContainsAny(line, "\r\n") {
		return bad("it does not hold one line", `write "username:password" or a token`, nil)
	}
	user, password, ok := strings.Cut(line, ":")
	if !ok { // the hosts take any name beside a token
		user, password = "git", line
	}
	return user, password, nil
}

// boundedTransport stops a conversation that brings too many bytes.
type boundedTransport struct {
	next http.RoundTripper
	left *atomic.Int64
}

func (t boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.next.RoundTrip(req)
	if err == nil {
		res.Body = &boundedBody{res.Body, t.left}
	}
	return res, err
}

type boundedBody struct {
	io.ReadCloser
	left *atomic.Int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left.Load() < 0 {
		return 0, ErrTooLarge
	}
	n, err := b.ReadCloser.Read(p)
	b.left.Add(-int64(n))
	return n, err
}

// advertised asks the server where its branches are, and picks one.
func (r *remote) advertised(ctx context.Context, branch string) (adv *packp.AdvRefs, h plumbing.Hash, ref string, err error) {
	defer guardRemote(r.url.Redacted(), &err)
	if adv, err = r.session.AdvertisedReferencesContext(ctx); err != nil {
		return nil, h, "", err
	}
	name := branchRef(branch)
	if name != plumbing.HEAD {
		if h, ok := adv.References[name.String()]; ok {
			return adv, h, name.String(), nil
		}
		return nil, h, "", noBranch(r.url.Redacted(), name.Short(), branchNames(adv))
	}
	for _, sym := range adv.Capabilities.Get(capability.SymRef) {
		if to, ok := strings.CutPrefix(sym, "HEAD:"); ok {
			name = plumbing.ReferenceName(to)
		}
	}
	switch {
	case adv.Head == nil:
		return nil, h, "", noBranch(r.url.Redacted(), "HEAD", branchNames(adv))
	case !name.IsBranch() || !name.IsSafe():
		return adv, *adv.Head, "refs/heads/HEAD", nil // detached
	}
	return adv, *adv.Head, name.String(), nil
}

func branchNames(adv *packp.AdvRefs) (names []string) {
	for name := range adv.References {
		if short, ok := strings.CutPrefix(name, "refs/heads/"); ok {
			names = append(names, short)
		}
	}
	return names
}

// download brings the objects of a commit into the repository as a pack.
func (r *remote) download(ctx context.Context, adv *packp.AdvRefs, want plumbing.Hash, haves []plumbing.Hash, into string) (err error) {
	defer guardRemote(r.url.Redacted(), &err)
	req := packp.NewUploadPackRequestFromCapabilities(adv.Capabilities)
	req.Wants = []plumbing.Hash{want}
	req.Haves = haves
	if adv.Capabilities.Supports(capability.NoProgress) {
		if err := req.Capabilities.Set(capability.NoProgress); err != nil {
			return err
		}
	}
	res, err := r.session.UploadPack(ctx, req)
	if err != nil {
		return err
	}
	defer res.Close()
	var pack io.Reader = res
	switch {
	case req.Capabilities.Supports(capability.Sideband64k):
		pack = sideband.NewDemuxer(sideband.Sideband64k, res)
	case req.Capabilities.Supports(capability.Sideband):
		pack = sideband.NewDemuxer(sideband.Sideband, res)
	}
	return storePack(pack, filepath.Join(into, "objects", "pack"))
}

// storePack writes a pack and its index, durably: first the pack, then the index that
// makes it visible. go-git's own writer parses in a goroutine, where a panic on a damaged
// pack would end the process, and does not sync.
func storePack(pack io.Reader, dir string) (err error) {
	f, err := os.CreateTemp(dir, "tmp_pack_")
	if err != nil {
		return diskError("write", dir, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	buf := bufio.NewWriterSize(diskWriter{f}, 256<<10)
	if _, err = io.Copy(buf, pack); err == nil {
		err = buf.Flush()
	}
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return diskError("read", dir, err)
	}
	index := new(idxfile.Writer)
	parser, err := packfile.NewParser(packfile.NewScanner(f), index)
	if err != nil {
		return err
	}
	sum, err := parser.Parse()
	if err != nil {
		return err
	}
	table, err := index.Index()
	if err != nil {
		return err
	}
	var encoded bytes.Buffer
	if _, err := idxfile.NewEncoder(&encoded).Encode(table); err != nil {
		return err
	}
	base := filepath.Join(dir, "pack-"+sum.String())
	if err = f.Sync(); err == nil {
		err = os.Rename(f.Name(), base+".pack")
	}
	if err == nil {
		err = atomicfile.Write(base+".idx", encoded.Bytes(), 0o400)
	}
	if err != nil {
		return diskError("write", dir, err)
	}
	return nil
}

// diskWriter marks the errors of the disk among those of the network.
type diskWriter struct{ f *os.File }

func (w diskWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	if err != nil {
		err = diskError("write", w.f.Name(), err)
	}
	return n, err
}

// haves lists commits that the repository holds completely, newest first.
func (o *objects) haves(tip plumbing.Hash) (list []plumbing.Hash) {
	shallow := o.shallow()
	seen := map[plumbing.Hash]bool{tip: true}
	for todo := []plumbing.Hash{tip}; len(todo) > 0 && len(list) < maxHaves; todo = todo[1:] {
		if !o.has(todo[0]) {
			continue
		}
		c, err := o.commit(todo[0])
		if err != nil {
			continue
		}
		list = append(list, c.Hash)
		if shallow[c.Hash] {
			continue
		}
		for _, p := range c.ParentHashes {
			if !seen[p] {
				seen[p] = true
				todo = append(todo, p)
			}
		}
	}
	return list
}

// explain classes an error of a conversation, without the secrets in its text.
func (r *remote) explain(ctx context.Context, timeout time.Duration, err error) error {
	// go-git's wrappers do not unwrap by themselves
	var unexpected *plumbing.UnexpectedError
	var permanent *plumbing.PermanentError
	for errors.As(err, &unexpected) || errors.As(err, &permanent) {
		if unexpected != nil {
			err, unexpected = unexpected.Err, nil
		} else {
			err, permanent = permanent.Err, nil
		}
	}
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	e := &Error{Op: "fetch", What: r.url.Redacted(), Kind: ErrUnreachable, Why: r.scrub(err), cause: err,
		Hint: "check address, network and proxy; it is tried again, and " + hintStays}
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		status    *githttp.Err
		alert     tls.AlertError
	)
	switch {
	case r.left.Load() < 0:
		e.Kind, e.Why = ErrTooLarge, "the remote sends more than is allowed for one fetch"
		e.Hint = "raise the limit, or keep large files out of the repository"
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		e.Why = fmt.Sprintf("the fetch was not done after %s", timeout)
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("fetch %s: %w", r.url.Redacted(), context.Canceled)
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		e.Kind = ErrAuth
		e.Hint = "put valid credentials into the credentials file, which is read again at each fetch; " + hintStays
	case errors.Is(err, transport.ErrRepositoryNotFound):
		e.Kind = ErrNotRepository
		e.Hint = "check the address; hosts also hide a repository like this from credentials that may not read it"
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		e.Kind, e.Why, e.Hint = ErrEmpty, "", "push a first commit"
	case errors.As(err, &authority), errors.As(err, &host), errors.As(err, &invalid), errors.As(err, &verify), errors.As(err, &alert):
		e.Kind = ErrTLS
		e.Hint = "set the CA file to the CA of the server, and check the address and the clock; " + hintStays
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		e.Kind, e.Why, e.Hint = ErrTLS, "the server does not speak TLS on this port", "check the address"
	case errors.As(err, &status):
		if code := status.StatusCode(); code >= 400 && code < 500 && code != http.StatusTooManyRequests && code != http.StatusRequestTimeout {
			e.Kind, e.Hint = ErrProtocol, "check the address"
		}
	case !netError(err):
		e.Kind = ErrProtocol
		e.Hint = "check that the address is a Git repository's and not a web page's; " + hintStays
	}
	return e
}

// netError tells troubles of the wire from nonsense that came over it.
func netError(err error) bool {
	var u *url.Error
	var timeout interface{ Timeout() bool }
	return errors.As(err, &u) || errors.As(err, &timeout) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

// scrub bounds a text and takes the secrets out of it: servers may send back what they got.
func (r *remote) scrub(err error) string {
	text := err.Error()
	for _, secret := range r.secrets {
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			if form != "" {
				text = strings.ReplaceAll(text, form, "[hidden]")
			}
		}
	}
	return printable(text)
}
