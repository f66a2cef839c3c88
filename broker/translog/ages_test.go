package translog

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

func keeping(keep time.Duration) jetstream.StreamConfig {
	return jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, MaxBytes: 256 << 20, MaxAge: keep, Duplicates: time.Second}
}

func (r *rig) updateStream(cfg jetstream.StreamConfig) {
	r.tb.Helper()
	cfg.DenyDelete, cfg.DenyPurge = !r.loose, !r.loose // for good
	if _, err := r.js("shop").UpdateStream(r.tb.Context(), cfg); err != nil {
		r.tb.Fatal(err)
	}
}

func (r *rig) awaitMessages(n uint64) {
	r.tb.Helper()
	stream, err := r.js("shop").Stream(r.tb.Context(), "ORDERS")
	if err != nil {
		r.tb.Fatal(err)
	}
	eventually(r.tb, fmt.Sprintf("%d messages", n), func() (bool, string) {
		info, err := stream.Info(r.tb.Context())
		if err != nil {
			return false, err.Error()
		}
		return info.State.Msgs == n, fmt.Sprintf("%+v", info.State)
	})
}

func (r *rig) cutHead(below uint64) {
	r.tb.Helper()
	stream, err := r.js("shop").Stream(r.tb.Context(), "ORDERS")
	if err != nil {
		r.tb.Fatal(err)
	}
	if err := stream.Purge(r.tb.Context(), jetstream.WithPurgeSequence(below)); err != nil {
		r.tb.Fatal(err)
	}
}

// awaitSample waits until the ages of ORDERS know when the message before next was stored.
func awaitSample(t *testing.T, s *Service, o *tlog.Origin, next uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("a sample of %d", next), func() (bool, string) {
		a, _, err := s.ages(t.Context(), o)
		if err != nil {
			return false, err.Error()
		}
		return len(a.Samples) > 0 && a.Samples[len(a.Samples)-1].Next >= next, fmt.Sprintf("%+v", a)
	})
}

// A stream lets events go when they are old enough. That stays right when it is told to
// keep events for longer, and what is cut off then is named.
func TestHeadThatAgedAndHeadThatWasCutOff(t *testing.T) {
	r := newLooseRig(t)
	r.updateStream(keeping(4 * time.Second))
	s, _ := r.serve(nil)
	r.publish(0, 20)
	note := awaitSize(t, s, 20)
	awaitSample(t, s, &note.Origin, 21)
	r.awaitMessages(0)
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Aged != 20 || got.Unproven != 0 {
		t.Errorf("what has aged out: %+v, %+v", got, got.Finding)
	}
	r.updateStream(keeping(time.Hour))
	r.publish(20, 60)
	note = awaitSize(t, s, 60)
	awaitSample(t, s, &note.Origin, 61)
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Aged != 20 || got.Compared != 40 || got.Unproven != 0 {
		t.Errorf("after maxAge was raised: %+v, %+v", got, got.Finding)
	}
	r.updateStream(keeping(0))
	eventually(t, "the new maxAge is noted", func() (bool, string) {
		a, _, err := s.ages(t.Context(), &note.Origin)
		return err == nil && a.Keep == 0, fmt.Sprintf("%+v, %v", a, err)
	})
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Aged != 20 || got.Unproven != 0 {
		t.Errorf("for ever: %+v, %+v", got, got.Finding)
	}
	r.cutHead(41)
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding == nil || got.Finding.Sequence != 21 || got.Finding.What != Dropped || got.Aged != 20 {
		t.Errorf("a head that was cut off: %+v, %+v", got, got.Finding)
	}
	r.updateStream(keeping(time.Hour))
	eventually(t, "the new maxAge is noted", func() (bool, string) {
		a, _, err := s.ages(t.Context(), &note.Origin)
		return err == nil && a.Keep == time.Hour, fmt.Sprintf("%+v, %v", a, err)
	})
	// All of it was stored in this test: none can have been an hour old.
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding == nil || got.Finding.Sequence < 21 || got.Finding.Sequence > 41 || got.Finding.What != Dropped {
		t.Errorf("a head that was cut off, and an hour: %+v, %+v", got, got.Finding)
	}
}

// Without the signed record of ages, or with one that nobody of the keyring has signed,
// or of another log, nothing counts as aged out: it is said to be unproven.
func TestNothingAgesWithoutARecord(t *testing.T) {
	for _, tt := range []struct {
		name  string
		doubt string
		spoil func(t *testing.T, r *rig, s *Service, o *tlog.Origin)
	}{
		{"removed", "no signed record", func(t *testing.T, r *rig, _ *Service, o *tlog.Origin) {
			stream, err := r.js(system).Stream(t.Context(), StreamLog)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(SubjectAges(o))); err != nil {
				t.Fatal(err)
			}
		}},
		{"signed by nobody", "not in the keyring", func(t *testing.T, r *rig, s *Service, o *tlog.Origin) {
			a, _, err := s.ages(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			seed, err := nkeys.EncodeSeed(nkeys.PrefixByteServer, []byte(strings.Repeat("x", 32)))
			if err != nil {
				t.Fatal(err)
			}
			other, err := signing.NewSigner(seed)
			if err != nil {
				t.Fatal(err)
			}
			a.Gone = 1000
			putAges(t, r, o, a, other)
		}},
		{"of another log", "another log", func(t *testing.T, r *rig, s *Service, o *tlog.Origin) {
			a, _, err := s.ages(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			other := *o
			other.Start = other.Start.Add(-time.Hour)
			a.Origin, a.Gone = other.String(), 1000
			putAges(t, r, o, a, r.signer)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.updateStream(keeping(3 * time.Second))
			s, stop := r.serve(nil)
			r.publish(0, 20)
			note := awaitSize(t, s, 20)
			awaitSample(t, s, &note.Origin, 21)
			r.awaitMessages(0)
			stop()
			r.leads.Store(false)
			tt.spoil(t, r, s, &note.Origin)
			s, _ = r.serve(nil)
			got := verifyAll(t, s, &note.Checkpoint)
			if got.Finding != nil || got.Aged != 0 || got.Unproven != 20 || !strings.Contains(got.Doubt, tt.doubt) {
				t.Errorf("got %+v, %+v", got, got.Finding)
			}
		})
	}
}

func putAges(t *testing.T, r *rig, o *tlog.Origin, a *ages, by *signing.Signer) {
	t.Helper()
	doc, err := a.encode(by)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.js(system).Publish(t.Context(), SubjectAges(o), doc); err != nil {
		t.Fatal(err)
	}
}

func TestAgesJudge(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixNano() }
	a := ages{Keep: time.Hour, Gone: 5, Samples: []sample{{10, ago(3 * time.Hour)}, {20, ago(2 * time.Hour)}, {30, ago(30 * time.Minute)}, {40, ago(time.Minute)}}}
	const none = ^uint64(0)
	for _, tt := range []struct {
		name        string
		have, keep  time.Duration
		aged, young uint64
	}{
		{"as it was", time.Hour, time.Hour, 20, 29},
		{"just raised", time.Hour, 5 * time.Hour, 20, 29},
		{"just for ever", time.Hour, 0, 20, 29},
		{"just lowered", time.Hour, 10 * time.Minute, 30, 39},
		{"for ever since long", 0, 0, 5, 5},
		{"limited just now", 0, time.Hour, 20, 29},
		{"raised since long", 5 * time.Hour, 5 * time.Hour, 5, 9},
		{"all of it is old", time.Second, time.Second, 40, none},
	} {
		b := a
		b.Keep = tt.have
		if aged, young := b.judge(tt.keep, now); aged != tt.aged || young != tt.young {
			t.Errorf("%s: aged below %d, young from %d; want %d, %d", tt.name, aged, young, tt.aged, tt.young)
		}
	}
	for i := range 10 * maxSamples {
		a.add(uint64(100+i), now.UnixNano()+int64(i))
	}
	a.add(50, now.Add(time.Hour).UnixNano()) // of the past
	if n := len(a.Samples); n > maxSamples || n < maxSamples/2 || a.Samples[0].Next != 10 || a.Samples[n-1].Next != 100+10*maxSamples-1 {
		t.Errorf("%d samples, from %+v to %+v", n, a.Samples[0], a.Samples[n-1])
	}
}

// Ages are read as signed text; whatever it is, the reader refuses or has samples in order.
func FuzzReadAges(f *testing.F) {
	o := tlog.Origin{Cluster: "c", Tenant: "shop", Stream: "ORDERS", Start: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)}
	now := o.Start.Add(time.Hour)
	key := keyring.Key{ID: "S", NotBefore: o.Start, NotAfter: o.Start.AddDate(1, 0, 0)}
	good, err := json.Marshal(&ages{Origin: o.String(), Time: now, Keep: time.Hour, Gone: 3, Samples: []sample{{1, 2}, {3, 4}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(strings.Replace(string(good), `"next":3`, `"next":1`, 1)))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := readAges(text, &key, &o, now)
		if err != nil {
			if !errors.Is(err, errAges) {
				t.Fatal(err)
			}
			return
		}
		if aged, young := a.judge(time.Hour, now); aged > young {
			t.Fatalf("%s: aged below %d, young from %d", text, aged, young)
		}
		for i := 1; i < len(a.Samples); i++ {
			if a.Samples[i].Next <= a.Samples[i-1].Next {
				t.Fatalf("%s: out of order", text)
			}
		}
	})
}
