package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/payload"
)

// encrypterRig is an encrypter with a clock and a keyring of the test. The records that
// it stores are kept.
type encrypterRig struct {
	t       *testing.T
	e       *encrypter
	clock   time.Time
	ring    *keyring.Ring
	version uint64
	stored  []string // subjects of records
	records []*payload.Record
	refuse  error // of the next record
}

func newEncrypterRig(t *testing.T, cfg Encryption) *encrypterRig {
	t.Helper()
	rig := &encrypterRig{t: t, clock: time.Now()}
	c := &config{}
	if err := WithEncryption(cfg)(c); err != nil {
		t.Fatal(err)
	}
	rig.e = &encrypter{
		cfg: *c.encryption, caller: "shop/clinic", ring: func() *keyring.Ring { return rig.ring }, now: func() time.Time { return rig.clock },
		epochs: map[string]*subjectKeys{}, publish: rig.publish,
	}
	return rig
}

func (rig *encrypterRig) publish(_ context.Context, natsSubject string, ev *Event) error {
	if rig.refuse != nil {
		return rig.refuse
	}
	rec, err := payload.ParseRecord(ev.Data)
	if err != nil || ev.Type != payload.RecordType || ev.ID != rec.KeyID {
		rig.t.Errorf("record %+v on %s: %v", ev, natsSubject, err)
	}
	rig.stored, rig.records = append(rig.stored, natsSubject), append(rig.records, rec)
	return nil
}

func (rig *encrypterRig) recipients(keys ...keyring.Key) {
	rig.t.Helper()
	rig.version++
	ring, err := keyring.New(rig.version, rig.clock.Add(-time.Minute), rig.clock.Add(1000*time.Hour), keys)
	if err != nil {
		rig.t.Fatal(err)
	}
	rig.ring = ring
}

func (rig *encrypterRig) recipient(principal string, subjects ...string) keyring.Key {
	rig.t.Helper()
	_, public := testSeed(rig.t, nkeys.PrefixByteCurve)
	return keyring.Key{
		ID: public, Alg: keyring.AlgX25519, Role: keyring.RoleRecipient, Principal: principal, Subjects: subjects,
		NotBefore: rig.clock.Add(-time.Hour), NotAfter: rig.clock.Add(500 * time.Hour),
	}
}

// eventKeyOf has the encrypter sign with a key that the keyring has as one of principal.
func (rig *encrypterRig) eventKeyOf(principal string) {
	rig.t.Helper()
	keys := []keyring.Key{rig.recipient("shop/doctor", "care.>"), rig.recipient("mill/doctor", ">")}
	_, rig.e.eventKey = testSeed(rig.t, nkeys.PrefixByteUser)
	if principal != "" {
		keys = append(keys, keyring.Key{
			ID: rig.e.eventKey, Alg: keyring.AlgEd25519, Role: keyring.RoleProducer, Principal: principal,
			NotBefore: rig.clock.Add(-time.Hour), NotAfter: rig.clock.Add(time.Hour),
		})
	}
	rig.recipients(keys...)
}

func (rig *encrypterRig) key(natsSubject string) string {
	rig.t.Helper()
	out, err := rig.e.encrypt(rig.t.Context(), natsSubject, &Event{Data: []byte("x")})
	if err != nil {
		rig.t.Fatal(err)
	}
	return out.Extensions[wire.AttrEncryptionKey]
}

// TestEncrypterEpochs: when a key goes on, and when another one comes.
func TestEncrypterEpochs(t *testing.T) {
	rig := newEncrypterRig(t, Encryption{EpochAge: time.Hour, EpochEvents: 5, Tenant: "shop"})
	doctor, nurse := rig.recipient("shop/doctor", "care.>"), rig.recipient("shop/nurse", "care.>")
	rig.recipients(doctor)
	held := rig.key("care.1")
	for _, step := range []struct {
		name string
		do   func()
		same bool
	}{
		{"nothing has changed", func() {}, true},
		{"the keyring was read again", func() { rig.recipients(doctor) }, true},
		{"a recipient of another subject", func() { rig.recipients(doctor, rig.recipient("shop/other", "orders.>")) }, true},
		{"a recipient of another tenant", func() { rig.recipients(doctor, rig.recipient("mill/doctor", ">")) }, true},
		{"the count is over", func() {}, false},
		{"an hour less a second", func() { rig.clock = rig.clock.Add(time.Hour - time.Second) }, true},
		{"an hour", func() { rig.clock = rig.clock.Add(time.Second) }, false},
		{"a recipient was added", func() { rig.recipients(doctor, nurse) }, false},
		{"one begins later", func() {
			later := rig.recipient("shop/later", "care.>")
			later.NotBefore = rig.clock.Add(10 * time.Minute)
			rig.recipients(doctor, nurse, later)
		}, true},
		{"it has begun", func() { rig.clock = rig.clock.Add(10 * time.Minute) }, false},
		{"one was revoked", func() { nurse.RevokedAt = rig.clock; rig.recipients(doctor, nurse) }, false},
		{"one ends later", func() {
			doctor.NotAfter = rig.clock.Add(time.Minute)
			rig.recipients(doctor, rig.recipient("shop/next", "care.>"))
		}, false},
		{"it has ended", func() { rig.clock = rig.clock.Add(time.Minute) }, false},
	} {
		step.do()
		got := rig.key("care.1")
		if (got == held) != step.same {
			t.Errorf("%s: key %s after %s", step.name, got, held)
		}
		held = got
		last := rig.records[len(rig.records)-1]
		if want, _ := rig.ring.Recipients("shop", "care.1", rig.clock); last.KeyID != got || len(want) != len(last.Recipients) {
			t.Errorf("%s: %d recipients in the record, want %d", step.name, len(last.Recipients), len(want))
		}
	}
	if other := rig.key("care.2"); other == held || rig.stored[len(rig.stored)-1] != "encryption.keys.clinic."+other {
		t.Errorf("another subject has key %s, record on %s", other, rig.stored[len(rig.stored)-1])
	}
	n := len(rig.records)
	for i := range maxEpochs + 10 {
		rig.key(fmt.Sprintf("care.n%d", i))
	}
	if len(rig.records) != n+maxEpochs+10 || len(rig.e.epochs) > maxEpochs {
		t.Errorf("%d keys are held, %d records", len(rig.e.epochs), len(rig.records)-n)
	}
}

// TestEncrypterFailsClosed: what cannot be encrypted is not handed on, and what must not
// be encrypted twice is not either.
func TestEncrypterFailsClosed(t *testing.T) {
	refusal := &Error{Op: "publish", Class: "permission-denied", Code: 40101, EventID: "of the record", Title: "no"}
	for _, c := range []struct {
		name   string
		change func(*encrypterRig)
		want   error
		event  Event
	}{
		{"no keyring", func(rig *encrypterRig) { rig.ring = nil }, ErrKeyring, Event{}},
		{"an expired keyring", func(rig *encrypterRig) { rig.clock = rig.ring.Expires() }, ErrKeyring, Event{}},
		{"no recipient", func(rig *encrypterRig) { rig.recipients() }, errNoRecipient, Event{}},
		{"recipients of another tenant, and nobody but the broker names this one", func(rig *encrypterRig) {
			rig.recipients(rig.recipient("shop/doctor", "care.>"), rig.recipient("mill/miller", "flour.>"))
		}, errWhoseTenant, Event{}},
		{"the record is refused", func(rig *encrypterRig) { rig.refuse = refusal }, ErrDenied, Event{}},
		{"nobody answers", func(rig *encrypterRig) { rig.refuse = context.DeadlineExceeded }, context.DeadlineExceeded, Event{}},
		{"the keyring has the event key of another tenant", func(rig *encrypterRig) { rig.eventKeyOf("mill/clinic") }, errForeignKey, Event{}},
		{"the keyring does not have the event key", func(rig *encrypterRig) { rig.eventKeyOf(""); rig.e.eventKey = "U" }, errForeignKey, Event{}},
		{"a long content type", func(*encrypterRig) {}, payload.ErrContentType, Event{DataContentType: string(make([]byte, 2000))}},
	} {
		for _, begun := range []bool{false, true} {
			rig := newEncrypterRig(t, Encryption{EpochEvents: 1})
			rig.recipients(rig.recipient("shop/doctor", "care.>"))
			if begun {
				rig.key("care.1")
			}
			c.change(rig)
			c.event.ID = "mine"
			out, err := rig.e.encrypt(t.Context(), "care.1", &c.event)
			var e *Error
			if out != nil || !errors.Is(err, ErrEncryption) || !errors.Is(err, c.want) || !errors.As(err, &e) || e.EventID != "mine" {
				t.Errorf("%s: got %+v, %v", c.name, out, err)
			}
		}
	}
	rig := newEncrypterRig(t, Encryption{Subjects: []string{"care.>"}})
	rig.eventKeyOf("shop/clinic")
	if out, err := rig.e.encrypt(t.Context(), "care.1", &Event{}); err != nil || len(rig.records[0].Recipients) != 1 {
		t.Errorf("with the right event key: got %+v, %v", out, err)
	}
	told := newEncrypterRig(t, Encryption{Tenant: "shop"})
	told.recipients(told.recipient("shop/doctor", "care.>"), told.recipient("mill/miller", "care.>"))
	if out, err := told.e.encrypt(t.Context(), "care.1", &Event{}); err != nil || len(told.records[0].Recipients) != 1 {
		t.Errorf("with the tenant: got %+v, %v", out, err)
	}
	for name, ev := range map[string]*Event{
		"ciphertext": {DataContentType: wire.EncryptedContentType}, "a key id": {Extensions: map[string]string{wire.AttrEncryptionKey: "x"}},
	} {
		if out, err := rig.e.encrypt(t.Context(), "care.1", ev); out != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %+v, %v", name, out, err)
		}
	}
	if out, err := rig.e.encrypt(t.Context(), "care.*", &Event{}); out != nil || !errors.Is(err, ErrMalformed) {
		t.Errorf("a filter: got %+v, %v", out, err)
	}
	ev := &Event{}
	if out, err := rig.e.encrypt(t.Context(), "orders.1", ev); out != ev || err != nil {
		t.Errorf("outside of the subjects: got %+v, %v", out, err)
	}
	if out, err := (*encrypter)(nil).encrypt(t.Context(), "care.1", ev); out != ev || err != nil {
		t.Errorf("without the option: got %+v, %v", out, err)
	}
}

// TestKeyPrefixIsNoWayOut: where the records go, nothing is published in the clear that
// should have been encrypted: a prefix may be set to what events are published on.
func TestKeyPrefixIsNoWayOut(t *testing.T) {
	for _, cfg := range []Encryption{{KeyPrefix: "care"}, {KeyPrefix: "care", Subjects: []string{"care.>"}}, {KeyPrefix: "care.keys", Subjects: []string{"care.>"}}} {
		rig := newEncrypterRig(t, cfg)
		rig.recipients(rig.recipient("shop/doctor", ">"))
		for _, ev := range []*Event{{ID: "mine", Data: []byte("secret")}, {ID: "mine", Type: payload.RecordType, Data: []byte("secret")}} {
			out, err := rig.e.encrypt(t.Context(), "care.keys.x", ev)
			if out != nil || !errors.Is(err, ErrEncryption) || !errors.Is(err, errKeySubject) {
				t.Errorf("%+v: got %+v, %v", cfg, out, err)
			}
		}
	}
	// What is not to be encrypted goes there as elsewhere.
	rig := newEncrypterRig(t, Encryption{Subjects: []string{"care.>"}})
	ev := &Event{Data: []byte("open")}
	if out, err := rig.e.encrypt(t.Context(), "encryption.keys.x", ev); out != ev || err != nil {
		t.Errorf("not covered: got %+v, %v", out, err)
	}
}

// TestEncryptionOptionIsReused: an option that several clients are made with at a time is
// only read, and keeps nothing of the caller's.
func TestEncryptionOptionIsReused(t *testing.T) {
	seed, _ := testSeed(t, nkeys.PrefixByteCurve)
	subjects := []string{"care.>"}
	encryption, decryption := WithEncryption(Encryption{Subjects: subjects}), WithDecryption(Decryption{Seeds: [][]byte{seed}})
	var made [4]config
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() {
			if err := errors.Join(encryption(&made[i]), decryption(&made[i])); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	subjects[0] = "nothing"
	for i := range made {
		if got := made[i].encryption; got.Subjects[0] != "care.>" || got.KeyPrefix != DefaultKeyPrefix {
			t.Errorf("client %d: %+v", i, got)
		}
	}
}

// TestDecrypterIsNotHeldUp: of made-up key ids one in a minute is waited for; what could
// not be had is not asked for with every event, and the caches are bounded.
func TestDecrypterIsNotHeldUp(t *testing.T) {
	clock := time.Now()
	r := newDecrypter(nil, DefaultKeyPrefix)
	r.now = func() time.Time { return clock }
	for _, step := range []struct {
		after  time.Duration
		stored time.Duration // ago
		want   bool
	}{
		{0, 0, true}, {0, 0, false}, {keyRetry, 0, false}, {patienceEvery - keyRetry, 2 * clockSlack, false}, {0, time.Second, true}, {time.Second, 0, false},
	} {
		clock = clock.Add(step.after)
		if got := r.mayWait(clock.Add(-step.stored), true); got != step.want {
			t.Errorf("%+v: got %v", step, got)
		}
	}
	clock = clock.Add(patienceEvery)
	if r.mayWait(time.Time{}, false) {
		t.Error("an ephemeral event is put back")
	}
	// After a leader change more than one key may be missing.
	clock = clock.Add(patienceEvery)
	for i := range patience + 1 {
		if got := r.mayWait(clock, false); got != (i < patience) {
			t.Errorf("key %d of a subscription that is not ordered: got %v", i+1, got)
		}
	}
	for i := range 2 * maxOpenedKeys {
		makeRoom(r.failed)
		r.failed[recordName{"shop/clinic", fmt.Sprint(i)}] = failedKey{}
	}
	if len(r.failed) != maxOpenedKeys {
		t.Errorf("%d entries, limit %d", len(r.failed), maxOpenedKeys)
	}
}

func TestEncryptionOptions(t *testing.T) {
	seed, _ := testSeed(t, nkeys.PrefixByteCurve)
	user, _ := testSeed(t, nkeys.PrefixByteUser)
	for _, c := range []struct {
		name string
		opt  Option
		ok   bool
	}{
		{"encryption", WithEncryption(Encryption{}), true},
		{"a filter", WithEncryption(Encryption{Subjects: []string{"a..b"}}), false},
		{"a prefix with a wildcard", WithEncryption(Encryption{KeyPrefix: "keys.>"}), false},
		{"a long prefix", WithEncryption(Encryption{KeyPrefix: string(make([]byte, 200))}), false},
		{"a short age", WithEncryption(Encryption{EpochAge: time.Second}), false},
		{"a long age", WithEncryption(Encryption{EpochAge: MaxEpochAge + 1}), false},
		{"a large count", WithEncryption(Encryption{EpochEvents: payload.MaxEvents + 1}), false},
		{"decryption", WithDecryption(Decryption{Seeds: [][]byte{seed}}), true},
		{"no seed", WithDecryption(Decryption{}), false},
		{"a user's seed", WithDecryption(Decryption{Seeds: [][]byte{user}}), false},
		{"another prefix with a wildcard", WithDecryption(Decryption{Seeds: [][]byte{seed}, KeyPrefix: "*"}), false},
	} {
		if err := c.opt(&config{}); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrInvalidOption) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := WithDecryption(Decryption{SeedFiles: []string{"/nosuch"}})(&config{}); err == nil {
		t.Error("a seed file that is not there")
	}
}
