package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/internal/integrity"
	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

const (
	ledgerFolder = "integrity"
	// fullCheckBytes is how much is read at every start, verified before or not: at
	// most some ten seconds of it on common disks.
	fullCheckBytes = 8 << 30
	// sealBudget bounds what a stop spends on remembering what it leaves behind.
	sealBudget = 5 * time.Second
	// holesEvery is how often the server's own counts are looked at.
	holesEvery = time.Minute
)

// ErrDamaged: the store is damaged and nobody has agreed to serve it as it is. The text
// names streams, sequences and files, and the ways on.
var ErrDamaged = integrity.ErrDamaged

// ScrubConfig is the background verification of what is stored.
type ScrubConfig struct {
	// Interval from the start of one pass to the next, 1m to 720h; 0 turns it off.
	// Default 24h.
	Interval time.Duration `yaml:"interval"`
	// Rate is the most that a pass reads per second, 64KiB to 1GiB. A pass takes half of
	// Interval where that is slower. Default 32MiB.
	Rate ByteSize `yaml:"rate"`
}

var defaultScrub = ScrubConfig{Interval: integrity.DefaultScrubInterval, Rate: integrity.DefaultScrubRate}

func (c *Config) validateIntegrity(fail func(format string, args ...any)) {
	if s := c.Storage.Scrub; s.Interval != 0 && (s.Interval < time.Minute || s.Interval > 720*time.Hour) {
		fail("storage.scrub.interval: want 0 (off) or 1m to 720h, got %v", s.Interval)
	}
	if s := c.Storage.Scrub; s.Interval != 0 && (s.Rate < 64<<10 || s.Rate > 1<<30) {
		fail("storage.scrub.rate: want 64KiB to 1GiB, got %d", s.Rate)
	}
	for _, id := range c.AcceptDamage {
		if tenant, stream, ok := strings.Cut(id, "/"); !ok || tenant == "" || stream == "" || strings.Contains(stream, "/") {
			fail("--accept-damage: want TENANT/STREAM, got %q", id)
		}
	}
}

// damageState is what is known of damage in the store.
type damageState struct {
	// peers says whether other nodes hold whole replicas of what this one holds, so that
	// a damaged one is set aside instead of refused. nil: it does not.
	peers  func() bool
	key    *integrity.StoreKey                // nil: the store is not encrypted
	ledger *integrity.Ledger                  // nil until the store was inspected
	scrub  atomic.Pointer[integrity.Scrubber] // nil until it is started; metrics are read before that
	aside  atomic.Int64                       // folders in the quarantine

	mu       sync.Mutex        // guards the maps; never held during I/O
	found    map[string]string // by account/stream: what the scrubber has found
	holes    map[string]string // by account/stream: what the server itself has lost
	suspects map[string]bool   // holes that were seen once
	allowed  map[string]uint64 // by account/stream: holes with a known reason
}

func (b startup) integrityOptions() integrity.Options {
	log := b.component("integrity")
	return integrity.Options{
		Dir: b.cfg.State, SystemAccount: wire.SystemAccount, Key: b.damage.key, Ledger: b.damage.ledger,
		LazySync: b.Durability() != DurabilitySyncAlways,
		Progress: func(done, total int64) {
			log.Info().Int64("bytes", done).Int64("of", total).Dur("after", time.Since(b.started)).Msg("verifying the store")
		},
	}
}

func situation(b startup) integrity.Situation {
	consent := map[string]bool{}
	for _, id := range b.cfg.AcceptDamage {
		consent[id] = true
	}
	return integrity.Situation{Clustered: b.damage.peers != nil && b.damage.peers(), Consent: consent}
}

// inspectStore verifies the store before the server sees it. It runs under the lock of
// the store's folder.
func (b startup) inspectStore(ctx context.Context, key embed.OpenedKey) error {
	if key.Key != "" {
		b.damage.key = integrity.NewStoreKey(key.Key, key.Cipher == embed.CipherChaCha)
	}
	var err error
	if b.damage.ledger, err = integrity.OpenLedger(filepath.Join(b.cfg.State, ledgerFolder)); err != nil {
		return err
	}
	log := b.component("integrity")
	o := b.integrityOptions()
	size, err := integrity.StoreBytes(o.Dir, o.SystemAccount)
	if err != nil {
		return err
	}
	o.Full = b.cfg.FullCheck || size <= fullCheckBytes
	started := time.Now()
	rep, err := integrity.Check(ctx, o)
	if err != nil {
		return err
	}
	for i := range rep.Replicas {
		for _, n := range rep.Replicas[i].Notes {
			log.Warn().Str("replica", rep.Replicas[i].ID()).Msg(n)
		}
	}
	log.Info().Int64("bytes", rep.Read).Int64("trusted", rep.Trusted).Int("damaged", len(rep.Damaged())).
		Dur("took", time.Since(started)).Msg("store verified")
	if err := b.obey(rep); err != nil {
		return err
	}
	b.damage.allow(rep)
	kept, err := integrity.Quarantined(b.cfg.State)
	if err != nil {
		return err
	}
	b.damage.aside.Store(int64(kept))
	return b.damage.ledger.Running()
}

// obey does what the verdict on a report says.
func (b startup) obey(rep *integrity.Report) error {
	log := b.component("integrity")
	v := integrity.Decide(rep, situation(b))
	for _, r := range v.Rulings {
		log.Error().Str("replica", r.Replica.ID()).Str("action", string(r.Action)).Str("reason", r.Reason).
			Str("damage", describe(r.Replica)).Msg("the store is damaged")
		b.trail.Event("integrity-"+string(r.Action), r.Replica.Account, "", "", r.Replica.ID()+": "+describe(r.Replica))
	}
	if err := v.Err(); err != nil {
		return err
	}
	moved := map[string]bool{}
	for _, r := range v.Rulings {
		switch {
		case r.Action == integrity.ActionServe && situation(b).Consent[r.Replica.Owner()]:
			b.damage.ledger.Accept(r.Replica, time.Now())
			a, err := integrity.Withdraw(b.cfg.State, r.Replica, time.Now())
			if err != nil {
				return err
			}
			if a != nil {
				log.Error().Str("replica", r.Replica.ID()).Str("folder", a.Folder).Strs("moved", a.Moved).Msg("withdrawn, nobody can decrypt it any more")
			}
		case r.Action == integrity.ActionSetAside && !moved[r.Replica.Dir]:
			a, err := integrity.SetAside(b.cfg.State, rep, r.Replica, time.Now())
			if err != nil {
				return err
			}
			for _, dir := range a.Moved {
				moved[dir] = true
				b.damage.ledger.Forget(dir)
			}
			log.Error().Str("replica", r.Replica.ID()).Str("folder", a.Folder).Int("quarantined", a.Kept).
				Msg("set aside, it is fetched from its peers")
		}
	}
	return nil
}

// describe names the first damages of a replica.
func describe(r *integrity.Replica) string {
	var text []string
	for i, d := range r.Damage {
		if i == 3 {
			text = append(text, fmt.Sprintf("and %d more", len(r.Damage)-i+r.More))
			break
		}
		text = append(text, d.String())
	}
	return strings.Join(text, "; ")
}

// sealStore remembers what the stopped server leaves, so that the next start sees
// whatever happens to it. It runs under the lock of the store's folder.
func (b startup) sealStore() {
	if b.damage.ledger == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), sealBudget)
	defer cancel()
	if _, err := b.damage.ledger.Seal(ctx, b.integrityOptions()); err != nil {
		log := b.component("integrity")
		log.Warn().Err(err).Msg("the store is not sealed: the next start verifies it as after a crash")
	}
}

// startScrub verifies the blocks of the running server, and looks at its own counts.
func (b startup) startScrub(context.Context, *material) error {
	life, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(holesEvery)
		defer t.Stop()
		for {
			select {
			case <-life.Done():
				return
			case <-t.C:
				b.lookForHoles()
			}
		}
	}()
	b.running("hole watch", func(context.Context) error {
		stop()
		<-ended
		return nil
	})
	if b.cfg.Storage.Scrub.Interval == 0 {
		b.log.Warn().Msg("storage.scrub is off: a bit that flips on the disk is found at the next start")
		return nil
	}
	o := b.integrityOptions()
	scrub := integrity.NewScrubber(integrity.ScrubConfig{
		Dir: o.Dir, SystemAccount: o.SystemAccount, Key: o.Key, Ledger: o.Ledger,
		Interval: b.cfg.Storage.Scrub.Interval, Rate: int64(b.cfg.Storage.Scrub.Rate),
		Found: b.foundDamage,
		Failed: func(err error) {
			log := b.component("integrity")
			log.Error().Err(err).Msg("the store could not be verified")
		},
	})
	scrub.Start()
	b.damage.scrub.Store(scrub)
	b.running("scrubber", scrub.Shutdown)
	return nil
}

// foundDamage takes the result of a pass over the running store. On a single node it
// raises the alarm and serves on: what can be read is still right. A node with peers
// ends, so that its next start sets the replica aside.
func (b startup) foundDamage(damaged []*integrity.Replica, rep *integrity.Report) {
	log := b.component("integrity")
	now := map[string]string{}
	for _, r := range damaged {
		now[r.ID()] = describe(r)
	}
	for id, text := range b.damage.replace(&b.damage.found, now) {
		log.Error().Str("replica", id).Str("damage", text).Msg("the store was damaged while it runs")
		b.trail.Event("integrity-damage", tenantOf(id), "", "", id+": "+text)
	}
	log.Info().Int64("bytes", rep.Read).Int("damaged", len(damaged)).Msg("stored blocks verified")
	if v := integrity.Decide(rep, situation(b)); v.Action == integrity.ActionSetAside {
		endForRepair(b.Broker)
	}
}

// endForRepair shuts the broker down, so that its next start sets damaged replicas
// aside before they can lead. It returns at once: the caller is a part of the broker.
func endForRepair(b *Broker) {
	b.log.Error().Msg("shutting down: the next start sets the damaged replica aside and fetches it from its peers")
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Drain)
		defer cancel()
		_ = b.Shutdown(ctx) // it logs its error; ErrNotReady: somebody else is at it
	}()
}

// lookForHoles holds the server's own counts against what must be true of streams that
// nothing may be taken out of. It finds what no checksum can: a server that has thrown
// messages away. A hole must be there twice.
func (b startup) lookForHoles() {
	states, err := b.server.StreamStates()
	if err != nil {
		return // the server's health says so
	}
	for id, text := range b.damage.judge(states) {
		log := b.component("integrity")
		log.Error().Str("replica", id).Str("damage", text).Msg("a stream has lost messages")
		b.trail.Event("integrity-damage", tenantOf(id), "", "", id+": "+text)
	}
}

func (d *damageState) judge(states []embed.StreamState) map[string]string {
	d.mu.Lock()
	suspects, now := map[string]bool{}, map[string]string{}
	for i := range states {
		s := &states[i]
		id := s.Account + "/" + s.Name
		if !s.AppendOnly || s.Holes() <= d.allowed[id] {
			continue
		}
		if suspects[id] = true; d.suspects[id] {
			now[id] = fmt.Sprintf("%d messages between sequence %d and %d are missing", s.Holes(), s.FirstSeq, s.LastSeq)
		}
	}
	d.suspects = suspects
	d.mu.Unlock()
	return d.replace(&d.holes, now)
}

// replace enters what is known now and returns what was not known before.
func (d *damageState) replace(field *map[string]string, now map[string]string) map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	fresh := maps.Clone(now)
	maps.DeleteFunc(fresh, func(id, text string) bool { return (*field)[id] == text })
	*field = now
	return fresh
}

// allow notes which holes have a reason. Damage that was accepted just now becomes a
// hole of unknown width when the server truncates its block.
func (d *damageState) allow(rep *integrity.Report) {
	accepted := d.ledger.Accepted()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.allowed = map[string]uint64{}
	for i := range rep.Replicas {
		r := &rep.Replicas[i]
		if d.allowed[r.Owner()] += r.Holes; accepted[r.Owner()] != "" {
			d.allowed[r.Owner()] = ^uint64(0)
		}
	}
}

// lacks is how many sequences a stream, account/stream, may lack for a known reason.
func (d *damageState) lacks(id string) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.allowed[id]
}

// known returns all that is damaged, by account/stream or the name of a Raft group.
func (d *damageState) known() map[string]string {
	out := map[string]string{}
	if d.ledger != nil {
		maps.Copy(out, d.ledger.Accepted())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(out, d.holes)
	maps.Copy(out, d.found)
	return out
}

func tenantOf(id string) string {
	tenant, _, ok := strings.Cut(id, "/")
	if !ok {
		return ""
	}
	return tenant
}

// integrityHealth is the health part for one tenant; of the others it tells only that
// there is damage.
func (b view) integrityHealth(tenant string) adminapi.HealthPart {
	h := adminapi.HealthPart{Part: "integrity", OK: true}
	var text []string
	known := b.damage.known()
	for _, id := range slices.Sorted(maps.Keys(known)) {
		h.OK = false
		if tenantOf(id) == tenant {
			text = append(text, id+": "+known[id])
		}
	}
	switch n := b.damage.aside.Load(); {
	case !h.OK && len(text) == 0:
		h.Detail = "damage outside of this tenant"
	case !h.OK:
		h.Detail = strings.Join(text, "; ")
	case n >= integrity.MaxQuarantined:
		h.OK, h.Detail = false, "the quarantine is full: no further replica can be set aside"
	}
	return h
}

func (b view) integrityMetrics() []ops.Source {
	scrubbed := func(read func(passes uint64, bytes int64) float64) func(func(float64, ...string)) {
		return func(emit func(float64, ...string)) {
			if s := b.damage.scrub.Load(); s != nil {
				emit(read(s.Stats()))
			}
		}
	}
	return []ops.Source{
		{Name: "signet_integrity_damaged", Help: "Streams and Raft groups of this node that are damaged, or served with damage that was accepted.", Kind: ops.Gauge, Read: func(emit func(float64, ...string)) {
			emit(float64(len(b.damage.known())))
		}},
		{Name: "signet_integrity_quarantined", Help: "Folders of damaged replicas that were set aside.", Kind: ops.Gauge, Read: func(emit func(float64, ...string)) {
			emit(float64(b.damage.aside.Load()))
		}},
		{Name: "signet_integrity_scrub_passes_total", Help: "Completed verifications of all that is stored.", Kind: ops.Counter, Read: scrubbed(func(n uint64, _ int64) float64 { return float64(n) })},
		{Name: "signet_integrity_scrub_bytes_total", Help: "Bytes that the scrubber has verified.", Kind: ops.Counter, Read: scrubbed(func(_ uint64, n int64) float64 { return float64(n) })},
	}
}

// Scrub verifies everything that is stored now, in the scrubber's own pace. It is an
// error if storage.scrub is off.
func (b *Broker) Scrub(ctx context.Context) error {
	s := b.damage.scrub.Load()
	if s == nil {
		return errors.New("broker: storage.scrub is off")
	}
	return s.Pass(ctx)
}
