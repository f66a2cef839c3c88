package attack

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
)

// connecting are the attacks on the door.
var connecting = []Attack{
	{
		Number: 1, Name: "unknown key", Control: "nkey challenge", Row: "2",
		Does: "logs in with a key that no policy has", run: enters(unauthorised, func(*Rig) (opening, error) {
			key, err := nkeys.CreateUser()
			return opening{key: key}, err
		}),
	},
	{
		Number: 2, Name: "stolen public key", Control: "signature over the nonce", Row: "2",
		Does: "states the victim's public key, and signs with another", run: enters(unauthorised, func(*Rig) (opening, error) {
			key, err := nkeys.CreateUser()
			return opening{who: victim, key: key}, err
		}),
	},
	{
		Number: 3, Name: "no credential, user and password", Control: "no anonymous access, no passwords", Row: "2",
		Does: "logs in without anything, and with a user", run: enters(unauthorised,
			func(*Rig) (opening, error) { return opening{}, nil },
			func(*Rig) (opening, error) { return opening{members: `,"user":"victim","pass":"victim"`}, nil },
		),
	},
	{
		Number: 4, Name: "disabled principal", Control: "disabled, until", Row: "5",
		Does: "logs in as a principal that is disabled, and as one whose time is over", run: enters(unauthorised,
			func(*Rig) (opening, error) { return opening{who: disabled}, nil },
			func(*Rig) (opening, error) { return opening{who: lapsed}, nil },
		),
	},
	{
		Number: 5, Name: "ambiguous CONNECT", Control: "strict CONNECT", Row: "2/40",
		Does: "has members of CONNECT twice and in another case, so that two parsers read two", run: enters("Parser Error",
			func(*Rig) (opening, error) {
				return opening{who: attacker, members: `,"verbose":false,"Verbose":false,"name":"again"`}, nil
			},
		),
	},
	{Number: 6, Name: "second CONNECT", Control: "one connection is one principal", Row: "2", Does: "sends CONNECT twice on one connection", run: secondConnect},
	{Number: 7, Name: "bytes before TLS", Control: "TLS before everything", Row: "2", Does: "sends commands in the clear", run: beforeTLS},
	{
		Number: 8, Name: "expired certificate", Control: "client certificates", Row: "2",
		Does: "shows a certificate for the victim's name that ended yesterday, of an authority of its own", run: shows(func() (*tls.Certificate, error) {
			return forgedCertificate("spiffe://attack/victim", time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour))
		}, ""),
	},
	{
		Number: 9, Name: "certificate for another's name", Control: "client certificates", Row: "2",
		Does: "shows a certificate for the victim's name, of an authority of its own", run: shows(func() (*tls.Certificate, error) {
			return forgedCertificate("spiffe://attack/victim", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		}, ""),
	},
	{
		Number: 10, Name: "bad certificate beside a good key", Control: "nothing falls through", Row: "2",
		Does: "shows a forged certificate and proves a good key: the weaker proof must not win", run: shows(func() (*tls.Certificate, error) {
			return forgedCertificate("spiffe://attack/victim", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		}, attacker),
	},
	{
		Number: 11, Name: "token of another issuer", Control: "pinned issuers", Row: "2",
		Does: "shows a token for a service account, signed by a key of its own", run: enters(unauthorised, func(*Rig) (opening, error) { return forgedToken("ES256") }),
	},
	{
		Number: 12, Name: "token without a signature", Control: "list of algorithms", Row: "2",
		Does: "shows a token that says alg none", run: enters(unauthorised, func(*Rig) (opening, error) { return forgedToken("none") }),
	},
	{
		Number: 13, Name: "slow loris", Control: "a deadline inside each message", Row: "2/35",
		Does: "sends the head of a publish, then a byte a second, on one connection", long: true, run: loris,
	},
}

// unauthorised is what the broker says to every bad credential.
const unauthorised = "Authorization Violation"

// enters makes an attack of log-ins, each of which must be turned away with these words.
func enters(words string, list ...func(*Rig) (opening, error)) runner {
	return func(ctx context.Context, r *Rig) (Outcome, error) {
		var out Outcome
		for _, make := range list {
			o, err := make(r)
			if err != nil {
				return Outcome{}, err
			}
			c, err := r.open(ctx, o)
			if err == nil {
				_ = c.Close()
				return succeeded("logged in")
			}
			if out, err = turnedAway(err, words); err != nil {
				return out, err
			}
		}
		return out, nil
	}
}

// turnedAway is a refusal at the door, in the words of the control; that a broker has too
// much to do is none.
func turnedAway(err error, words ...string) (Outcome, error) {
	said, ok := isRefusal(err)
	if !ok || !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(said, w) }) {
		return Outcome{}, err
	}
	return refused(short(said), "turned away")
}

func secondConnect(ctx context.Context, r *Rig) (Outcome, error) {
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	line, err := r.connectLine(c, &opening{who: victim})
	if err != nil {
		return Outcome{}, err
	}
	if err := c.send(line); err != nil {
		return Outcome{}, err
	}
	errs, err := c.sync(ctx)
	switch {
	case err == nil:
		return succeeded("it was taken, and the connection goes on")
	case len(errs) > 0 && errors.Is(err, io.EOF):
		return refused(short(errs[len(errs)-1]), "the connection was ended")
	}
	return Outcome{}, err
}

func beforeTLS(ctx context.Context, r *Rig) (Outcome, error) {
	if r.tls == nil {
		return notApplicable("the port has no TLS")
	}
	c, err := r.dial(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	c.until(ctx, 10*time.Second)
	if err := c.send("CONNECT {\"verbose\":false}\r\nPUB attack.attacker.clear 1\r\nx\r\nPING\r\n"); err != nil {
		return Outcome{}, err
	}
	said := "connection ended"
	for {
		f, err := c.read()
		switch {
		case err == nil && f.verb == "PONG":
			return succeeded("commands in the clear were worked off")
		case err == nil && f.verb == "-ERR":
			said = short(strings.Trim(f.text, "'"))
		case errors.Is(err, os.ErrDeadlineExceeded):
			return Outcome{}, err
		case err != nil: // what is no INFO, -ERR or PONG is an alert of TLS, and the end
			well, werr := r.as(ctx, attacker)
			if werr != nil {
				return Outcome{}, werr
			}
			_ = well.Close()
			return refused(said, "nothing in the clear was worked off")
		}
	}
}

// shows logs in with a certificate, and with the key of who where there is one.
func shows(make func() (*tls.Certificate, error), who string) runner {
	return func(ctx context.Context, r *Rig) (Outcome, error) {
		if r.tls == nil {
			return notApplicable("the port has no TLS")
		}
		probe, err := r.open(ctx, opening{bare: true})
		if err != nil {
			return Outcome{}, err
		}
		_ = probe.Close()
		if !probe.asks {
			return notApplicable("no authority of clients is configured: the broker asks for no certificate, and none is sent")
		}
		cert, err := make()
		if err != nil {
			return Outcome{}, err
		}
		c, err := r.open(ctx, opening{who: who, cert: cert})
		if err == nil {
			_ = c.Close()
			return succeeded("logged in")
		}
		return turnedAway(err, unauthorised, "tls: ")
	}
}

// forgedCertificate makes a client certificate that says name, by an authority that
// nobody knows.
func forgedCertificate(name string, from, until time.Time) (*tls.Certificate, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := url.Parse(name)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signet attack"}, NotBefore: from.Add(-time.Hour), NotAfter: until.Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: until, URIs: []*url.URL{id},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return nil, err
	}
	root, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	return &tls.Certificate{Certificate: [][]byte{der, root}, PrivateKey: key}, err
}

// forgedToken makes a token that claims to be a service account's.
func forgedToken(alg string) (opening, error) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	now := time.Now().Unix()
	text := part(fmt.Sprintf(`{"alg":%q,"typ":"JWT","kid":"attack"}`, alg)) + "." +
		part(fmt.Sprintf(`{"iss":"https://attack.invalid","aud":"signet","sub":"system:serviceaccount:attack:victim","iat":%d,"nbf":%d,"exp":%d}`, now, now, now+600))
	sig := ""
	if alg != "none" {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return opening{}, err
		}
		sum := sha256.Sum256([]byte(text))
		a, b, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			return opening{}, err
		}
		sig = base64.RawURLEncoding.EncodeToString(append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...))
	}
	return opening{members: fmt.Sprintf(`,"auth_token":%q`, text+"."+sig)}, nil
}

// lorisFor is how long half a publish is kept open: the deadline of the gate is 10 s and
// one more for each 64 KiB.
const lorisFor = 20 * time.Second

func loris(ctx context.Context, r *Rig) (Outcome, error) {
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	c.until(ctx, 0)
	if err := c.send("PUB attack.attacker.loris 1000\r\n"); err != nil {
		return Outcome{}, err
	}
	gone := make(chan error, 1)
	go func() { // ends with the connection
		for {
			if _, err := c.read(); err != nil {
				gone <- err
				return
			}
		}
	}()
	drip, begun := time.NewTicker(time.Second), time.Now()
	defer drip.Stop()
	for time.Since(begun) < lorisFor {
		select {
		case <-drip.C:
			if _, err := c.Write([]byte("x")); err != nil {
				continue // gone says why
			}
		case err := <-gone:
			if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
				return Outcome{}, err
			}
			again, err := r.as(ctx, attacker) // the broker is well: it was the deadline
			if err != nil {
				return Outcome{}, err
			}
			_ = again.Close()
			return refused("connection ended", "after %s", time.Since(begun).Round(time.Second))
		case <-ctx.Done():
			return Outcome{}, ctx.Err()
		}
	}
	_ = c.Close()
	if err := <-gone; ctx.Err() != nil {
		return Outcome{}, err
	}
	return succeeded("half a publish is open for %s", lorisFor)
}
