package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/audit"
	"github.com/signetbus/signet/broker/diskguard"
	"github.com/signetbus/signet/internal/strictyaml"
)

// Durability is when an acknowledgement is released.
type Durability string

// The durability modes.
const (
	// DurabilityBarrier holds acknowledgements until one syncfs of the store's
	// volume that began after they were made. Linux only; the default there.
	DurabilityBarrier Durability = "barrier"
	// DurabilitySyncAlways makes the store sync each write. The default elsewhere.
	DurabilitySyncAlways Durability = "sync-always"
	// DurabilityUnsafeLazy acknowledges before anything is on stable storage: a
	// power cut loses acknowledged events. Logged, and visible in health.
	DurabilityUnsafeLazy Durability = "unsafe-lazy-sync"
)

// Defaults of Config.
const (
	DefaultListen           = "127.0.0.1:4222"
	DefaultOpsListen        = "127.0.0.1:8222"
	DefaultMaxConnections   = 5000
	DefaultMaxSubscriptions = 10000
	DefaultMaxPayloadBytes  = ByteSize(1 << 20)
	DefaultStoreBytes       = ByteSize(10 << 30)
	DefaultDrain            = 30 * time.Second
	DefaultConnectionRate   = 500
	DefaultFailedLogins     = 60
	DefaultAPIRate          = 200
	DefaultAPIReadRate      = 5000
)

// Config is the configuration of one broker. Paths are relative to the file that
// the configuration was read from. Secrets are only ever named by file.
type Config struct {
	// Name of this node, shown to clients and in logs. Default: the host name.
	Name string `yaml:"name"`
	// State is the folder for streams and what the broker remembers. Required.
	State string `yaml:"state"`
	// Listen is host:port for clients. Default DefaultListen.
	Listen string `yaml:"listen"`
	// Advertise lists the host:port under which clients reach the brokers; it is
	// sent to them for reconnecting. Default: nothing is advertised.
	Advertise []string `yaml:"advertise"`
	// TLS of the client port. Required outside dev.
	TLS TLSConfig `yaml:"tls"`
	// Policy lists policy files. Required; the first start without one is refused.
	Policy []string `yaml:"policy"`
	// Keys for signing.
	Keys KeysConfig `yaml:"keys"`
	// Authentication is whose word counts for who a client is. Default: nkeys only.
	Authentication AuthenticationConfig `yaml:"authentication"`
	// Gate holds the limits of the client port.
	Gate GateConfig `yaml:"gate"`
	// Storage of events.
	Storage StorageConfig `yaml:"storage"`
	// Ops is the port for metrics and probes.
	Ops OpsConfig `yaml:"ops"`
	// Cluster makes the broker one node of several. Default: a broker by itself.
	Cluster *ClusterConfig `yaml:"cluster,omitempty"`
	// Audit is the audit trail of this node.
	Audit AuditConfig `yaml:"audit"`
	// Log of the process.
	Log LogConfig `yaml:"log"`
	// Checkpoints of the logs.
	Checkpoints CheckpointsConfig `yaml:"checkpoints"`
	// Drain bounds the orderly shutdown after SIGTERM. Default DefaultDrain.
	Drain time.Duration `yaml:"drain"`

	// Dev is set by `signet dev` only: refusals explain themselves to the caller.
	// It cannot be set from a file, and it is refused on any address but loopback.
	Dev bool `yaml:"-"`
	// AcceptDamage and FullCheck are set by flags of `signet serve` only (integrity.go).
	AcceptDamage []string `yaml:"-"`
	FullCheck    bool     `yaml:"-"`
	// dir is what relative paths are relative to.
	dir string
}

// TLSConfig names the certificate of the client port.
type TLSConfig struct {
	Certificate string `yaml:"certificate"` // PEM chain
	Key         string `yaml:"key"`         // PEM private key, mode 0600 or stricter
	// Handshake is auto (wait 50 ms for a TLS-first client, else send INFO first),
	// first or info. Default auto.
	Handshake string `yaml:"handshake"`
}

// KeysConfig names the signing material.
type KeysConfig struct {
	Node    string `yaml:"node"`    // file with the nkeys seed of this node's attestation key, mode 0600
	Keyring string `yaml:"keyring"` // signed keyring document
	Root    string `yaml:"root"`    // public key that signed the keyring (O...)
}

// GateConfig limits the client port.
type GateConfig struct {
	MaxConnections int `yaml:"maxConnections"` // default DefaultMaxConnections
	ConnectionRate int `yaml:"connectionRate"` // new connections per second and address; default DefaultConnectionRate
	// TrustedProxies lists addresses and networks (10.0.0.0/8) of proxies that say whose
	// connection it is, by the PROXY protocol version 2. Default: none.
	TrustedProxies []string `yaml:"trustedProxies"`
	// FailedLogins is how many logins may fail per minute and address before its
	// connections are closed unheard; default DefaultFailedLogins.
	FailedLogins     int `yaml:"failedLogins"`
	MaxSubscriptions int `yaml:"maxSubscriptions"` // per connection; default DefaultMaxSubscriptions
	// MaxConnectionsPerPrincipal is how many of MaxConnections one principal may have.
	// Default 0: half of them.
	MaxConnectionsPerPrincipal int `yaml:"maxConnectionsPerPrincipal"`
	// APIRate is how many JetStream API requests per second one principal may send over
	// all its connections; default DefaultAPIRate. Fetches have a rate of their own,
	// APIReadRate, default DefaultAPIReadRate; acks are free.
	APIRate     int      `yaml:"apiRate"`
	APIReadRate int      `yaml:"apiReadRate"`
	MaxPayload  ByteSize `yaml:"maxPayload"` // default DefaultMaxPayloadBytes, at most 8 MiB
	// MaxMemory is the heap and stack in use above which no new connection is let in, at
	// least 64 MiB. Default 0: 75 % of the control group's or the machine's memory; no
	// limit where neither is known.
	MaxMemory ByteSize `yaml:"maxMemory"`
}

// StorageConfig says where acknowledgements come from.
type StorageConfig struct {
	// MaxBytes of all streams together. Default DefaultStoreBytes.
	MaxBytes ByteSize `yaml:"maxBytes"`
	// Durability: barrier, sync-always or unsafe-lazy-sync. Default barrier on
	// Linux, sync-always elsewhere.
	Durability Durability `yaml:"durability"`
	// Encryption of what is stored. Default: none.
	Encryption EncryptionConfig `yaml:"encryption"`
	// SoftWatermark and HardWatermark, in percent of the volume that is used, are where
	// large and where all stored publishes are refused. Default diskguard.DefaultSoft
	// and diskguard.DefaultHard; soft < hard <= 98.
	SoftWatermark int `yaml:"softWatermark"`
	HardWatermark int `yaml:"hardWatermark"`

	testOnlyVolume diskguard.Stat // nil: the real one
	testOnlyFilled func() bool    // nil: yes; else a store is not called filled before it says so
	// Scrub verifies what is stored, over and over.
	Scrub ScrubConfig `yaml:"scrub"`
}

// OpsConfig is the operations port.
type OpsConfig struct {
	Listen string `yaml:"listen"` // default DefaultOpsListen; "off" for none
}

// LogConfig is the process log on standard error.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn, error; default info
	Format string `yaml:"format"` // json or console; default json
}

// ByteSize is a number of bytes, written as 1048576, 512KiB, 5MiB or 20GiB.
type ByteSize int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *ByteSize) UnmarshalText(text []byte) error {
	s := string(text)
	shift := 0
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if rest, ok := strings.CutSuffix(s, unit); ok {
			s, shift = rest, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return errors.New("want a size such as 512KiB, 5MiB or 20GiB")
	}
	*b = ByteSize(n << shift)
	return nil
}

// MarshalText implements encoding.TextMarshaler: the largest exact unit.
func (b ByteSize) MarshalText() ([]byte, error) {
	units := []string{"", "KiB", "MiB", "GiB", "TiB"}
	n, i := int64(b), 0
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n, i = n/1024, i+1
	}
	return []byte(strconv.FormatInt(n, 10) + units[i]), nil
}

// DefaultConfig returns a configuration with every default set.
func DefaultConfig() Config {
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "signet"
	}
	return Config{
		Name: name, Listen: DefaultListen, Drain: DefaultDrain,
		TLS: TLSConfig{Handshake: "auto"},
		Gate: GateConfig{
			MaxConnections: DefaultMaxConnections, ConnectionRate: DefaultConnectionRate,
			MaxSubscriptions: DefaultMaxSubscriptions, MaxPayload: DefaultMaxPayloadBytes,
			APIRate: DefaultAPIRate, APIReadRate: DefaultAPIReadRate, FailedLogins: DefaultFailedLogins,
		},
		Storage: StorageConfig{MaxBytes: DefaultStoreBytes, Durability: defaultDurability, SoftWatermark: diskguard.DefaultSoft, HardWatermark: diskguard.DefaultHard, Scrub: defaultScrub},
		Ops:     OpsConfig{Listen: DefaultOpsListen},
		Audit:   AuditConfig{Spool: audit.DefaultSpoolBytes},
		Log:     LogConfig{Level: "info", Format: "json"},
	}
}

// LoadConfig reads and validates a configuration file. Environment variables
// override non-secret scalars: SIGNET_NAME, SIGNET_LISTEN, SIGNET_STATE,
// SIGNET_OPS_LISTEN, SIGNET_LOG_LEVEL, SIGNET_LOG_FORMAT. The error joins all
// faults, those in the file with line and column.
func LoadConfig(file string, getenv func(string) string) (Config, error) {
	cfg := DefaultConfig()
	src, err := readTrusted(file)
	if err != nil {
		return cfg, fmt.Errorf("broker: read configuration: %w", err)
	}
	if err := strictyaml.Decode(file, src, &cfg); err != nil {
		return cfg, err
	}
	cfg.dir = filepath.Dir(file)
	cfg.override(getenv)
	cfg.resolve()
	return cfg, cfg.Validate()
}

func (c *Config) override(getenv func(string) string) {
	if getenv == nil {
		return
	}
	for name, field := range map[string]*string{
		"SIGNET_NAME": &c.Name, "SIGNET_LISTEN": &c.Listen, "SIGNET_STATE": &c.State,
		"SIGNET_OPS_LISTEN": &c.Ops.Listen, "SIGNET_LOG_LEVEL": &c.Log.Level, "SIGNET_LOG_FORMAT": &c.Log.Format,
	} {
		if v := getenv(name); v != "" {
			*field = v
		}
	}
}

// resolve makes paths absolute against the folder of the file, and derives what
// depends on other keys.
func (c *Config) resolve() {
	if c.Gate.MaxConnectionsPerPrincipal == 0 {
		c.Gate.MaxConnectionsPerPrincipal = max(c.Gate.MaxConnections/2, 1)
	}
	fields := []*string{&c.State, &c.TLS.Certificate, &c.TLS.Key, &c.Keys.Node, &c.Keys.Keyring, &c.Checkpoints.Sink}
	fields = append(fields, c.Storage.Encryption.files()...)
	fields = append(fields, c.Authentication.files()...)
	for i := range c.Audit.Sinks {
		fields = append(fields, &c.Audit.Sinks[i].File)
	}
	for i := range c.Policy {
		fields = append(fields, &c.Policy[i])
	}
	if c.Cluster != nil {
		fields = append(fields, &c.Cluster.TLS.Certificate, &c.Cluster.TLS.Key, &c.Cluster.TLS.CA)
		if c.Storage.Durability == DurabilityBarrier {
			// One node's barrier says nothing of what its followers have on disk.
			c.Storage.Durability = DurabilitySyncAlways
		}
	}
	for _, p := range fields {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(c.dir, *p)
		}
	}
}

// Validate reports everything that is wrong with c, joined.
func (c *Config) Validate() error {
	faults := []error{c.Storage.Encryption.validate()}
	fail := func(format string, args ...any) { faults = append(faults, fmt.Errorf("broker: "+format, args...)) }
	for key, v := range map[string]string{
		"state": c.State, "tls.certificate": c.TLS.Certificate, "tls.key": c.TLS.Key,
		"keys.node": c.Keys.Node, "keys.keyring": c.Keys.Keyring, "keys.root": c.Keys.Root, "name": c.Name,
	} {
		if v == "" {
			fail("%s is required", key)
		}
	}
	if len(c.Policy) == 0 {
		fail("policy is required: a broker without a policy would refuse everything")
	}
	if len(c.Name) > 64 || strings.ContainsAny(c.Name, " \t\r\n\"'") {
		fail("name: at most 64 characters, no spaces or quotes")
	}
	if host, _, err := net.SplitHostPort(c.Listen); err != nil {
		fail("listen: want host:port, got %q", c.Listen)
	} else if c.Dev && !loopback(host) {
		fail("listen: dev listens on loopback only, not on %q; use signet init and signet serve", host)
	}
	if c.Ops.Listen != "off" {
		if _, _, err := net.SplitHostPort(c.Ops.Listen); err != nil {
			fail("ops.listen: want host:port or off, got %q", c.Ops.Listen)
		}
	}
	for _, a := range c.Advertise {
		if _, _, err := net.SplitHostPort(a); err != nil {
			fail("advertise: want host:port, got %q", a)
		}
	}
	oneOf := func(key, v string, of ...string) {
		for _, o := range of {
			if v == o {
				return
			}
		}
		fail("%s: want one of %s, got %q", key, strings.Join(of, ", "), v)
	}
	oneOf("tls.handshake", c.TLS.Handshake, "auto", "first", "info")
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "json", "console")
	oneOf("storage.durability", string(c.Storage.Durability), string(DurabilityBarrier), string(DurabilitySyncAlways), string(DurabilityUnsafeLazy))
	between := func(key string, v, low, high int64) {
		if v < low || v > high {
			fail("%s: want %d to %d, got %d", key, low, high, v)
		}
	}
	between("gate.maxConnections", int64(c.Gate.MaxConnections), 1, 20000)
	between("gate.maxConnectionsPerPrincipal", int64(c.Gate.MaxConnectionsPerPrincipal), 0, int64(max(c.Gate.MaxConnections, 0)))
	between("gate.apiRate", int64(c.Gate.APIRate), 1, 1_000_000)
	between("gate.apiReadRate", int64(c.Gate.APIReadRate), 1, 1_000_000)
	if _, err := c.Gate.proxies(); err != nil {
		fail("gate.trustedProxies: %w", err)
	}
	between("gate.failedLogins", int64(c.Gate.FailedLogins), 1, 1_000_000)
	between("gate.connectionRate", int64(c.Gate.ConnectionRate), 1, 100000)
	between("gate.maxSubscriptions", int64(c.Gate.MaxSubscriptions), 1, 100000)
	between("gate.maxPayload", int64(c.Gate.MaxPayload), 1024, 8<<20)
	between("storage.maxBytes", int64(c.Storage.MaxBytes), 16<<20, 1<<50)
	if c.Cluster != nil {
		c.Cluster.validate(c, fail)
	}
	faults = append(faults, c.guardFaults()...)
	c.validateIntegrity(fail)
	c.Audit.validate(fail)
	c.Authentication.validate(fail)
	between("drain (ms)", c.Drain.Milliseconds(), 100, 600_000)
	return errors.Join(faults...)
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
