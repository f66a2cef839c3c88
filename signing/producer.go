package signing

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

// MaxProducerBatch is how many events one producer signature may cover.
const MaxProducerBatch = maxLeaves

// ErrBatchFull: the batch has MaxProducerBatch events.
var ErrBatchFull = errors.New("signing: the batch of a producer is full")

// Producer holds an event key: what a service signs its own events with. It is
// never the key of a connection, because a server can have a client sign any
// nonce. It does not change and may be shared; it prints as its key id.
type Producer struct{ signer *Signer }

// NewProducer decodes an nkeys seed of type account ("SA...") or user ("SU..."),
// made for signing events and nothing else. The seed is not kept.
//
// Errors: ErrProducerSeed.
func NewProducer(seed []byte) (*Producer, error) {
	s, err := newSigner(seed, ErrProducerSeed, nkeys.PrefixByteAccount, nkeys.PrefixByteUser)
	if err != nil {
		return nil, err
	}
	return &Producer{s}, nil
}

// KeyID returns the nkeys public key.
func (p *Producer) KeyID() string { return p.signer.id }

// Public returns the raw public key. The caller must not change it.
func (p *Producer) Public() ed25519.PublicKey {
	return ed25519.PublicKey(p.signer.private[ed25519.SeedSize:])
}

// String returns the key id. It exists so that no log can print the private key.
func (p *Producer) String() string { return p.signer.id }

// GoString is String.
func (p *Producer) GoString() string { return p.signer.id }

// Sign signs e for natsSubject by itself and sets its dssematerial. What must be
// set before is said at ProducerBatch.Add.
//
// Errors: ErrMalformed, ErrURI.
func (p *Producer) Sign(e *cloudevent.Event, natsSubject string) error {
	b := producerBatches.Get().(*ProducerBatch)
	defer producerBatches.Put(b)
	b.Reset()
	if _, err := b.Add(e, []byte(natsSubject)); err != nil {
		return err
	}
	b.Sign(p)
	e.SetExt([]byte(wire.AttrDSSE), b.AppendMaterial(nil, 0))
	return nil
}

var producerBatches = sync.Pool{New: func() any { return new(ProducerBatch) }}

// ProducerBatch signs up to MaxProducerBatch events with one signature. Use: Reset,
// Add for each event, Sign once, then AppendMaterial for each. It may be used
// again; the zero value works. Not safe for concurrent use.
type ProducerBatch struct {
	d      digester
	tree   signedTree
	bodies []byte         // the DSSE bodies, one after the other
	ends   [maxLeaves]int // where each body ends
	single []byte         // PAE of the first event
	keyID  string
	signed bool
}

// Reset empties b and keeps its memory.
func (b *ProducerBatch) Reset() {
	b.tree.n, b.bodies, b.signed = 0, b.bodies[:0], false
}

// Len returns the number of events added since Reset.
func (b *ProducerBatch) Len() int { return b.tree.n }

// Add hashes e, to be published on natsSubject, and returns its index. It keeps no
// reference to either. The event must be complete, since nobody may fill in what
// is signed: id, source, type, datacontenttype, time, and recordedtime, which is
// when it is published (AppendRecordedTime). It must be as Event.Validate wants it.
// Nothing but dssematerial may be set afterwards. Its source and dataschema must be as
// they are printed after they were parsed as URIs (scheme in lower case, no empty
// fragment, nothing that would be escaped): libraries of CloudEvents do that on the way.
//
// Errors: ErrMalformed, also for an event that has an attribute that the broker or
// another signature set; ErrURI; ErrBatchFull.
func (b *ProducerBatch) Add(e *cloudevent.Event, natsSubject []byte) (int, error) {
	if b.tree.n == maxLeaves {
		return -1, ErrBatchFull
	}
	for i := range e.Ext {
		if notSigned(e.Ext[i].Name, true) {
			return -1, fmt.Errorf("%w: %s is not the producer's to set", ErrMalformed, e.Ext[i].Name)
		}
	}
	if err := b.checkURIs(e); err != nil {
		return -1, err
	}
	if _, err := b.d.digestProducer(e, natsSubject); err != nil {
		return -1, err
	}
	i := b.tree.n
	if i == 0 {
		b.single = append(b.single[:0], b.d.pae[1:]...)
	}
	b.bodies = append(b.bodies, b.d.body...)
	b.ends[i] = len(b.bodies)
	b.tree.nodes[i] = sha256.Sum256(b.d.pae)
	b.tree.n++
	b.signed = false
	return i, nil
}

// Sign makes the one signature: of the event if there is one, of the root of the
// tree if there are more. An empty batch stays unsigned.
func (b *ProducerBatch) Sign(p *Producer) {
	if b.tree.n == 0 {
		return
	}
	var note [maxNote]byte
	text := b.single
	if b.tree.n > 1 {
		text = appendNote(note[:0], b.tree.n, b.tree.build())
	}
	copy(b.tree.sig[:], ed25519.Sign(p.signer.private, text))
	b.keyID, b.signed = p.signer.id, true
}

// AppendMaterial appends the value of the dssematerial attribute of event i. It
// panics if i is no index that Add returned since Reset, or if Sign was not called
// after the last Add.
func (b *ProducerBatch) AppendMaterial(dst []byte, i int) []byte {
	if !b.signed || i < 0 || i >= b.tree.n {
		panic("signing: AppendMaterial of an event that was not added and signed")
	}
	from := 0
	if i > 0 {
		from = b.ends[i-1]
	}
	sig := b.tree.sig[:]
	if b.tree.n > 1 {
		var buf [maxCompact]byte
		var path [maxPath * sumBytes]byte
		c := compact{index: i, size: b.tree.n, sig: sig}
		c.path = b.tree.appendPath(path[:0], i)
		sig = c.appendBinary(buf[:0], false)
	}
	return appendMaterial(dst, b.bodies[from:b.ends[i]], b.keyID, sig)
}
