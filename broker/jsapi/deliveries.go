package jsapi

import (
	"strconv"

	"github.com/signetbus/signet/internal/wire"
)

// countHere takes the limit of deliveries from the server and writes what the client asked
// for into the metadata: the gate counts (broker/deadletter). The server drops an event
// that was delivered often enough without a word, and leaves it where nobody finds it.
//
// Only where the events are settled one by one: who acknowledges all up to one cannot have
// one of them taken out.
func (c *call) countHere(cfg *consumerConfig) {
	if cfg.AckPolicy != "explicit" || c.stream.kind == streamKV || c.stream.kind == streamObjects || c.stream.kind == streamDeadLetters {
		return
	}
	asked := cfg.MaxDeliver
	if asked <= 0 { // as a client says it that repeats what it read
		asked, _ = strconv.Atoi(cfg.Metadata[wire.MetaDeliveries])
	}
	cfg.MaxDeliver = -1
	delete(cfg.Metadata, wire.MetaDeliveries)
	if asked <= 0 {
		return
	}
	if cfg.Metadata == nil {
		cfg.Metadata = map[string]string{}
	}
	cfg.Metadata[wire.MetaDeliveries] = strconv.Itoa(asked)
}

// Nak is the canonical payload of an ack that gives an event back without saying for how
// long.
const Nak = "-NAK"

// Term is how the canonical payload begins of an ack that gives an event up.
const Term = "+TERM"

// NakAfter is the payload that gives an event back for that many nanoseconds.
func NakAfter(delay int64) []byte {
	return append([]byte(Nak+" "), encode(&nak{Delay: delay})...)
}
