package gate

import (
	"context"
	"errors"
	"net"

	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/broker/jsapi"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// Upstream is the embedded server. Its methods are safe for concurrent use.
type Upstream interface {
	// Dial opens a connection at which the server sends INFO first.
	Dial(ctx context.Context) (net.Conn, error)
	// Ticket returns a one-time token that admits the connection with that local
	// address to the account, with these allow lists. revoke ends its validity; the
	// gate calls it when the connection is gone.
	Ticket(account string, publish, subscribe []string, local net.Addr) (token string, revoke func())
	// UpdateTicket replaces the allow lists of a ticket. The server applies them
	// when its accounts are reloaded, which is up to the caller of Gate.Reload.
	UpdateTicket(token string, publish, subscribe []string)
	// Connecting keeps the server from reloading until done is called. The gate holds
	// it from Dial until the server has answered CONNECT: nats-server reads its
	// accounts there without the lock that a reload takes.
	Connecting() (done func())
}

// Owners looks up who owns a consumer. Safe for concurrent use.
type Owners interface {
	// ConsumerOwner returns the owner ("tenant/name") that the consumer's metadata
	// names, empty if it names none; found is false if there is no such consumer.
	ConsumerOwner(ctx context.Context, tenant, stream, consumer string) (owner string, found bool, err error)
}

// Barrier is the durability barrier. Safe for concurrent use.
type Barrier interface {
	// Wait returns nil once everything that the server wrote before the call is on
	// stable storage. An error means that it may not be.
	Wait(ctx context.Context) error
}

// Sink is told what happens at the door. Its methods are called from the goroutine
// of the connection: they must not block. Safe for concurrent use.
type Sink interface {
	// Refused is told of one refusal before it is answered, and may set its Ref.
	// The slices of rejected are views that end with the call.
	Refused(refusal *wire.Refusal, rejected *Rejected)
	// Connected and Disconnected frame the life of an authenticated connection.
	Connected(c *Connection)
	Disconnected(c *Connection, reason string)
	// Requested is told of a JetStream API request of c that was let in and that changes
	// something or reads stored events. The slices of the verdict end with the call.
	Requested(c *Connection, access jsapi.Access, v *jsapi.Verdict)
	// Delivered is told of one event on a subject that the policy audits fully, before
	// it is written to the client. d ends with the call.
	Delivered(c *Connection, d *Delivery)
	// Tallied is told what a connection got of consumers, at its end and when Tally is
	// called. The sink may keep the slice.
	Tallied(c *Connection, ranges []Range)
	// Panicked is told once of a connection that a fault of the broker has ended.
	// what is the text of a runtime error, else only the type of the value; like
	// stack it holds no payload. Tenant and Principal are empty before authentication.
	Panicked(c *Connection, what string, stack []byte)
}

// Connection is who is connected. It does not change.
type Connection struct {
	ID        uint64
	Tenant    string
	Principal string // name within the tenant
	Remote    string // address of the client
	Method    string // how it was authenticated: identity.MethodNkey, ...
	Identity  string // the name of the policy that it proved
	Name      string // what the client calls itself; untrusted
	Lang      string // client library, untrusted
	Version   string // of the library, untrusted
}

// Range is what one connection got of one consumer since it was last told.
type Range struct {
	Stream, Consumer string
	First, Last      uint64 // lowest and highest sequence of the stream
	Count            uint64 // deliveries, repeated ones too
}

// Delivery is one event on its way to a client. Stream, Consumer and Sequence are
// empty where it does not come from a consumer.
type Delivery struct {
	Subject          string
	Stream, Consumer string
	Sequence         uint64 // in Stream
	Attempt          uint64 // from 1
}

// Rejected is what was refused.
type Rejected struct {
	Verb              string // connect, publish or subscribe
	Tenant, Principal string // empty before authentication
	Remote            string
	Subject, Reply    []byte // as the client wrote them
	Header, Payload   []byte
	Store             bool   // policy says: keep it as a dead letter
	Schema            string // that refused it, with its version
}

// Deps are the parts that the gate stands between.
type Deps struct {
	Upstream     Upstream
	Owners       Owners
	Authenticate identity.Authenticator // for live connections with a context that has ended: it must not wait then
	// Admission returns the admission session of a new connection, or of a live one
	// after Reload.
	Admission func(*policy.Principal) *admission.Session
	Guard     *jsapi.Guard
	Policy    *policy.Set
	Barrier   Barrier // nil: acknowledgements are not held
	// Receipt completes a signed acknowledgement, as of now, and returns its envelope.
	// It must not block. No function: none are given, and who asks is refused.
	Receipt func(signing.Receipt) ([]byte, error)
	// NoReceipt says why nothing may be signed now although this node could, such as
	// another node that does not sync; nil, or a nil error: it may. It does no I/O.
	NoReceipt func() error
	// Consumers returns the consumers that a principal has made in its tenant, in a map that
	// is the caller's. It may block for as long as its context lasts. No function: limits
	// of consumers bound nothing.
	Consumers func(ctx context.Context, p *policy.Principal) (map[ConsumerName]bool, error)
	// Memory says why no new connection may be let in, nil while there is memory. It
	// must not block. No function: there always is.
	Memory func() error
	// Recordable says why a login cannot be put on record, so that it must not be let
	// in, or nil. It must not block. No function: it always can.
	Recordable func() error
	Sink       Sink // nil: nobody is told
	// Failures keeps what consumers fail on. nil: a +TERM is an ack like others, and
	// deliveries are not counted.
	Failures Failures
}

func (d *Deps) validate() error {
	if d.Upstream == nil || d.Owners == nil || d.Authenticate == nil || d.Admission == nil || d.Guard == nil || d.Policy == nil {
		return errors.New("gate: upstream, owners, authenticate, admission, guard and policy are required")
	}
	return nil
}

// nobody is the Sink where none is given.
type nobody struct{}

func (nobody) Refused(*wire.Refusal, *Rejected)                    {}
func (nobody) Connected(*Connection)                               {}
func (nobody) Disconnected(*Connection, string)                    {}
func (nobody) Requested(*Connection, jsapi.Access, *jsapi.Verdict) {}
func (nobody) Delivered(*Connection, *Delivery)                    {}
func (nobody) Tallied(*Connection, []Range)                        {}
func (nobody) Panicked(*Connection, string, []byte)                {}
