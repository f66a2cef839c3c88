package embed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/signetbus/signet/internal/wire"
)

// Defaults of Config, and what is fixed.
const (
	// DefaultMaxPayload leaves JetStream's whole 64 KiB header budget on top of
	// 1 MiB: the gate adds headers to what a client sent, and a message over
	// max_payload would cost the client its connection.
	DefaultMaxPayload = 1<<20 + 64<<10
	// DefaultMaxPending bounds what the server holds for one slow connection. It is
	// nats-server's own default on purpose. JetStream sends a whole pull at once,
	// faster than a local reader takes it: at 16 MiB a fetch of 32 messages of 1 MiB,
	// or of 10,000 of 8 KiB, cut a healthy client as a slow consumer; at 64 MiB both
	// pass, and a client is cut where it would be cut by a plain server. Memory is
	// used only while it waits.
	DefaultMaxPending = 64 << 20
	// DefaultStartTimeout bounds recovery of all streams at start.
	DefaultStartTimeout = 2 * time.Minute
	// LazySyncInterval is how often nats-server syncs by itself when SyncAlways is
	// off. The barrier in front of the acks is what makes them durable then, so
	// this could be hours; half a minute bounds what a fault in that barrier could
	// ever cost, and it keeps running the server's own sync path (which also
	// closes idle files and compacts) while it costs nothing measurable, since the
	// barrier has already written most of what it finds.
	LazySyncInterval = 30 * time.Second

	pingInterval   = 20 * time.Second
	maxPingsOut    = 2
	maxControlLine = 8 << 10 // the gate's own limit is 4 KiB; rewritten inboxes are longer
	writeDeadline  = 10 * time.Second
	accountMemory  = 8 << 20 // JetStream memory per account; Signet stores in files only
)

// ErrConfig is wrapped by every error about a Config or a tenant list.
var ErrConfig = errors.New("embed: configuration")

// Levels of Config.Log.
const (
	LevelDebug = "debug"
	LevelInfo  = "info"
	LevelWarn  = "warn"
	LevelError = "error"
)

// TenantAccount is one tenant's account.
type TenantAccount struct {
	// Name is the account's name: 1 to 64 of A-Z a-z 0-9 _ -, and not SYS.
	Name string
	// MaxBytes is the most that all streams of the account may reserve on disk, in
	// bytes. Required, over 0.
	MaxBytes int64
}

// Config is what Start needs.
type Config struct {
	// StoreDir holds everything that is stored. Required. It is made (0700) if it
	// is missing. It should be a volume of its own.
	StoreDir string
	// Tenants are the accounts at start; ReloadAccounts adds more.
	Tenants []TenantAccount
	// SyncAlways makes the server sync every write before it acknowledges it. When
	// it is off, something else must stand between an ack and its reader (the
	// durability barrier of broker/store); see LazySyncInterval.
	SyncAlways bool
	// MaxPayload is the largest message, headers and payload, in bytes: what the
	// gate advertises plus its header budget. 0 means DefaultMaxPayload; at most 64 MiB.
	MaxPayload int
	// MaxPending is how many bytes may wait for one connection before it is cut as
	// a slow consumer. 0 means DefaultMaxPending; it must hold two MaxPayload.
	MaxPending int64
	// ServerName is the server's name in INFO and in the store: 1 to 128 of
	// A-Z a-z 0-9 _ . -. Required: JetStream remembers it, and a random one would
	// not survive a restart.
	ServerName string
	// LoopbackPort is the port on 127.0.0.1; 0 means a random one.
	LoopbackPort int
	// StartTimeout bounds Start. 0 means DefaultStartTimeout.
	StartTimeout time.Duration
	// Log receives the server's log lines, level one of the Level constants. They
	// hold no payload. nil drops them. It must not block, and must not call Server.
	Log func(level, msg string)
	// Debug also passes on debug lines.
	Debug bool
	// Cluster makes the server a node of a cluster; nil is a server by itself.
	Cluster *ClusterConfig
	// NoStore leaves JetStream off: a node that only listens to what the others say,
	// before it starts with the accounts that they have.
	NoStore bool
	// Encryption of what is stored. nil means none. Start does not keep it.
	Encryption *Encryption

	// Inspect is called with the lock of StoreDir held, before the server looks at it,
	// and gets the key that the files are encrypted with; an error ends Start. Stopped is called when the server is gone and the lock still
	// held, also after a failed start.
	Inspect func(context.Context, OpenedKey) error
	Stopped func()

	atRest *atRest // of Start, for every set of options; behind a pointer, which %+v does not follow
}

var (
	accountName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	serverName  = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)
)

// Validate returns every fault of c joined, each wrapping ErrConfig, or nil.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, v ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, v...)...))
	}
	if c.StoreDir == "" {
		fault("StoreDir is empty")
	}
	if !serverName.MatchString(c.ServerName) {
		fault("ServerName %q is not 1 to 128 of A-Z a-z 0-9 _ . -", c.ServerName)
	}
	if c.MaxPayload < 0 || c.MaxPayload > 64<<20 {
		fault("MaxPayload %d is not in 0..64 MiB", c.MaxPayload)
	}
	if p := c.maxPending(); p < 2*int64(c.maxPayload()) {
		fault("MaxPending %d is less than two payloads of %d", p, c.maxPayload())
	}
	if c.LoopbackPort < 0 || c.LoopbackPort > 65535 {
		fault("LoopbackPort %d is not in 0..65535", c.LoopbackPort)
	}
	if c.StartTimeout < 0 {
		fault("StartTimeout %v is negative", c.StartTimeout)
	}
	if c.Cluster != nil {
		c.Cluster.validate(c.ServerName, fault)
	}
	faults = append(faults, checkTenants(c.Tenants), c.Encryption.validate())
	return errors.Join(faults...)
}

func checkTenants(tenants []TenantAccount) error {
	var faults []error
	seen := make(map[string]bool, len(tenants))
	var sum int64
	for _, t := range tenants {
		switch {
		case !accountName.MatchString(t.Name):
			faults = append(faults, fmt.Errorf("%w: tenant name %q is not 1 to 64 of A-Z a-z 0-9 _ -", ErrConfig, t.Name))
		case strings.EqualFold(t.Name, wire.SystemAccount):
			faults = append(faults, fmt.Errorf("%w: tenant name %q is the system account's", ErrConfig, t.Name))
		case seen[t.Name]:
			faults = append(faults, fmt.Errorf("%w: tenant %q is listed twice", ErrConfig, t.Name))
		}
		seen[t.Name] = true
		if t.MaxBytes <= 0 || sum > math.MaxInt64-t.MaxBytes {
			faults = append(faults, fmt.Errorf("%w: tenant %q: MaxBytes %d is not over 0, or the sum of all overflows", ErrConfig, t.Name, t.MaxBytes))
			continue
		}
		sum += t.MaxBytes
	}
	return errors.Join(faults...)
}

func (c *Config) maxPayload() int { return cmp.Or(c.MaxPayload, DefaultMaxPayload) }

func (c *Config) maxPending() int64 { return cmp.Or(c.MaxPending, DefaultMaxPending) }

func (c *Config) startTimeout() time.Duration { return cmp.Or(c.StartTimeout, DefaultStartTimeout) }

// render writes the server's configuration. The same Config must give the same
// text but for the accounts and the store limits, which only grow: nats-server
// refuses to reload when anything else differs. The names were checked by
// Validate, so that nothing here can break out of its quotes.
func (c *Config) render(accounts []TenantAccount, l storeLimits) string {
	var b strings.Builder
	line := func(format string, v ...any) { fmt.Fprintf(&b, format+"\n", v...) }
	port := c.LoopbackPort
	if port == 0 {
		port = server.RANDOM_PORT
	}
	line("listen: %q", "127.0.0.1:"+strconv.Itoa(port))
	line("server_name: %q", c.ServerName)
	line("max_payload: %d", c.maxPayload())
	line("max_pending: %d", c.maxPending())
	line("max_control_line: %d", maxControlLine)
	line("ping_interval: %q", pingInterval)
	line("ping_max: %d", maxPingsOut)
	line("write_deadline: %q", writeDeadline)
	if !c.NoStore {
		line("jetstream {")
		line("  store_dir: %q", filepath.ToSlash(c.StoreDir))
		line("  max_file: %d", l.file)
		line("  max_mem: %d", l.memory)
		if c.SyncAlways {
			line("  sync_interval: always")
		} else {
			line("  sync_interval: %q", LazySyncInterval)
		}
		line("  strict: true")
		line("}")
	}
	line("system_account: %q", wire.SystemAccount)
	line("accounts {")
	line("  %q: {}", wire.SystemAccount)
	for _, a := range slices.SortedFunc(slices.Values(accounts), byName) {
		if c.NoStore {
			line("  %q: {}", a.Name)
			continue
		}
		line("  %q: {jetstream: {max_file: %d, max_mem: %d, max_bytes_required: true}}", a.Name, a.MaxBytes, accountMemory)
	}
	line("}")
	return b.String()
}

func byName(a, b TenantAccount) int { return strings.Compare(a.Name, b.Name) }

// storeLimits are the server-wide JetStream limits: the sums over all accounts,
// and never less than they were, since nats-server cannot lower them.
type storeLimits struct{ file, memory int64 }

func (l storeLimits) grow(accounts []TenantAccount) storeLimits {
	n := storeLimits{file: 1 << 20, memory: accountMemory}
	for _, a := range accounts {
		n.file += a.MaxBytes
		n.memory += accountMemory
	}
	return storeLimits{file: max(l.file, n.file), memory: max(l.memory, n.memory)}
}

// options parses the rendered text and adds what has no text form.
func (c *Config) options(accounts []TenantAccount, l storeLimits, auth server.Authentication, routes *routeGate) (*server.Options, error) {
	o := &server.Options{}
	if err := o.ProcessConfigString(c.render(accounts, l)); err != nil {
		return nil, fmt.Errorf("%w: rendered text: %w", ErrConfig, err)
	}
	o.NoSigs = true
	o.DisableJetStreamBanner = true
	o.CustomClientAuthentication = auth
	if c.Cluster != nil {
		if err := c.Cluster.apply(o, c.ServerName, routes); err != nil {
			return nil, err
		}
	}
	c.atRest.apply(o)
	return o, nil
}
