package broker

import (
	"slices"
	"time"

	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/ops"
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

// routeMetrics says when the certificate of a node for its routes ends, and the last of the
// authorities that it takes there, as the files have them; nothing of a file that cannot be
// read, which the log tells.
func routeMetrics(b *Broker) []ops.Source {
	c := b.cfg.Cluster
	if c == nil {
		return nil
	}
	gauge := func(name, help, file string, end func([]time.Time) time.Time) ops.Source {
		return ops.Source{Name: name, Help: help, Kind: ops.Gauge, Read: func(emit func(float64, ...string)) {
			certs, err := ca.ReadAll(file)
			if err != nil || len(certs) == 0 {
				return
			}
			ends := make([]time.Time, len(certs))
			for i, cert := range certs {
				ends[i] = cert.NotAfter
			}
			emit(float64(end(ends).Unix()))
		}}
	}
	return []ops.Source{
		gauge("signet_route_certificate_expiry_seconds", "Unix time at which the certificate of the routes expires.", c.TLS.Certificate,
			func(ends []time.Time) time.Time { return ends[0] }), // its own; those behind it are of authorities
		gauge("signet_route_ca_expiry_seconds", "Unix time at which the last authority of the routes expires.", c.TLS.CA,
			func(ends []time.Time) time.Time { return slices.MaxFunc(ends, time.Time.Compare) }),
	}
}
