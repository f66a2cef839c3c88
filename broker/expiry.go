package broker

import (
	"time"

	"github.com/signetbus/signet/broker/ca"
)

// warnBefore is when an end is near: that, or the last third of a short life.
const warnBefore = 30 * 24 * time.Hour

// expiryLog warns once a day of certificates and authorities that end soon. The zero
// value is ready. Not safe for concurrent use.
type expiryLog struct{ said map[string]time.Time }

// report looks at the files that are in use.
func (e *expiryLog) report(b *Broker, now time.Time) {
	if e.said == nil {
		e.said = make(map[string]time.Time)
	}
	files := append([]string{b.cfg.TLS.Certificate}, authorityFiles(&b.cfg.Authentication)...)
	if c := b.cfg.Cluster; c != nil {
		files = append(files, c.TLS.Certificate, c.TLS.CA)
	}
	for _, file := range files {
		certs, err := ca.ReadAll(file)
		if err != nil {
			continue // a key or a set of keys; what is wrong with it, a reload says
		}
		for _, c := range certs {
			left := c.NotAfter.Sub(now)
			if left > min(warnBefore, c.NotAfter.Sub(c.NotBefore)/3) {
				continue
			}
			key := file + " " + c.SerialNumber.String()
			if now.Sub(e.said[key]) < 24*time.Hour {
				continue
			}
			e.said[key] = now
			b.log.Warn().Str("file", file).Str("subject", c.Subject.CommonName).Time("not_after", c.NotAfter).
				Msg("a certificate ends soon: signet ca renew, or bring a new one; the file is read again by itself")
		}
	}
}
