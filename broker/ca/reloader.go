package ca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// checkEvery is how often, at most, a handshake looks at the certificate files.
const checkEvery = 5 * time.Second

// Reloader serves the certificate of a pair of files and picks up new files by
// itself: a handshake looks whether they changed, at most every five seconds. A
// pair that cannot be used is kept out, and the one in use stays.
type Reloader struct {
	certFile, keyFile string
	now               func() time.Time
	onError           func(error)

	current atomic.Pointer[tls.Certificate]
	checked atomic.Int64 // unix nanoseconds of the last look

	mu   sync.Mutex // held while files are read; handshakes do not wait for it
	seen [2]stamp   // of the files that were last read, used or not
}

// stamp tells one version of a file from another.
type stamp struct {
	size  int64
	mtime time.Time
	id    fs.FileInfo // for os.SameFile: a rename that kept size and time
}

// ServerTLS loads the pair. certFile holds the chain, leaf first.
//
// Errors: ErrKeyMode, ErrInvalid (also for an expired certificate or one that is
// not for servers), or what the file system said.
func ServerTLS(certFile, keyFile string) (*Reloader, error) {
	return newReloader(certFile, keyFile, time.Now)
}

func newReloader(certFile, keyFile string, now func() time.Time) (*Reloader, error) {
	r := &Reloader{certFile: certFile, keyFile: keyFile, now: now, onError: func(error) {}}
	if err := r.Reload(); err != nil {
		return nil, err
	}
	return r, nil
}

// OnError sets what is told when changed files cannot be used, once per version of
// the files. Set it before the first handshake. It must not block.
func (r *Reloader) OnError(f func(error)) { r.onError = f }

// Reload reads the files now, changed or not.
func (r *Reloader) Reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.readLocked()
}

func (r *Reloader) readLocked() error {
	r.seen = r.stamps()
	pair, err := loadPair(r.certFile, r.keyFile)
	if err != nil {
		return err
	}
	leaf := pair.Leaf
	switch now := r.now(); {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("%w: %s expired at %s", ErrInvalid, r.certFile, leaf.NotAfter.Format(time.RFC3339))
	case leaf.IsCA:
		return fmt.Errorf("%w: %s is a certificate authority, not a server", ErrInvalid, r.certFile)
	case len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return fmt.Errorf("%w: %s is not for servers", ErrInvalid, r.certFile)
	case len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0:
		return fmt.Errorf("%w: %s names no host (subject alternative names)", ErrInvalid, r.certFile)
	}
	r.current.Store(pair)
	return nil
}

func (r *Reloader) stamps() [2]stamp {
	var s [2]stamp
	for i, name := range []string{r.certFile, r.keyFile} {
		if info, err := os.Stat(name); err == nil {
			s[i] = stamp{info.Size(), info.ModTime(), info}
		}
	}
	return s
}

func same(a, b stamp) bool {
	if a.id == nil || b.id == nil {
		return a.id == nil && b.id == nil
	}
	return a.size == b.size && a.mtime.Equal(b.mtime) && os.SameFile(a.id, b.id)
}

// GetCertificate is for tls.Config.
func (r *Reloader) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := r.now().UnixNano()
	last := r.checked.Load()
	if now-last >= int64(checkEvery) && r.checked.CompareAndSwap(last, now) && r.mu.TryLock() {
		err := func() error {
			defer r.mu.Unlock()
			if s := r.stamps(); same(s[0], r.seen[0]) && same(s[1], r.seen[1]) {
				return nil
			}
			return r.readLocked()
		}()
		if err != nil {
			r.onError(err)
		}
	}
	cert := r.current.Load()
	if cert == nil {
		return nil, errors.New("ca: no certificate")
	}
	return cert, nil
}

// Expires is when the certificate in use ends.
func (r *Reloader) Expires() time.Time { return r.current.Load().Leaf.NotAfter }

// Config returns a new server configuration: TLS 1.3 only, the certificate of r,
// no client certificates, no session tickets (a ticket would outlive the
// certificate that was checked).
func (r *Reloader) Config() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         r.GetCertificate,
		SessionTicketsDisabled: true,
	}
}
