package gate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Defaults of Config.
const (
	DefaultMaxConnections   = 5000
	DefaultPerIPRate        = 50.0
	DefaultPerIPBurst       = 200
	DefaultFailedLogins     = 60
	DefaultMaxPayload       = 1 << 20
	DefaultHeaderBudget     = 64 << 10
	DefaultMaxControlLine   = 4096
	DefaultMaxConnectBytes  = 16 << 10
	DefaultMaxSubscriptions = 10000
	DefaultMaxHeldBytes     = 8 << 20
	DefaultMaxHanded        = 8192
	DefaultMaxSignedAcks    = 64
	DefaultMaxNodeAcks      = 4096
	DefaultAPIRate          = 200.0
	DefaultAPIReadRate      = 5000.0
	DefaultHandedTTL        = 10 * time.Minute
	DefaultAuthTimeout      = 2 * time.Second
	DefaultMessageDeadline  = 10 * time.Second
	DefaultWriteDeadline    = 10 * time.Second
	DefaultWaitMax          = 250 * time.Millisecond
	DefaultOwnerTimeout     = 2 * time.Second
	DefaultOwnerTTL         = time.Minute
	DefaultSniff            = 50 * time.Millisecond
	DefaultDrain            = 10 * time.Second
	DefaultSignedAck        = time.Minute
)

// Handshake says when the TLS handshake happens.
type Handshake string

// The handshake modes.
const (
	// HandshakeAuto waits Timeouts.Sniff for the client's first byte: a TLS record
	// means handshake first, silence means that the client waits for INFO.
	HandshakeAuto Handshake = "auto"
	// HandshakeFirst sends nothing in the clear.
	HandshakeFirst Handshake = "first"
	// HandshakeInfo sends INFO in the clear at once, as NATS always did.
	HandshakeInfo Handshake = "info"
)

// Config is the configuration of a Gate. Zero values mean the defaults.
type Config struct {
	// Listen is the TCP address to accept on, "host:port". Required.
	Listen string
	// Advertise are the host:port addresses that INFO names to clients. Empty: the
	// client keeps to the address it has.
	Advertise []string
	// TLS is the server configuration, TLS 1.3. Required unless InsecurePlain.
	TLS *tls.Config
	// Handshake is when TLS starts. Default HandshakeAuto.
	Handshake Handshake
	// InsecurePlain serves without TLS. Listen must be a loopback address. For tests
	// and measurements.
	InsecurePlain bool

	// Proxies are the addresses whose connections begin with a header of the PROXY protocol
	// version 2, which names the client. Theirs must; nobody else's may.
	Proxies []netip.Prefix

	// ServerID, ServerName and Version are what INFO says. ServerID and ServerName
	// are required; Version is the NATS server version whose protocol is spoken
	// (clients compare it with the features they need), "vX.Y.Z" or "X.Y.Z".
	ServerID, ServerName, Version string
	// APILevel is the JetStream API level that INFO says; 0 leaves it out.
	APILevel int

	// ExplainToCaller puts policy internals into answers. For `signet dev` only.
	ExplainToCaller bool

	Limits   Limits
	Timeouts Timeouts
}

// Limits bound what clients can make the gate hold or do.
type Limits struct {
	Connections int // open at once; default 5,000
	// PrincipalConnections is how many of them one principal may have; default half of
	// Connections, so that no principal can keep all others out.
	PrincipalConnections int
	PerIPRate            float64 // new connections per second and address (IPv6: /64); default 50, below 0 is no limit
	PerIPBurst           int     // of PerIPRate; default 200
	FailedLogins         int     // per minute and address, after which its connections are closed unheard; default 60, below 0 is no limit
	Payload              int     // bytes of one message, header and payload, that a client may send; default 1 MiB
	HeaderBudget         int     // bytes beyond Payload that the server accepts and may send back; default 64 KiB
	ControlLine          int     // bytes of one control line; default 4,096
	Connect              int     // bytes of CONNECT; default 16 KiB
	Subscriptions        int     // per connection; default 10,000
	HeldBytes            int     // held acknowledgements per connection; default 8 MiB
	Handed               int     // inboxes of others remembered per connection; default 8,192
	SignedAcks           int     // signed acknowledgements outstanding per connection; default 64
	NodeSignedAcks       int     // signed acknowledgements outstanding over all connections; default 4,096

	// APIRate and APIReadRate are JetStream API requests per second of one principal,
	// over all its connections, with a burst of apiBurst. APIReadRate is for those
	// that fetch (CONSUMER.MSG.NEXT, DIRECT.GET, STREAM.MSG.GET), APIRate for the
	// rest, which the server works off one by one for all tenants. Acks and flow
	// control are free. Default 200 and 5,000, below 0 is no limit.
	APIRate, APIReadRate float64
}

// Timeouts bound how long the gate waits.
type Timeouts struct {
	Auth      time.Duration // for the TLS handshake, and again for CONNECT and the server behind; default 2 s
	Message   time.Duration // for one message once its first byte has come, plus 1 s per 64 KiB; default 10 s
	Write     time.Duration // for one write to a peer; default 10 s
	WaitMax   time.Duration // how long one batch may be held for a limit that says wait; default 250 ms
	HandedTTL time.Duration // how long an inbox that was handed to a connection may be answered; default 10 min
	Owner     time.Duration // for looking up who owns a consumer; default 2 s
	OwnerTTL  time.Duration // how long that is remembered, while another node may change it; default 1 min
	Sniff     time.Duration // for the first byte in HandshakeAuto; default 50 ms
	Drain     time.Duration // for clients to leave by themselves in Drain; default 10 s
	SignedAck time.Duration // for an acknowledgement that is to be signed; then its publisher is told that none came; default 1 min
}

func orInt(v *int, d int) {
	if *v == 0 {
		*v = d
	}
}

func orTime(v *time.Duration, d time.Duration) {
	if *v == 0 {
		*v = d
	}
}

// withDefaults returns c with every zero replaced.
func (c Config) withDefaults() Config {
	if c.Handshake == "" {
		c.Handshake = HandshakeAuto
	}
	l, t := &c.Limits, &c.Timeouts
	orInt(&l.Connections, DefaultMaxConnections)
	orInt(&l.PrincipalConnections, max(1, l.Connections/2))
	orInt(&l.PerIPBurst, DefaultPerIPBurst)
	orInt(&l.FailedLogins, DefaultFailedLogins)
	orInt(&l.Payload, DefaultMaxPayload)
	orInt(&l.HeaderBudget, DefaultHeaderBudget)
	orInt(&l.ControlLine, DefaultMaxControlLine)
	orInt(&l.Connect, DefaultMaxConnectBytes)
	orInt(&l.Subscriptions, DefaultMaxSubscriptions)
	orInt(&l.HeldBytes, DefaultMaxHeldBytes)
	orInt(&l.Handed, DefaultMaxHanded)
	orInt(&l.SignedAcks, DefaultMaxSignedAcks)
	orInt(&l.NodeSignedAcks, DefaultMaxNodeAcks)
	if l.PerIPRate == 0 {
		l.PerIPRate = DefaultPerIPRate
	}
	if l.APIRate == 0 {
		l.APIRate = DefaultAPIRate
	}
	if l.APIReadRate == 0 {
		l.APIReadRate = DefaultAPIReadRate
	}
	orTime(&t.Auth, DefaultAuthTimeout)
	orTime(&t.Message, DefaultMessageDeadline)
	orTime(&t.Write, DefaultWriteDeadline)
	orTime(&t.WaitMax, DefaultWaitMax)
	orTime(&t.HandedTTL, DefaultHandedTTL)
	orTime(&t.Owner, DefaultOwnerTimeout)
	orTime(&t.OwnerTTL, DefaultOwnerTTL)
	orTime(&t.Sniff, DefaultSniff)
	orTime(&t.Drain, DefaultDrain)
	orTime(&t.SignedAck, DefaultSignedAck)
	return c
}

// Validate returns all faults of c joined, or nil. Zero values are no faults.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf("gate: "+format, a...)) }
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		fault("listen %q: %w", c.Listen, err)
	}
	switch {
	case c.InsecurePlain && c.TLS != nil:
		fault("insecure plain and TLS exclude each other")
	case c.InsecurePlain:
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			fault("plain connections are for loopback addresses only, not %q", c.Listen)
		}
	case c.TLS == nil:
		fault("TLS is required")
	case c.TLS.MinVersion < tls.VersionTLS13:
		fault("TLS must be 1.3 or later")
	}
	switch c.Handshake {
	case "", HandshakeAuto, HandshakeFirst, HandshakeInfo:
	default:
		fault("handshake %q is not auto, first or info", c.Handshake)
	}
	if c.ServerID == "" || c.ServerName == "" {
		fault("server id and server name are required")
	}
	l := c.Limits
	for name, v := range map[string]int{
		"connections": l.Connections, "connections of a principal": l.PrincipalConnections, "per-IP burst": l.PerIPBurst, "payload": l.Payload, "header budget": l.HeaderBudget,
		"control line": l.ControlLine, "connect": l.Connect, "subscriptions": l.Subscriptions, "held bytes": l.HeldBytes, "handed": l.Handed, "signed acknowledgements": l.SignedAcks,
		"signed acknowledgements of the node": l.NodeSignedAcks,
	} {
		if v < 0 {
			fault("the limit of %s is negative", name)
		}
	}
	if l.Payload > 64<<20 {
		fault("a payload limit over 64 MiB is not supported")
	}
	return errors.Join(faults...)
}
