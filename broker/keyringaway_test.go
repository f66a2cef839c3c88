package broker_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/signing/keyring"
)

// TestKeyringAwayMakesNoLetter: while a reader has no keyring that could tell, what it gets
// waits with it, delivered once; when there is one, all of it comes to the handler, also
// what the server did not deliver meanwhile because so much was in flight.
func TestKeyringAwayMakesNoLetter(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = failPolicy })
	ctx := within(t)
	now := time.Now()
	whole := must(keyring.Parse(must(os.ReadFile(b.State.Keyring))(t), b.State.Root, now))(t)
	other := must(must(nkeys.CreateServer())(t).PublicKey())(t)
	root := must(os.ReadFile(b.State.RootSeed))(t)
	file := filepath.Join(t.TempDir(), "keyring.json")
	write := func(version uint64, keys []keyring.Key) {
		ring := must(keyring.New(version, now.Add(-time.Minute), now.Add(time.Hour), keys))(t)
		check(t, os.WriteFile(file, must(ring.Sign(root))(t), 0o600))
	}
	write(1, []keyring.Key{{ID: other, Alg: "ed25519", Role: "broker", Principal: "another", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}})
	c := b.Client("worker", client.WithKeyringFile(file))
	check(t, os.Remove(file))

	const n, inFlight = 5, 2
	got := make(chan *client.Delivery, 10*n)
	sub := must(c.Subscribe(ctx, "work.>", func(_ context.Context, d *client.Delivery) error {
		got <- d
		return nil
	}, client.Durable("w"), client.SubMaxInFlight(inFlight), client.AckWait(2*time.Minute)))(t)
	t.Cleanup(sub.Stop)
	brokertest.PublishNumbers(ctx, t, b.Client("writer"), "work.a", 0, n)
	eventually(t, "as many as may be in flight are held", func() bool { return sub.Stats().Deferred == inFlight })
	write(2, whole.Keys())
	seen := map[uint64]bool{}
	eventually(t, "all events", func() bool {
		select {
		case d := <-got:
			seen[d.Sequence] = true
			if d.NumDelivered != 1 {
				t.Errorf("event %d was delivered %d times", d.Sequence, d.NumDelivered)
			}
		default:
		}
		return len(seen) == n
	})
	if got := letters(t, insideJS(t, b, "shop")); len(got) > 0 {
		t.Errorf("dead letters: %v", got)
	}
}
