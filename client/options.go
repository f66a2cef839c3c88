package client

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing"
)

// Defaults and limits of a Client.
const (
	DefaultTimeout       = 5 * time.Second        // for calls whose context has no deadline
	DefaultMaxInFlight   = 1024                   // PublishAsync without an answer
	MaxMaxInFlight       = 65536                  // limit of WithMaxInFlight
	DefaultReconnectWait = 250 * time.Millisecond // before each try, plus up to as much jitter
	DefaultRetries       = 3                      // of Publish, after the first try
	DefaultRetryDelay    = 50 * time.Millisecond  // before the first retry; doubles
	MaxRetryDelay        = 2 * time.Second        // unless the broker asks for more
)

// An Option configures Connect. Options are applied in order; one that fails
// makes Connect fail with an error that wraps ErrInvalidOption or a file error.
type Option func(*config) error

// RetryPolicy says when Publish tries again: only where the rate limit was spent
// or the broker was not available, never past the deadline of the context, and
// always with the same event id.
type RetryPolicy struct {
	Retries int           // after the first try; 0: none; at most 100
	Delay   time.Duration // before the first retry, doubling up to MaxRetryDelay; default DefaultRetryDelay
}

// InvalidEvent is an event that was kept from a handler.
type InvalidEvent struct {
	NATSSubject string
	Stream      string // empty for SubscribeLive
	Sequence    uint64
	Err         error // from package signing, ErrDecryption, or what is malformed
	// Retried: the check could not be made, and is made again later; the event is held
	// back until then, or put back.
	Retried bool
}

type config struct {
	url         string
	name        string
	timeout     time.Duration
	maxInFlight int
	retry       RetryPolicy
	id          *identity         // nil: no nkey
	creds       credentials       // beside it
	producer    *signing.Producer // nil: events are not signed here
	encryption  *Encryption       // nil: payloads are not encrypted here
	decryption  *decrypter        // nil: encrypted payloads stay as they are
	tls         *tls.Config
	root        string
	keyringFile string
	// keyringMemory is the file of WithKeyringMemory.
	keyringMemory string
	reconnect     time.Duration
	onError       func(error)
	onInvalid     func(InvalidEvent)
	onState       func(connected bool, err error)
}

func defaultConfig(rawURL string) *config {
	return &config{
		url: rawURL, name: "signet-go", timeout: DefaultTimeout, maxInFlight: DefaultMaxInFlight,
		retry:     RetryPolicy{Retries: DefaultRetries, Delay: DefaultRetryDelay},
		tls:       &tls.Config{MinVersion: tls.VersionTLS13},
		reconnect: DefaultReconnectWait,
		onError:   func(error) {}, onInvalid: func(InvalidEvent) {}, onState: func(bool, error) {},
	}
}

// WithName sets the name of the connection, shown by the broker. Default
// "signet-go".
func WithName(name string) Option {
	return func(c *config) error {
		if name == "" || len(name) > 128 {
			return fmt.Errorf("%w: WithName: 1 to 128 bytes", ErrInvalidOption)
		}
		c.name = name
		return nil
	}
}

// WithNkeySeedFile authenticates with the user seed (SU...) in file, whose mode
// must not let others use it.
func WithNkeySeedFile(file string) Option {
	return func(c *config) error {
		id, err := loadIdentity(file)
		if err != nil {
			return err
		}
		c.setIdentity(id)
		return nil
	}
}

// WithNkey authenticates with a key that is held elsewhere. public is the user
// public key (U...); sign returns the raw Ed25519 signature of the nonce, and is
// called for nonces only.
func WithNkey(public string, sign func(nonce []byte) ([]byte, error)) Option {
	return func(c *config) error {
		if !nkeys.IsValidPublicUserKey(public) {
			return fmt.Errorf("%w: WithNkey: %q is not a user public key (U...)", ErrInvalidOption, public)
		}
		if sign == nil {
			return fmt.Errorf("%w: WithNkey: no sign function", ErrInvalidOption)
		}
		c.setIdentity(&identity{public: public, sign: sign, wipe: func() {}})
		return nil
	}
}

// WithTLSRoots trusts the PEM certificates in file instead of the system's. It is read
// again at each connect, so that authorities can change.
func WithTLSRoots(file string) Option {
	return func(c *config) error {
		pool, err := loadRoots(file)
		if err != nil {
			return err
		}
		c.tls.RootCAs, c.creds.roots = pool, file
		return nil
	}
}

// WithTLSConfig replaces the TLS configuration, which is copied. TLS 1.3 is the
// minimum, and InsecureSkipVerify is refused.
func WithTLSConfig(t *tls.Config) Option {
	return func(c *config) error {
		if t == nil {
			return fmt.Errorf("%w: WithTLSConfig: nil", ErrInvalidOption)
		}
		if t.InsecureSkipVerify {
			return fmt.Errorf("%w: WithTLSConfig: InsecureSkipVerify; trust the broker's CA with WithTLSRoots", ErrInvalidOption)
		}
		if t.MaxVersion != 0 && t.MaxVersion < tls.VersionTLS13 {
			return fmt.Errorf("%w: WithTLSConfig: TLS 1.3 is the minimum", ErrInvalidOption)
		}
		c.tls, c.creds.roots = t.Clone(), ""
		c.tls.MinVersion = tls.VersionTLS13
		return nil
	}
}

// WithRoot pins the root key (O...) that signs the keyring. It, or a context that
// has it, is required.
func WithRoot(public string) Option {
	return func(c *config) error {
		if !nkeys.IsValidPublicOperatorKey(public) {
			return fmt.Errorf("%w: WithRoot: %q is not an operator public key (O...)", ErrInvalidOption, public)
		}
		c.root = public
		return nil
	}
}

// WithKeyringFile reads the keyring from file instead of from the broker. It is
// read again before it expires and when an unknown key appears.
func WithKeyringFile(file string) Option {
	return func(c *config) error {
		if file == "" {
			return fmt.Errorf("%w: WithKeyringFile: no file", ErrInvalidOption)
		}
		c.keyringFile = file
		return nil
	}
}

// WithKeyringMemory keeps the newest keyring that was ever taken in file, which is made
// if it is missing, so that an older one is refused after a restart of the program too.
// A file that cannot be read, or is of another root key, makes Connect fail.
func WithKeyringMemory(file string) Option {
	return func(c *config) error {
		if file == "" {
			return fmt.Errorf("%w: WithKeyringMemory: no file", ErrInvalidOption)
		}
		c.keyringMemory = file
		return nil
	}
}

// WithContext takes URL, credential, roots, root key and keyring file from the
// context called name; the empty name is the selected context. A URL given to
// Connect, and options after this one, win over it.
func WithContext(name string) Option {
	return func(c *config) error {
		saved, err := LoadContext(name)
		if err != nil {
			return err
		}
		if c.url == "" {
			c.url = saved.URL
		}
		var opts []Option
		if saved.NkeySeedFile != "" {
			opts = append(opts, WithNkeySeedFile(saved.NkeySeedFile))
		}
		if saved.CertificateFile != "" || saved.KeyFile != "" {
			opts = append(opts, WithClientCertificate(saved.CertificateFile, saved.KeyFile))
		}
		if saved.TokenFile != "" {
			opts = append(opts, WithTokenFile(saved.TokenFile))
		}
		if saved.CAFile != "" {
			opts = append(opts, WithTLSRoots(saved.CAFile))
		}
		if saved.RootKey != "" {
			opts = append(opts, WithRoot(saved.RootKey))
		}
		if saved.KeyringFile != "" {
			opts = append(opts, WithKeyringFile(saved.KeyringFile))
		}
		for _, o := range opts {
			if err := o(c); err != nil {
				return fmt.Errorf("client: context %q: %w", saved.Name, err)
			}
		}
		return nil
	}
}

// WithTimeout bounds calls whose context has no deadline, and every answer to
// PublishAsync. Default DefaultTimeout, 100 ms to 10 min.
func WithTimeout(d time.Duration) Option {
	return func(c *config) error {
		if d < 100*time.Millisecond || d > 10*time.Minute {
			return fmt.Errorf("%w: WithTimeout: %v is not in 100ms to 10m", ErrInvalidOption, d)
		}
		c.timeout = d
		return nil
	}
}

// WithMaxInFlight bounds the publishes of PublishAsync that have no answer yet.
// Default DefaultMaxInFlight, at most MaxMaxInFlight.
func WithMaxInFlight(n int) Option {
	return func(c *config) error {
		if n < 1 || n > MaxMaxInFlight {
			return fmt.Errorf("%w: WithMaxInFlight: %d is not in 1 to %d", ErrInvalidOption, n, MaxMaxInFlight)
		}
		c.maxInFlight = n
		return nil
	}
}

// WithRetry sets when Publish tries again. Default: DefaultRetries times.
func WithRetry(p RetryPolicy) Option {
	return func(c *config) error {
		if p.Retries < 0 || p.Retries > 100 || p.Delay < 0 {
			return fmt.Errorf("%w: WithRetry: retries %d, delay %v", ErrInvalidOption, p.Retries, p.Delay)
		}
		if p.Delay == 0 {
			p.Delay = DefaultRetryDelay
		}
		c.retry = p
		return nil
	}
}

// WithReconnectWait sets the pause before each try to reconnect, to which up to
// as much jitter is added. Default DefaultReconnectWait, 1 ms to 1 min. The SDK
// tries for ever, unless the broker refuses the credential twice.
func WithReconnectWait(d time.Duration) Option {
	return func(c *config) error {
		if d < time.Millisecond || d > time.Minute {
			return fmt.Errorf("%w: WithReconnectWait: %v is not in 1ms to 1m", ErrInvalidOption, d)
		}
		c.reconnect = d
		return nil
	}
}

// WithErrorHandler gets errors that belong to no call: refusals of PublishLive,
// lost permissions, keyring refreshes that failed, pulls that were refused. It
// must not block. Default: none.
func WithErrorHandler(f func(error)) Option {
	return func(c *config) error {
		if f == nil {
			return fmt.Errorf("%w: WithErrorHandler: nil", ErrInvalidOption)
		}
		c.onError = f
		return nil
	}
}

// WithInvalidHandler gets every event that was kept from a handler because its
// attestation does not hold or cannot be checked, or it cannot be decrypted. It must not block. Default:
// none; Subscription.Stats counts them in any case.
func WithInvalidHandler(f func(InvalidEvent)) Option {
	return func(c *config) error {
		if f == nil {
			return fmt.Errorf("%w: WithInvalidHandler: nil", ErrInvalidOption)
		}
		c.onInvalid = f
		return nil
	}
}

// WithStateHandler is told when the connection is lost (with the cause, if it is
// known) and when it is back. It must not block. Default: none.
func WithStateHandler(f func(connected bool, err error)) Option {
	return func(c *config) error {
		if f == nil {
			return fmt.Errorf("%w: WithStateHandler: nil", ErrInvalidOption)
		}
		c.onState = f
		return nil
	}
}

func (c *config) setIdentity(id *identity) {
	if c.id != nil {
		c.id.wipe()
	}
	c.id = id
}

// WithEventKeyFile signs every event that is published with the event key in file,
// an nkeys user or account seed (SU..., SA...) that is not the one of the connection,
// and whose mode must not let others use it. The keyring of the broker must have the
// public half, as a producer key of this principal.
//
// Publish signs each event by itself; PublishAsync up to 32 together, for which an
// event waits at most MaxSignLinger. A signed event needs its content type: without
// one it is signed as application/octet-stream.
func WithEventKeyFile(file string) Option {
	return func(c *config) error {
		raw, err := readPrivate(file, maxSeedFileBytes)
		if err != nil {
			return fmt.Errorf("client: event key file: %w", err)
		}
		defer clear(raw)
		if c.producer, err = signing.NewProducer(bytes.TrimSpace(raw)); err != nil {
			return fmt.Errorf("%w: %s does not hold an event key: %w", ErrInvalidOption, file, err)
		}
		return nil
	}
}

// WithEventKey is WithEventKeyFile with the seed itself, which is not kept.
func WithEventKey(seed []byte) Option {
	return func(c *config) error {
		var err error
		if c.producer, err = signing.NewProducer(seed); err != nil {
			return fmt.Errorf("%w: WithEventKey: %w", ErrInvalidOption, err)
		}
		return nil
	}
}

// validate checks what no single option can, and splits the URL into servers.
func (c *config) validate() ([]string, error) {
	if c.root == "" {
		return nil, ErrNoRoot
	}
	if err := c.creds.validate(c.id); err != nil {
		return nil, err
	}
	c.creds.fault = c.onError
	if c.producer != nil && c.id != nil {
		// A server can have a client sign any nonce with its connection key.
		if same, err := nkeys.Encode(nkeys.PrefixByteUser, c.producer.Public()); err != nil || string(same) == c.id.public {
			return nil, fmt.Errorf("%w: the event key is the key of the connection: make another one, for events only", ErrInvalidOption)
		}
	}
	if c.url == "" {
		return nil, fmt.Errorf("%w: no URL", ErrInvalidOption)
	}
	var servers []string
	for s := range strings.SplitSeq(c.url, ",") {
		u, err := serverURL(strings.TrimSpace(s))
		if err != nil {
			return nil, err
		}
		servers = append(servers, u)
	}
	return servers, nil
}

func serverURL(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "tls://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%w: URL: %w", ErrInvalidOption, err)
	}
	switch {
	case u.User != nil: // not printed: it may be a password
		return "", fmt.Errorf("%w: URL has a credential in it; use WithNkeySeedFile", ErrInvalidOption)
	case u.Scheme != "tls" && u.Scheme != "nats":
		return "", fmt.Errorf("%w: URL scheme %q: use tls://host:port", ErrInvalidOption, u.Scheme)
	case u.Hostname() == "":
		return "", fmt.Errorf("%w: URL %q has no host", ErrInvalidOption, s)
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%w: URL %q has more than host and port", ErrInvalidOption, s)
	}
	u.Scheme = "tls" // nats:// is TLS too: there is no other way in
	return u.String(), nil
}
