package audit

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
)

// Defaults of Config.
const (
	DefaultRing            = 4096
	DefaultSamplePerMinute = 10
	DefaultMaxKeys         = 4096
)

// Window is how long equal refusals are gathered into one line.
const Window = time.Second

// samplePeriod is the period of Config.SamplePerMinute.
const samplePeriod = time.Minute

// ErrStarted is returned by a second Start.
var ErrStarted = errors.New("audit: already started")

// Config configures a Trail. Zero members have the defaults.
type Config struct {
	Log zerolog.Logger   // lines go here at level info
	Now func() time.Time // default time.Now
	// Record gets a record of each line and event; it must not block. nil: none does.
	Record func(auditlog.Entry)
	Ring   int // refusals kept for Lookup and Tail; default 4096

	// SamplePerMinute is how many refusals of one principal and rule enter the ring
	// in a minute; the others are counted on the last of them. Default 10.
	SamplePerMinute int
	// MaxKeys bounds the different refusals that one window, and the different
	// (principal, rule) pairs that one minute, tell apart; those beyond it are
	// counted under one key. Default 4096.
	MaxKeys int
}

// Origin is what the door knows about a refusal beside the refusal itself.
type Origin struct {
	Tenant string
	Class  string // subject class: event, rpc, kv, …; equal refusals have an equal class
	Verb   string // connect, publish, subscribe
	Remote string // client address
}

// Entry is one refusal in the ring. Count says how many equal ones it stands for.
type Entry struct {
	Cursor     uint64 // position in the trail, from 1, without holes
	Ref        string
	Time       time.Time
	Last       time.Time // time of the latest that Count includes
	Count      uint64
	Code       wire.Code
	Rule       string
	Subject    string
	Principal  string
	Detail     string
	RetryAfter time.Duration
	Violations []wire.Violation
	Explain    *wire.Explanation
	Origin     Origin
}

// Trail is the audit trail.
type Trail struct {
	cfg    Config
	prefix string // of refs; random, so that refs of two runs differ

	mu      sync.Mutex
	ring    []Entry
	next    uint64 // cursor of the next entry
	byRef   map[string]uint64
	samples map[sampleKey]*sample
	window  map[lineKey]*line
	order   []*line                         // lines of the window, first come first
	changed chan struct{}                   // closed and replaced when the ring grows
	tenants map[string]map[wire.Code]uint64 // refusals by tenant; "" is nobody's yet

	throttled Throttles

	counts counters
	start  sync.Once
	stop   context.CancelFunc
	done   chan struct{}
}

type sampleKey struct{ principal, rule string }

type sample struct {
	since time.Time
	taken int
	last  uint64 // cursor
}

type lineKey struct {
	principal, rule, class string
	host                   string // of a login: who tries it from where
	code                   wire.Code
}

type line struct {
	lineKey
	ref, subject, detail string
	origin               Origin
	count                uint64
	first                time.Time
}

// New returns a Trail. It starts nothing.
func New(cfg Config) *Trail {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Ring <= 0 {
		cfg.Ring = DefaultRing
	}
	if cfg.SamplePerMinute <= 0 {
		cfg.SamplePerMinute = DefaultSamplePerMinute
	}
	if cfg.MaxKeys <= 0 {
		cfg.MaxKeys = DefaultMaxKeys
	}
	var b [5]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return &Trail{
		cfg: cfg, prefix: strings.ToLower(base32.StdEncoding.EncodeToString(b[:])), next: 1,
		ring: make([]Entry, 0, cfg.Ring), byRef: make(map[string]uint64),
		samples: make(map[sampleKey]*sample), window: make(map[lineKey]*line),
		tenants: make(map[string]map[wire.Code]uint64),
		changed: make(chan struct{}), done: make(chan struct{}),
	}
}

// Start begins to write lines, one batch a Window, until Shutdown. Error:
// ErrStarted.
func (t *Trail) Start(ctx context.Context) error {
	err := ErrStarted
	t.start.Do(func() {
		err = nil
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		t.mu.Lock()
		t.stop = cancel
		t.mu.Unlock()
		go t.run(ctx)
	})
	return err
}

func (t *Trail) run(ctx context.Context) {
	defer close(t.done)
	tick := time.NewTicker(Window)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			t.Flush()
			return
		case <-tick.C:
			t.Flush()
		}
	}
}

// Shutdown writes what is gathered and returns when the goroutine is gone, or with
// the error of ctx. It is safe to call without Start, and again.
func (t *Trail) Shutdown(ctx context.Context) error {
	t.mu.Lock()
	stop := t.stop
	t.mu.Unlock()
	if stop == nil {
		t.Flush()
		return nil
	}
	stop()
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done is closed when the goroutine that Start began has ended.
func (t *Trail) Done() <-chan struct{} { return t.done }

// Refused enters a refusal and sets its Ref if it has none. The ref is unique;
// refusals that share a sample have refs that differ after a dot, and Lookup finds
// the sample for each of them. r is not retained, what it points to is: nobody may
// change Violations and Explain afterwards.
func (t *Trail) Refused(r *wire.Refusal, o Origin) {
	t.counts.add(r.Code)
	now := t.cfg.Now()
	t.throttled.add(r, o.Tenant, now)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.countLocked(o.Tenant, r.Code)
	e := t.sampleLocked(r, &o, now)
	if r.Ref == "" {
		r.Ref = e.Ref
		if e.Count > 1 {
			r.Ref += "." + strconv.FormatUint(e.Count, 36)
		}
	}
	t.lineLocked(r, &o, now)
}

// countLocked counts for one tenant. Tenants are the policy's, so there are few.
func (t *Trail) countLocked(tenant string, code wire.Code) {
	counts := t.tenants[tenant]
	if counts == nil {
		if len(t.tenants) >= t.cfg.MaxKeys {
			return
		}
		counts = make(map[wire.Code]uint64)
		t.tenants[strings.Clone(tenant)] = counts
	}
	if _, ok := slot(code); !ok {
		code = wire.CodeInternal
	}
	counts[code]++
}

// sampleLocked returns the ring entry that stands for r, after counting r on it.
func (t *Trail) sampleLocked(r *wire.Refusal, o *Origin, now time.Time) *Entry {
	key := sampleKey{r.Principal, r.Rule}
	s := t.samples[key]
	if s == nil {
		if len(t.samples) >= t.cfg.MaxKeys {
			t.sweepLocked(now)
		}
		if len(t.samples) >= t.cfg.MaxKeys {
			key = sampleKey{}
			s = t.samples[key]
		}
		if s == nil {
			s = &sample{since: now}
			t.samples[key] = s
		}
	}
	if now.Sub(s.since) >= samplePeriod {
		s.since, s.taken = now, 0
	}
	if s.taken >= t.cfg.SamplePerMinute {
		if e := t.entryLocked(s.last); e != nil {
			e.Count++
			e.Last = now
			return e
		}
		// The ring has gone round since: without an entry there is no explanation.
	}
	s.taken++
	s.last = t.next
	return t.appendLocked(r, o, now)
}

// sweepLocked forgets samples whose minute is over.
func (t *Trail) sweepLocked(now time.Time) {
	for k, s := range t.samples {
		if now.Sub(s.since) >= samplePeriod {
			delete(t.samples, k)
		}
	}
}

func (t *Trail) appendLocked(r *wire.Refusal, o *Origin, now time.Time) *Entry {
	e := Entry{
		Cursor: t.next, Ref: r.Ref, Time: now, Last: now, Count: 1,
		Code: r.Code, Rule: clip(r.Rule), Subject: clip(r.Subject), Principal: clip(r.Principal),
		Detail: clip(r.Detail), RetryAfter: r.RetryAfter, Violations: r.Violations, Explain: r.Explain, Origin: *o,
	}
	if e.Ref == "" {
		e.Ref = t.prefix + "-" + strconv.FormatUint(t.next, 36)
	}
	t.next++
	i := int((e.Cursor - 1) % uint64(t.cfg.Ring))
	if len(t.ring) < t.cfg.Ring {
		t.ring = append(t.ring, e)
	} else {
		delete(t.byRef, t.ring[i].Ref)
		t.ring[i] = e
	}
	t.byRef[e.Ref] = e.Cursor
	close(t.changed)
	t.changed = make(chan struct{})
	return &t.ring[i]
}

// clip copies s, at most 512 bytes of it: a subject may be as long as a control
// line, and thousands of them are kept.
func clip(s string) string { return strings.Clone(s[:min(len(s), 512)]) }

// entryLocked returns the entry of a cursor if the ring still has it.
func (t *Trail) entryLocked(cursor uint64) *Entry {
	if cursor == 0 || cursor >= t.next || t.next-cursor > uint64(len(t.ring)) {
		return nil
	}
	return &t.ring[int((cursor-1)%uint64(t.cfg.Ring))]
}

func (t *Trail) lineLocked(r *wire.Refusal, o *Origin, now time.Time) {
	key := lineKey{principal: r.Principal, rule: r.Rule, class: o.Class, code: r.Code}
	if o.Verb == verbConnect {
		key.host = hostOf(o.Remote)
	}
	l := t.window[key]
	if l == nil {
		if len(t.window) >= t.cfg.MaxKeys {
			key = lineKey{rule: "other", code: r.Code}
			l = t.window[key]
		}
		if l == nil {
			l = &line{lineKey: key, ref: r.Ref, subject: clip(r.Subject), detail: clip(r.Detail), origin: *o, first: now}
			t.window[key] = l
			t.order = append(t.order, l)
		}
	}
	l.count++
}

// Flush writes the lines of the present window. The worker calls it.
func (t *Trail) Flush() {
	t.mu.Lock()
	lines := t.order
	t.order = nil
	clear(t.window)
	t.mu.Unlock()
	for _, l := range lines {
		t.cfg.Log.Info().Str("event", "refused").
			Int("code", int(l.code)).Str("name", l.code.Entry().Name).Str("principal", l.principal).Str("rule", l.rule).
			Str("subject", l.subject).Str("class", l.origin.Class).Str("verb", l.origin.Verb).Str("tenant", l.origin.Tenant).
			Str("remote", l.origin.Remote).Str("detail", l.detail).Str("ref", l.ref).Uint64("count", l.count).
			Msg(l.code.Entry().Title)
		t.record(l)
	}
}

// verbConnect is Origin.Verb of a login that failed.
const verbConnect = "connect"

// record puts a line on record.
func (t *Trail) record(l *line) {
	if t.cfg.Record == nil {
		return
	}
	e := auditlog.Entry{
		Time: l.first, Tenant: l.origin.Tenant, Kind: auditlog.KindRefusal, Outcome: auditlog.OutcomeRefused, Who: l.principal, Remote: l.origin.Remote,
		Subject: l.subject, Code: l.code, Rule: l.rule, Ref: l.ref, Detail: l.detail,
	}
	if l.origin.Verb == verbConnect {
		e.Kind = auditlog.KindLogin
	}
	if l.count > 1 {
		e.Count = l.count
	}
	t.cfg.Record(e)
}

// Event writes one line at once about something that was done: a connection, an
// admin call, a policy change. It is not coalesced; do not call it for each message.
func (t *Trail) Event(name, tenant, principal, remote, detail string) {
	t.cfg.Log.Info().Str("event", name).Str("tenant", tenant).
		Str("principal", principal).Str("remote", remote).Str("detail", detail).Msg(name)
	if t.cfg.Record != nil {
		t.cfg.Record(auditlog.Entry{Tenant: tenant, Kind: auditlog.KindNotice, Outcome: auditlog.OutcomeOK, Who: principal, Remote: remote, Subject: name, Detail: detail})
	}
}
