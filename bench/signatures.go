package bench

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"runtime"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

const (
	// attestBatch is the batch that the targets name. The trees of an attestation are
	// smaller: it is signed as two.
	attestBatch = 64
	// stepFor is how long one step runs in each round.
	stepFor = 150 * time.Millisecond
)

// Step is one step of the work on signatures, measured in this process by itself on
// one core, without a server.
type Step struct {
	Name   string
	Most   float64   // microseconds per event; 0: no target
	Micros []float64 // per event, one of each round
	Allocs []float64 // heap objects per event
}

// signatures are the keys and events that the steps work on.
type signatures struct {
	subject  string
	signer   *signing.Signer
	producer *signing.Producer
	ring     *keyring.Ring
	events   []*cloudevent.Event // attestBatch of 256 B, as a gate hands them over
	unsigned []*cloudevent.Event // signing.MaxProducerBatch of them, as a producer has them
}

func newSignatures() (*signatures, error) {
	seed := func(p nkeys.PrefixByte, fill byte) ([]byte, error) {
		return nkeys.EncodeSeed(p, bytes.Repeat([]byte{fill}, ed25519.SeedSize))
	}
	node, err := seed(nkeys.PrefixByteServer, 1)
	if err != nil {
		return nil, err
	}
	event, err := seed(nkeys.PrefixByteAccount, 2)
	if err != nil {
		return nil, err
	}
	s := &signatures{subject: subjectPlain}
	if s.signer, err = signing.NewSigner(node); err != nil {
		return nil, err
	}
	if s.producer, err = signing.NewProducer(event); err != nil {
		return nil, err
	}
	now := time.Now()
	from, to := now.Add(-time.Hour).UTC().Truncate(time.Second), now.Add(time.Hour).UTC().Truncate(time.Second)
	s.ring, err = keyring.New(1, from, to, []keyring.Key{
		{ID: s.signer.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "bench", NotBefore: from, NotAfter: to},
		{ID: s.producer.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleProducer, Principal: "bench/bench", NotBefore: from, NotAfter: to},
	})
	if err != nil {
		return nil, err
	}
	at := now.UTC().Format(time.RFC3339)
	for i := range attestBatch {
		e := &cloudevent.Event{
			ID: fmt.Appendf(nil, "01JD8Z6W3K7M5Q2R9T4V%06d", i), Source: []byte("/bench/bench"), Type: []byte("com.example.order.created.v1"),
			ContentType: []byte("application/json"), Time: []byte(at), Data: order(256),
		}
		e.SetExt([]byte(wire.AttrRecordedTime), []byte(at))
		if i < signing.MaxProducerBatch {
			s.unsigned = append(s.unsigned, e.Clone())
		}
		e.SetExt([]byte(wire.AttrAuthID), []byte("bench/bench"))
		e.SetExt([]byte(wire.AttrAuthType), []byte(wire.DefaultAuthType))
		s.events = append(s.events, e)
	}
	return s, nil
}

// attest attests the first n events as the gate does a batch.
func (s *signatures) attest(b *signing.Batch, out []byte, n int) []byte {
	b.Reset()
	for _, e := range s.events[:n] {
		b.Add(e, []byte(s.subject))
	}
	b.Sign(s.signer)
	for i := range n {
		out = b.AppendAttestation(out[:0], i)
	}
	return out
}

// produce signs the first n events as the SDK does.
func (s *signatures) produce(b *signing.ProducerBatch, out []byte, n int) ([]byte, error) {
	b.Reset()
	for _, e := range s.unsigned[:n] {
		if _, err := b.Add(e, []byte(s.subject)); err != nil {
			return out, err
		}
	}
	b.Sign(s.producer)
	for i := range n {
		out = b.AppendMaterial(out[:0], i)
	}
	return out, nil
}

// Signatures measures each step, rounds times.
//
// Errors: ErrLoad, when one of the steps does not do what it is measured for.
func Signatures(rounds int) ([]Step, error) {
	var steps []Step
	for range rounds {
		s, err := newSignatures()
		if err != nil {
			return nil, err
		}
		round, err := s.steps()
		if err != nil {
			return nil, err
		}
		if steps == nil {
			steps = round
			continue
		}
		for i := range steps {
			steps[i].Micros = append(steps[i].Micros, round[i].Micros...)
			steps[i].Allocs = append(steps[i].Allocs, round[i].Allocs...)
		}
	}
	return steps, nil
}

// steps measures one round.
func (s *signatures) steps() ([]Step, error) {
	var batch signing.Batch
	var signed signing.ProducerBatch
	var out []byte
	var steps []Step
	var fault error
	add := func(name string, most float64, events int, do func() error) {
		if fault == nil {
			var st Step
			st, fault = step(name, most, events, do)
			steps = append(steps, st)
		}
	}
	add(fmt.Sprintf("attest, batch of %d", attestBatch), 4.5, attestBatch, func() error { out = s.attest(&batch, out, attestBatch); return nil })
	add("attest, alone", 0, 1, func() error { out = s.attest(&batch, out, 1); return nil })
	add(fmt.Sprintf("producer signs, batch of %d", signing.MaxProducerBatch), 0, signing.MaxProducerBatch, func() (err error) {
		out, err = s.produce(&signed, out, signing.MaxProducerBatch)
		return err
	})
	add("producer signs, alone", 0, 1, func() (err error) { out, err = s.produce(&signed, out, 1); return err })

	s.attest(&batch, nil, attestBatch)
	for i, e := range s.events {
		e.SetExt([]byte(wire.AttrAttestation), batch.AppendAttestation(nil, i))
	}
	ring := func() *keyring.Ring { return s.ring }
	v := signing.NewVerifier(ring)
	verify := func(v *signing.Verifier, events []*cloudevent.Event) error {
		for _, e := range events {
			if _, err := v.Verify(e, s.subject); err != nil {
				return err
			}
		}
		return nil
	}
	add("verify an attestation, root known", 4, attestBatch, func() error { return verify(v, s.events) })
	add(fmt.Sprintf("verify an attestation, roots new, batch of %d", attestBatch), 0, attestBatch, func() error { return verify(signing.NewVerifier(ring), s.events) })
	return s.verifySigned(&signed, steps, fault)
}

// verifySigned adds what the broker does with the signatures of a producer.
func (s *signatures) verifySigned(signed *signing.ProducerBatch, steps []Step, fault error) ([]Step, error) {
	if fault != nil {
		return steps, fault
	}
	if _, err := s.produce(signed, nil, signing.MaxProducerBatch); err != nil {
		return steps, err
	}
	for i, e := range s.unsigned {
		e.SetExt([]byte(wire.AttrDSSE), signed.AppendMaterial(nil, i))
	}
	v := signing.NewProducerVerifier(func() *keyring.Ring { return s.ring })
	st, err := step("verify a producer's signature, root known", 0, len(s.unsigned), func() error {
		for _, e := range s.unsigned {
			if _, err := v.Verify(e, s.subject); err != nil {
				return err
			}
		}
		return nil
	})
	return append(steps, st), err
}

// step runs do, which works on so many events, for stepFor.
func step(name string, most float64, events int, do func() error) (Step, error) {
	for range 3 { // warm
		if err := do(); err != nil {
			return Step{Name: name}, fmt.Errorf("%w: %s: %w", ErrLoad, name, err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, n := time.Now(), 0
	for time.Since(start) < stepFor {
		if err := do(); err != nil {
			return Step{Name: name}, fmt.Errorf("%w: %s: %w", ErrLoad, name, err)
		}
		n += events
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	return Step{
		Name: name, Most: most,
		Micros: []float64{float64(took.Nanoseconds()) / 1e3 / float64(n)}, Allocs: []float64{float64(after.Mallocs-before.Mallocs) / float64(n)},
	}, nil
}
