package ca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Trusted are the authorities of a file that is read again when it changes: whoever
// asks looks, at most every five seconds. A file that cannot be used is kept out, and
// what was read before stays. Safe for concurrent use; it starts no goroutine.
type Trusted struct {
	file    string
	onError func(error)

	current atomic.Pointer[Roots]
	checked atomic.Int64 // unix nanoseconds of the last look

	mu   sync.Mutex // held while the file is read; who asks does not wait for it
	seen stamp      // of the file that was last read, used or not
}

// TrustFile reads the authorities in file.
//
// Errors: those of LoadRoots.
func TrustFile(file string) (*Trusted, error) {
	t := &Trusted{file: file, onError: func(error) {}}
	if err := t.Reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// OnError sets what is told when the changed file cannot be used, once per version of
// it. Set it before the first use. It must not block.
func (t *Trusted) OnError(f func(error)) { t.onError = f }

// Reload reads the file now, changed or not.
func (t *Trusted) Reload() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.readLocked()
}

func (t *Trusted) readLocked() error {
	t.seen = t.stamp()
	roots, err := LoadRoots(t.file)
	if err != nil {
		return err
	}
	t.current.Store(roots)
	return nil
}

func (t *Trusted) stamp() stamp {
	info, err := os.Stat(t.file)
	if err != nil {
		return stamp{}
	}
	return stamp{info.Size(), info.ModTime(), info}
}

// Roots returns the authorities in force.
func (t *Trusted) Roots() *Roots {
	now, last := time.Now().UnixNano(), t.checked.Load()
	if now-last >= int64(checkEvery) && t.checked.CompareAndSwap(last, now) && t.mu.TryLock() {
		err := func() error {
			defer t.mu.Unlock()
			if same(t.stamp(), t.seen) {
				return nil
			}
			return t.readLocked()
		}()
		if err != nil {
			t.onError(err)
		}
	}
	return t.current.Load()
}

// verify checks the chain of the other end of a connection. host is what was dialled,
// empty for who was dialled.
func (t *Trusted) verify(cs tls.ConnectionState, host string, usage x509.ExtKeyUsage) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("ca: the other end shows no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: t.Roots().Pool, Intermediates: between, DNSName: host, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	return err
}
