package translog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

const (
	// agesType is the payload type of ages (docs/spec/log.md, section 3).
	agesType = "application/vnd.signet.log-ages.v1+json"
	// maxSamples bounds ages: one for each 512th of the time that the stream keeps events,
	// and as many more for what is older.
	maxSamples = 1024
	perKeep    = 512
	// sampleIdle is between two samples of a stream that keeps events for ever: it may
	// be given a maxAge later.
	sampleIdle = time.Minute
	// lookEvery is how often the writer looks what its stream has let go.
	lookEvery = 2 * time.Second
)

// errAges: what is stored are no ages of this log that a node has signed.
var errAges = errors.New("translog: there is no signed record of when its events were stored")

// ages says when the events of a log were stored, and which of them the stream has let
// go because they were old enough. The writer of the log keeps and signs it: with the
// leaves alone nobody could tell an event that has aged out from one that was cut off.
type ages struct {
	Origin string    `json:"origin"`
	Time   time.Time `json:"time"` // when it was signed
	// Keep is how long the stream kept events then, 0: for ever.
	Keep time.Duration `json:"keepNs"`
	// Gone: the sequences below it have aged out under the Keep of their time.
	Gone uint64 `json:"gone"`
	// LetGo: the tiles of nothing but leaves below this index have made way for newer ones.
	LetGo   int64    `json:"letGo,omitempty"`
	Samples []sample `json:"samples"`
}

// sample: the message before Next was stored at Stored, nanoseconds since 1970.
type sample struct {
	Next   uint64 `json:"next"`
	Stored int64  `json:"storedNs"`
}

// SubjectAges is where the ages of a log are kept, in LOG.
func SubjectAges(o *tlog.Origin) string {
	return prefixLog + o.Tenant + "." + o.Stream + "." + o.ID() + ".ages"
}

// add notes that the message before next was stored at a time.
func (a *ages) add(next uint64, stored int64) {
	if n := len(a.Samples); n > 0 && (a.Samples[n-1].Next >= next || a.Samples[n-1].Stored > stored) {
		return // nothing new, or the clocks of two leaders
	}
	if a.Samples = append(a.Samples, sample{next, stored}); len(a.Samples) <= maxSamples {
		return
	}
	thin := a.Samples[:0]
	for i, s := range a.Samples { // the older half gets coarser
		if i >= maxSamples/2 || i%2 == 0 {
			thin = append(thin, s)
		}
	}
	a.Samples = thin
}

// slack is how long before its time an event may be gone: for clocks that differ, and
// for the samples between which nothing is known.
func slack(keep time.Duration) time.Duration {
	return max(min(agedSlack, keep/10), keep/128)
}

// judge says what the stream may have let go at now: the sequences below aged were old
// enough, those from young on were not, or were logged under a stream that keeps events
// for ever. What is between, nobody can tell. keep is that of the stream now.
func (a *ages) judge(keep time.Duration, now time.Time) (aged, young uint64) {
	if a.Keep > 0 && (keep == 0 || a.Keep < keep) {
		keep = a.Keep // it has just been raised
	}
	aged, young = a.Gone, a.Gone
	if keep == 0 {
		return aged, young
	}
	young = ^uint64(0)
	since := now.Add(-keep).Add(slack(keep)).UnixNano()
	for _, s := range a.Samples {
		if s.Stored <= since {
			aged = max(aged, s.Next)
			continue
		}
		young = max(s.Next-1, aged) // it, and all behind it
		break
	}
	return aged, young
}

// encode signs a.
func (a *ages) encode(s *signing.Signer) ([]byte, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	return s.SignStatement(agesType, text)
}

// parseAges verifies and reads the ages of a log.
//
// Errors: errAges.
func parseAges(doc []byte, o *tlog.Origin, ring *keyring.Ring, now time.Time) (*ages, error) {
	text, key, err := signing.VerifyStatement(doc, agesType, ring)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAges, err)
	}
	return readAges(text, &key, o, now)
}

func readAges(text []byte, key *keyring.Key, o *tlog.Origin, now time.Time) (*ages, error) {
	a := new(ages)
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(a)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errAges, err)
	case a.Origin != o.String():
		return nil, fmt.Errorf("%w: what is stored is of another log, %.300q", errAges, a.Origin)
	case !key.ValidAt(a.Time) || a.Time.After(now.Add(tlog.MaxSkew)):
		return nil, fmt.Errorf("%w: %s was not valid at %s", errAges, key.ID, a.Time.Format(time.RFC3339))
	case a.Keep < 0 || a.LetGo < 0 || len(a.Samples) > maxSamples:
		return nil, fmt.Errorf("%w: numbers that cannot be", errAges)
	}
	for i, s := range a.Samples {
		if s.Next == 0 || i > 0 && (s.Next <= a.Samples[i-1].Next || s.Stored < a.Samples[i-1].Stored) {
			return nil, fmt.Errorf("%w: samples that are out of order", errAges)
		}
	}
	return a, nil
}

// ages reads those of a log, and the sequence of their message; ErrNoMessage is errAges.
//
// Errors: errAges with the sequence, or the connection's.
func (s *Service) ages(ctx context.Context, o *tlog.Origin) (*ages, uint64, error) {
	nc, err := s.archive.conn()
	if err != nil {
		return nil, 0, err
	}
	m, err := get(ctx, nc, StreamLog, map[string]any{"last_by_subj": SubjectAges(o)})
	if err != nil {
		return nil, 0, err
	}
	if m == nil {
		return nil, 0, errAges
	}
	a, err := parseAges(m.Data, o, s.cfg.Ring(), s.cfg.Now())
	return a, m.Seq, err
}

// letGo says whether a tile that is not stored has made way: one of nothing but absent
// leaves is never stored.
//
// Errors: ErrLetGo, or the connection's.
func (s *Service) letGo(ctx context.Context, o *tlog.Origin, level int, index int64) error {
	a, _, err := s.ages(ctx, o)
	if errors.Is(err, errAges) {
		return nil // if it is not that, the root will tell
	}
	if err == nil && level < 5 && (index+1)<<(tlog.TileHeight*(level+1)) <= a.LetGo {
		err = ErrLetGo
	}
	return err
}

// calendar keeps the ages of a log while this node writes it.
type calendar struct {
	ages
	seq    uint64    // of their message
	swept  bool      // what an earlier writer was to let go is gone
	looked time.Time // at the stream
	kept   time.Time // when they were written
	next   uint64    // newest sample that is not among them; 0: none
	stored int64
}

func openCalendar(ctx context.Context, s *Service, o *tlog.Origin, keep time.Duration) (*calendar, error) {
	a, seq, err := s.ages(ctx, o)
	if errors.Is(err, errAges) {
		if seq > 0 {
			s.cfg.Log.Error().Err(err).Str("log", o.String()).Msg("the record of ages begins anew: what has aged out cannot be told from what was cut off for a while")
		}
		return &calendar{ages: ages{Origin: o.String(), Keep: keep, Samples: []sample{}}, seq: seq}, nil
	}
	if err != nil {
		return nil, err
	}
	return &calendar{ages: *a, seq: seq}, nil
}

func (c *calendar) interval() time.Duration {
	if c.Keep == 0 {
		return sampleIdle
	}
	return max(c.Keep/perKeep, checkpointEvery)
}

// look notes what the stream has let go, and keeps that and the newest sample now and
// then. A change of how long events are kept is noted at once, by what was so far.
func (w *writer) look(ctx context.Context) error {
	c := w.cal
	if time.Since(c.looked) < min(lookEvery, c.interval()) {
		return nil
	}
	c.looked = time.Now()
	state, err := stateOf(ctx, w.tenant, w.l.src.Stream)
	if err != nil {
		return err
	}
	w.l.update(func(s *State) { s.LastSeq = max(s.LastSeq, state.State.LastSeq) }) // files do not tell
	if w.in.filed && state.State.Deleted > 0 {
		return w.in.ended(holesError(state))
	}
	now := w.l.s.cfg.Now()
	aged, _ := c.judge(state.Config.MaxAge, now)
	gone := max(c.Gone, min(aged, state.State.FirstSeq, w.cp.Next()))
	changed := c.Keep != state.Config.MaxAge
	if c.next > 0 && (changed || time.Since(c.kept) >= c.interval()) {
		c.add(c.next, c.stored)
		c.next = 0
	} else if !changed && (gone == c.Gone || time.Since(c.kept) < c.interval()) {
		return nil
	}
	c.Gone, c.Keep = gone, state.Config.MaxAge
	return w.keepAges(ctx, now)
}

// keepAges writes the ages as they are now.
func (w *writer) keepAges(ctx context.Context, now time.Time) error {
	c := w.cal
	c.Time = now.UTC().Truncate(time.Second)
	signer, err := w.l.signer(c.Time)
	if err != nil {
		return err
	}
	doc, err := c.encode(signer)
	if err != nil {
		return err
	}
	if c.seq, err = put(ctx, w.system, SubjectAges(&w.cp.Origin), doc, c.seq); err != nil {
		return err
	}
	c.kept = time.Now()
	return nil
}
