package broker_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

// smallBlocks makes nats-server store ORDERS of shop in blocks of 32,000 bytes.
func smallBlocks(t *testing.T) string {
	return edit(t, shopPolicy, "{name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}\n  - {name: PAYMENTS", "{name: ORDERS, subjects: [orders.>], maxBytes: 120KiB}\n  - {name: PAYMENTS")
}

// atRest are the ways to store.
var atRest = []struct {
	name string
	set  func(*brokertest.Options)
}{
	{"plain", func(*brokertest.Options) {}},
	{"aes-256", func(o *brokertest.Options) { o.Encrypt = true }},
	{"chacha20", func(o *brokertest.Options) {
		o.Encrypt = true
		change := o.Change
		o.Change = func(c *broker.Config) {
			if c.Storage.Encryption.Cipher = "chacha20"; change != nil {
				change(c)
			}
		}
	}},
}

// filledBroker stores events in ORDERS of shop, at least two blocks of them.
func filledBroker(t *testing.T, set func(*brokertest.Options)) *brokertest.Broker {
	t.Helper()
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = smallBlocks(t) }, set)
	c := b.Client("writer")
	for i := range 100 {
		if _, err := c.Publish(within(t), "orders.eu.x", &client.Event{ID: fmt.Sprint(i), Type: "t", Data: bytes.Repeat([]byte("x"), 200)}); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	return b
}

func storeOf(t *testing.T, b *brokertest.Broker) string {
	t.Helper()
	return must(broker.LoadConfig(b.State.Config, nil))(t).State
}

// flipBit changes one bit in the first block of a stream and returns the file.
func flipBit(t *testing.T, state, tenant, stream string) string {
	t.Helper()
	file := filepath.Join(state, "jetstream", tenant, "streams", stream, "msgs", "1.blk")
	raw := must(os.ReadFile(file))(t)
	if len(raw) < 30_000 {
		t.Fatalf("1.blk of %s has %d bytes: it is not sealed", stream, len(raw))
	}
	raw[len(raw)/2] ^= 4
	check(t, os.WriteFile(file, raw, 0o600))
	return file
}

// TestDamagedStoreIsRefused: a single node does not serve a damaged store, says what is
// damaged and which ways on there are, and has changed nothing. With the operator's
// consent it starts, serves what can be read, and health says so, also after the next
// start, which needs no consent any more.
func TestDamagedStoreIsRefused(t *testing.T) {
	for _, tt := range atRest {
		t.Run(tt.name, func(t *testing.T) { damagedStoreIsRefused(t, tt.set) })
	}
}

func damagedStoreIsRefused(t *testing.T, set func(*brokertest.Options)) {
	b := filledBroker(t, set)
	stop(t, b)
	state := storeOf(t, b)
	file := flipBit(t, state, "shop", "ORDERS")
	want := must(os.ReadFile(file))(t)

	refused := func(accept ...string) error {
		t.Helper()
		cfg := must(broker.LoadConfig(b.State.Config, nil))(t)
		cfg.Ops.Listen, cfg.AcceptDamage = "off", accept
		return must(broker.New(cfg, "test", zerolog.Nop()))(t).Start(within(t))
	}
	for range 2 { // a refusal changes nothing, so the second is the same
		err := refused()
		if !errors.Is(err, broker.ErrDamaged) {
			t.Fatalf("got %v", err)
		}
		for _, s := range []string{"shop/ORDERS", "1.blk", "sequence", "restore a backup", "--accept-damage shop/ORDERS"} {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("the error does not say %q: %v", s, err)
			}
		}
	}
	if err := refused("mill/ORDERS"); !errors.Is(err, broker.ErrDamaged) {
		t.Errorf("consent for another stream: %v", err)
	}
	if got := must(os.ReadFile(file))(t); !bytes.Equal(got, want) {
		t.Error("a start that was refused has changed the block")
	}

	var accept []string
	open := func() *brokertest.Broker {
		o := brokertest.Options{Policy: smallBlocks(t), Dir: b.State.Dir, Change: func(c *broker.Config) {
			quickDrain(c)
			c.AcceptDamage = accept
		}}
		set(&o)
		return brokertest.New(t, o)
	}
	accept = []string{"shop/ORDERS"}
	for _, when := range []string{"with consent", "after it"} {
		b := open()
		ok, detail := integrityHealth(t, b)
		if ok || !strings.Contains(detail, "shop/ORDERS") || !strings.Contains(detail, "1.blk") {
			t.Errorf("%s: health says %t %q", when, ok, detail)
		}
		if m := metric(t, b, "signet_integrity_damaged"); m != "1" {
			t.Errorf("%s: signet_integrity_damaged is %s", when, m)
		}
		if _, err := b.Client("writer").Publish(within(t), "payments.x", &client.Event{ID: when, Type: "t", Data: []byte("x")}); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		stop(t, b)
		accept = nil
	}
}

// TestScrubRaisesTheAlarm: damage under a running broker shows in log, health and
// metrics; a single node serves on.
func TestScrubRaisesTheAlarm(t *testing.T) {
	for _, tt := range atRest[:2] { // the scrubber itself is tried with all
		t.Run(tt.name, func(t *testing.T) { scrubRaisesTheAlarm(t, tt.set) })
	}
}

func scrubRaisesTheAlarm(t *testing.T, set func(*brokertest.Options)) {
	var log logBuffer
	b := newBroker(t, func(o *brokertest.Options) { o.Policy, o.Log = smallBlocks(t), &log }, set)
	c := b.Client("writer")
	for i := range 100 {
		if _, err := c.Publish(within(t), "orders.eu.x", &client.Event{ID: fmt.Sprint(i), Type: "t", Data: bytes.Repeat([]byte("x"), 200)}); err != nil {
			t.Fatal(err)
		}
	}
	check(t, b.Scrub(within(t)))
	if ok, detail := integrityHealth(t, b); !ok {
		t.Fatalf("a sound store: %s", detail)
	}
	flipBit(t, storeOf(t, b), "shop", "ORDERS")
	check(t, b.Scrub(within(t)))
	if ok, detail := integrityHealth(t, b); ok || !strings.Contains(detail, "shop/ORDERS") {
		t.Errorf("health says %t %q", ok, detail)
	}
	if m := metric(t, b, "signet_integrity_damaged"); m != "1" {
		t.Errorf("signet_integrity_damaged is %s", m)
	}
	for _, s := range []string{"the store was damaged while it runs", "integrity-damage", "1.blk"} {
		if !strings.Contains(log.String(), s) {
			t.Errorf("the log does not say %q", s)
		}
	}
	if _, err := c.Publish(within(t), "payments.x", &client.Event{ID: "1", Type: "t", Data: []byte("x")}); err != nil {
		t.Errorf("it does not serve on: %v", err)
	}
}

// TestEndForRepair: a node that must fetch a replica again ends by itself, in order.
func TestEndForRepair(t *testing.T) {
	b := newBroker(t)
	broker.EndForRepair(b.Broker)
	select {
	case <-b.Done():
	case <-within(t).Done():
		t.Fatal("it has not ended")
	}
	restart(t, b)
}

func integrityHealth(t *testing.T, b *brokertest.Broker) (bool, string) {
	t.Helper()
	s := must(admin.New(b.Client("root")).Status(within(t)))(t)
	for _, h := range s.Health {
		if h.Part == "integrity" {
			return h.OK, h.Detail
		}
	}
	t.Fatalf("health has no part integrity: %+v", s.Health)
	return false, ""
}

func metric(t *testing.T, b *brokertest.Broker, name string) string {
	t.Helper()
	resp, err := http.Get("http://" + b.OpsAddr().String() + "/metrics")
	check(t, err)
	defer resp.Body.Close()
	text := string(must(io.ReadAll(resp.Body))(t))
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no metric %s", name)
	return ""
}
