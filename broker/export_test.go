package broker

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/deadletter"
	"github.com/signetbus/signet/broker/diskguard"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/memguard"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/schedule"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/signing"
)

// Inside returns the broker's own connection to a tenant's account, which sees and
// may do everything there: what a test compares the clients' view with.
func (b *Broker) Inside(tenant string) (*nats.Conn, error) { return b.store.Conn(tenant) }

// Upstream returns the loopback address of the embedded server.
func (b *Broker) Upstream() string { return b.server.Addr().String() }

// EndServer ends the embedded server under the broker.
func (b *Broker) EndServer(ctx context.Context) error { return b.server.Shutdown(ctx) }

// Recheck is the check of the consumers that runs once a minute; it waits for a
// reload that is at work, which the one of the broker leaves to the reload.
func Recheck(ctx context.Context, b *Broker) error {
	b.reload.Lock()
	defer b.reload.Unlock()
	return revokeConsumers(ctx, b, b.Policy())
}

// LoadStoreKey is what a start reads for the encryption of the store.
func LoadStoreKey(cfg *Config) (*embed.Encryption, error) { return cfg.Storage.Encryption.load() }

// SetVolume makes a broker of c ask stat about the volume of its store.
func SetVolume(c *Config, stat diskguard.Stat) { c.Storage.testOnlyVolume = stat }

// EndForRepair is what a node with peers does when the scrubber finds damage.
func EndForRepair(b *Broker) { endForRepair(b) }

// Missing lists the nodes of the configuration that have no route to b.
func Missing(b *Broker) []string { return b.server.Cluster().Missing }

// RecheckNodes is the check of the nodes' keys that runs once a minute.
func RecheckNodes(b *Broker) { recheckNodes(b) }

// ReloadAgain is what runs once a minute after a reload that failed while nodes were away.
func ReloadAgain(ctx context.Context, b *Broker) { reloadAgain(ctx, b) }

// SetFilled makes a broker of c ask filled before it calls its store filled.
func SetFilled(c *Config, filled func() bool) { c.Storage.testOnlyFilled = filled }

// TenantsOf are the tenants that another node tells b it has.
func TenantsOf(ctx context.Context, b *Broker, node string) []string {
	var out []string
	for _, info := range b.nodes.ask(ctx, question{}) {
		for _, t := range info.Tenants {
			if info.Node == node {
				out = append(out, t.Name)
			}
		}
	}
	return out
}

// Pause makes node, which is stopped, one that hears b's questions and does not answer.
func Pause(b *Broker, node string) error {
	_, err := b.nodes.nc.Subscribe(nodeSubject+node, func(*nats.Msg) {})
	return errors.Join(err, b.nodes.nc.Flush())
}

// AnsweredFirst asks b, which leads the cluster, whether asker may be filled, and then
// how it is, and returns which was answered first. Both must be answered in time.
func AnsweredFirst(b *Broker, asker string) (string, error) {
	inbox := nats.NewInbox()
	sub, err := b.nodes.nc.SubscribeSync(inbox + ".*")
	if err != nil {
		return "", err
	}
	subject := nodeSubject + b.cfg.Name
	err = errors.Join(b.nodes.nc.PublishRequest(subject, inbox+".fill", []byte(`{"fill":"`+asker+`"}`)),
		b.nodes.nc.PublishRequest(subject, inbox+".plain", []byte("{}")))
	asked := time.Now()
	var order []string
	for range 2 {
		m, e := sub.NextMsg(peerTimeout - time.Since(asked))
		if err = errors.Join(err, e); err != nil {
			return "", err
		}
		order = append(order, strings.TrimPrefix(m.Subject, inbox+"."))
	}
	return order[0], sub.Unsubscribe()
}

// RingVersion is the version of the keyring in force.
func RingVersion(b *Broker) uint64 { return b.material.Load().ring.Version() }

// HoldReload keeps b at a reload that waits, until the function that it returns is called.
func HoldReload(b *Broker) (end func()) {
	b.reload.Lock()
	return b.reload.Unlock
}

// Reloading says whether a reload is at work.
func Reloading(b *Broker) bool {
	if b.reload.TryLock() {
		b.reload.Unlock()
		return false
	}
	return true
}

// HeldKeyring is the file in which b holds its keyring.
func HeldKeyring(b *Broker) string { return heldKeyring(&b.cfg) }

// SyncRing is the look at the stream KEYS that is taken once a minute.
func SyncRing(ctx context.Context, b *Broker) { syncRing(ctx, b) }

// RingEverywhere says whether b believes that all nodes have its keyring.
func RingEverywhere(ctx context.Context, b *Broker) bool {
	return ringEverywhere(ctx, b, b.material.Load())
}

// KeptRing is the keyring in the broker's own stream.
func KeptRing(ctx context.Context, b *Broker) ([]byte, error) {
	_, kept, err := keptRing(ctx, b)
	return kept.doc, err
}

// FillSpool puts records into the spool of the audit trail until it takes no more, and
// returns what a login is told then.
func FillSpool(b *Broker) error {
	full := func() bool { // on disk: a full queue is empty again in a moment
		st := b.journal.Stats()
		return st.SpoolBytes >= st.SpoolLimit
	}
	for !full() {
		for range 100 {
			b.journal.Note(auditlog.Entry{Kind: auditlog.KindLogin, Outcome: auditlog.OutcomeOK, Detail: strings.Repeat("x", 500)})
		}
		<-time.After(time.Millisecond)
	}
	return b.journal.Room()
}

// AuditPending is how many batches of the audit trail are on their way.
func AuditPending(b *Broker) int { return b.journal.Left() }

// PublishHeads publishes the heads of the chains of b, due or not.
func PublishHeads(ctx context.Context, b *Broker) error { return b.heads.Publish(ctx) }

// SetFetchGap sets how soon after a fetch of its keys a token may ask for another.
func SetFetchGap(c *IssuerConfig, gap time.Duration) { c.Keys.testOnlyGap = gap }

// RenewOwn is the renewal of the node's own certificates that runs once a minute.
func RenewOwn(ctx context.Context, b *Broker, now time.Time) {
	var r ownRenewal
	r.run(ctx, b, now)
}

// WarnExpiry looks for certificates that end soon at these times, as one broker does.
func WarnExpiry(b *Broker, at ...time.Time) {
	var e expiryLog
	for _, now := range at {
		e.report(b, now)
	}
}

// AskAs is what node as would send to have the pair of files renewed, with the token of
// by, and what b answers.
func AskAs(b, by *Broker, as, certFile, keyFile string) error {
	renewal, _, err := ca.NewRenewal(certFile, keyFile)
	if err != nil {
		return err
	}
	body, err := json.Marshal(&renewalAsk{Node: as, Token: signing.NodeToken(by.material.Load().shown, b.cfg.Cluster.Name, by.cfg.Name), Renewal: renewal})
	if err != nil {
		return err
	}
	_, err = grantRenewal(b, body, time.Now())
	return err
}

// Ungiven is how many names of the policy in force the configuration gives to nobody.
func Ungiven(b *Broker) int { return len(b.material.Load().ungiven) }

// DigestsTaken is how many leaves of all logs took their digest from the gate of the node.
func DigestsTaken(b *Broker) (n uint64) {
	for _, st := range logStates(b) {
		n += st.Attested
	}
	return n
}

// AskLimits puts text to b as another node would that wants leases.
func AskLimits(b *Broker, text string) (string, error) {
	m, err := b.nodes.nc.Request(limitSubject+b.cfg.Name, []byte(text), peerTimeout)
	if err != nil {
		return "", err
	}
	return string(m.Data), nil
}

// ShedByMemory is what is refused of a priority where only memory is looked at.
func ShedByMemory(m *memguard.Guard, p policy.Priority, high bool) *admission.Shortage {
	return (&guards{memory: m}).shed(p, high)
}

// SweepConsumers is what is done each minute.
func SweepConsumers(ctx context.Context, b *Broker) (stuck map[string]int) {
	s := new(consumerSweep)
	s.subs = map[string]*nats.Conn{} // the real one listens already
	for _, t := range b.Policy().Tenants() {
		s.subs[t.Name], _ = b.store.Conn(t.Name)
	}
	s.run(ctx, b)
	return s.stuckOf()
}

// Advisories is how many of each kind were heard.
func Advisories(b *Broker) (maxDeliveries, terminated uint64) {
	return b.sweep.heard[0].Load(), b.sweep.heard[1].Load()
}

// Fail hands a failure to the keeper, as the gate does.
func Fail(b *Broker, f *deadletter.Failure) bool { return b.keeper.Take(f) }

// Failing is how many failures the keeper is not done with.
func Failing(b *Broker) int { return b.keeper.Stats().Waiting }

// Repeated is how many failures had their dead letter already.
func Repeated(b *Broker) uint64 { return b.keeper.Stats().Repeated }

// RunSchedules works firings with settle in place of the acknowledgement, by the clock now, until the test ends, and
// returns the count of an outcome.
func (b *Broker) RunSchedules(t testing.TB, settle func(jetstream.Msg) error, now func() time.Time) func(schedule.Outcome) uint64 {
	t.Helper()
	ctx := context.Background()
	if err := b.firings.Load().Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	cfg := scheduleConfig(b)
	cfg.Settle, cfg.Now = settle, now
	r, err := schedule.NewRunner(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Start(ctx)
	t.Cleanup(func() { _ = r.Shutdown(ctx) })
	return r.Count
}
