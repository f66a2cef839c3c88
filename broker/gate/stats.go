package gate

import (
	"sync/atomic"

	"github.com/signetbus/signet/internal/wire"
)

type counter = atomic.Uint64

// Range of the error registry.
const (
	firstCode = 40000
	codeCount = 1000
)

// away is why a connection was not let in, as an index.
type away int

const (
	awayRate   away = iota // too many new ones from one address
	awayFull               // all connections are taken
	awayDrain              // the gate is closing
	awayShare              // the principal has its share
	awayMemory             // memory is short
	awayAudit              // it could not be put on record
	awayFailed             // too many failed logins from one address
	aways
)

// awayNames are the limits, as the configuration calls them.
var awayNames = [aways]string{"gate.connectionRate", "gate.maxConnections", "draining", "gate.maxConnectionsPerPrincipal", "gate.maxMemory", "audit", "gate.failedLogins"}

// counters are the live numbers behind Stats.
type counters struct {
	connections   atomic.Int64
	subscriptions atomic.Int64 // kept by the tables of the connections
	accepted      counter
	turnedAway    [aways]counter
	messages      counter
	bytesIn       counter
	bytesOut      counter
	bytesUp       counter
	held          counter
	receipts      receiptCounters
	frames        counter
	panics        counter
	refused       [codeCount]counter
}

func (c *counters) refuse(code wire.Code) {
	if i := int(code) - firstCode; i >= 0 && i < codeCount {
		c.refused[i].Add(1)
		return
	}
	c.refused[wire.CodeInternal-firstCode].Add(1)
}

// Stats is a snapshot of the gate's counters. Connections and Subscriptions are
// of now; the others only grow.
type Stats struct {
	Connections   int64                // open now, with those that are not authenticated yet
	Subscriptions int64                // of clients, open now over all connections
	Accepted      uint64               // connections that were let in
	TurnedAway    map[string]uint64    // connections that were not let in, by the setting that is the limit, or "draining"; with the zeros
	Messages      uint64               // publishes that were forwarded
	Frames        uint64               // frames from the server
	BytesIn       uint64               // read from clients
	BytesOut      uint64               // written to clients
	BytesUp       uint64               // written to the server
	HeldAcks      uint64               // acknowledgements that waited for stable storage
	Panics        uint64               // faults of the broker, each of which has ended one connection
	Refused       map[wire.Code]uint64 // refusals by code, without the zeros
	Receipts      ReceiptStats
}

// ReceiptStats are the signed acknowledgements that were asked for. Outstanding is of
// now, the others only grow.
type ReceiptStats struct {
	Outstanding int64
	Signed      uint64
	Unsigned    uint64 // handed on without: they could not be signed, or say more than that one event was stored
	Expired     uint64 // no acknowledgement came in time, and the publisher was told so
	Refused     uint64 // publishes, since as many as may are outstanding
}

// Stats returns a snapshot. It allocates; it is meant for a metrics scrape.
func (g *Gate) Stats() Stats {
	c := &g.counters
	s := Stats{
		Connections: c.connections.Load(), Subscriptions: c.subscriptions.Load(), Accepted: c.accepted.Load(), TurnedAway: make(map[string]uint64, aways),
		Messages: c.messages.Load(), Frames: c.frames.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(), BytesUp: c.bytesUp.Load(),
		HeldAcks: c.held.Load(), Panics: c.panics.Load(), Refused: map[wire.Code]uint64{},
		Receipts: ReceiptStats{
			Outstanding: c.receipts.open.Load(), Signed: c.receipts.signed.Load(), Unsigned: c.receipts.unsigned.Load(),
			Expired: c.receipts.expired.Load(), Refused: c.receipts.refused.Load(),
		},
	}
	for i, name := range awayNames {
		s.TurnedAway[name] = c.turnedAway[i].Load()
	}
	for i := range c.refused {
		if n := c.refused[i].Load(); n > 0 {
			s.Refused[wire.Code(firstCode+i)] = n
		}
	}
	return s
}
