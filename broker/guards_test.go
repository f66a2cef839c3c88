package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/diskguard"
	"github.com/signetbus/signet/internal/wire"
)

// volume stands for the volume of a store: what the system would say of it. The store
// itself is real, on the volume of the test.
type volume struct {
	size uint64
	used atomic.Int64 // percent
	fail atomic.Pointer[error]
}

func (v *volume) stat(string) (diskguard.Volume, error) {
	if err := v.fail.Load(); err != nil {
		return diskguard.Volume{}, *err
	}
	return diskguard.Volume{Size: v.size, Free: v.size / 100 * uint64(100-v.used.Load())}, nil
}

// onVolume is an option of newBroker: the default watermarks over v.
func onVolume(v *volume) func(*brokertest.Options) {
	return func(o *brokertest.Options) {
		o.Change = func(c *broker.Config) {
			quickDrain(c)
			c.Storage.SoftWatermark, c.Storage.HardWatermark = diskguard.DefaultSoft, diskguard.DefaultHard
			broker.SetVolume(c, v.stat)
		}
	}
}

// probe returns the status and the text of a path of the operations port.
func probe(t testing.TB, b *brokertest.Broker, path string) (int, string) {
	t.Helper()
	req := must(http.NewRequestWithContext(within(t), http.MethodGet, "http://"+b.OpsAddr().String()+path, nil))(t)
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	check(t, err)
	defer resp.Body.Close()
	return resp.StatusCode, string(must(io.ReadAll(resp.Body))(t))
}

// inForce waits until what is published on subject is refused by rule; "" waits until
// it is taken. It returns the problem.
func inForce(t testing.TB, p *peer, subject string, body []byte, rule string) *wire.Problem {
	t.Helper()
	var last *wire.Problem
	eventually(t, fmt.Sprintf("%d bytes on %s meet the rule %q", len(body), subject, rule), func() bool {
		last, _ = p.ask(t, subject, string(body))
		return last == nil && rule == "" || last != nil && last.Rule == rule
	})
	return last
}

func dlqMessages(t testing.TB, b *brokertest.Broker) uint64 {
	t.Helper()
	return must(must(insideJS(t, b, "shop").Stream(within(t), wire.StreamDLQ))(t).Info(within(t)))(t).State.Msgs
}

// TestWatermarks: each level of the volume refuses what it must, says why, lets the
// rest through, and ends by itself when the space comes back.
func TestWatermarks(t *testing.T) {
	v := &volume{size: 1 << 40}
	v.used.Store(50)
	policy := edit(t, shopPolicy, "{match: orders.checked, schema: order}\nlimits", "{match: orders.checked, schema: order, onFailure: [reject, deadLetter]}\nlimits")
	b := newBroker(t, onVolume(v), func(o *brokertest.Options) { o.Policy = policy })
	writer, wide, keeper := connect(t, b, "writer"), connect(t, b, "wide"), connect(t, b, "keeper")
	small, large := []byte("x"), make([]byte, broker.SoftPayloadBytes+1)
	for range 2 {
		writer.publish(t, "orders.eu.x", "before")
	}
	cons := must(wide.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{Durable: "d", FilterSubject: "orders.>", AckPolicy: jetstream.AckExplicitPolicy}))(t)
	added := strings.Replace(policy, "  - {name: PAYMENTS", "  - {name: MORE, subjects: [more.>], maxBytes: 1MiB}\n  - {name: PAYMENTS", 1)

	v.used.Store(86)
	p := inForce(t, writer, "orders.eu.x", large, "storage.softWatermark")
	if p.Code != wire.CodeUnavailable || p.RetryAfterMs != 1000 || !strings.Contains(p.Detail, "86 %") {
		t.Errorf("soft: %+v", p)
	}
	writer.publish(t, "orders.eu.x", "small")
	replacePolicy(t, b, added)
	if err := b.Reload(within(t)); err == nil || !strings.Contains(err.Error(), "storage.softWatermark") || !strings.Contains(err.Error(), "stream MORE of shop") {
		t.Errorf("a new stream above the soft watermark: %v", err)
	}
	reload(t, b, policy)
	if code, text := probe(t, b, "/readyz"); code != http.StatusOK {
		t.Errorf("soft: not ready: %s", text)
	}

	v.used.Store(93)
	p = inForce(t, writer, "orders.eu.x", small, "storage.hardWatermark")
	if p.Code != wire.CodeUnavailable || p.RetryAfterMs != 1000 || !strings.Contains(p.Detail, "93 %") || !strings.Contains(p.Detail, "free space") {
		t.Errorf("hard: %+v", p)
	}
	if p = inForce(t, keeper, "$KV.secrets.k", small, "storage.hardWatermark"); p == nil {
		t.Error("a bucket takes values")
	}
	check(t, writer.Publish("telemetry.x", small))
	check(t, writer.Flush())
	m := must(cons.Next(jetstream.FetchMaxWait(patience)))(t)
	if err := m.DoubleAck(within(t)); err != nil {
		t.Errorf("an acknowledgement by a consumer: %v", err)
	}
	was := dlqMessages(t, b)
	inForce(t, writer, "orders.checked", small, "storage.hardWatermark")
	eventually(t, "the dead letter", func() bool { return dlqMessages(t, b) > was })
	if code, text := probe(t, b, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "93 %") {
		t.Errorf("hard: ready: %d %s", code, text)
	}
	if code, _ := probe(t, b, "/livez"); code != http.StatusOK {
		t.Error("hard: a restart would help, says /livez")
	}
	if _, text := probe(t, b, "/metrics"); !strings.Contains(text, "\nsignet_disk_level 2\n") || !strings.Contains(text, "\nsignet_disk_used_ratio 0.93") {
		t.Error("hard: the metrics do not say it")
	}

	v.used.Store(99) // dead letters stop before they fill the volume
	eventually(t, "level full", func() bool {
		_, text := probe(t, b, "/metrics")
		return strings.Contains(text, "\nsignet_disk_level 3\n")
	})
	was = dlqMessages(t, b)
	inForce(t, writer, "orders.checked", small, "storage.hardWatermark")
	eventually(t, "the dead letter is dropped and counted", func() bool {
		_, text := probe(t, b, "/metrics")
		return strings.Contains(text, `signet_dead_letters_dropped_total{cause="store"} 1`)
	})
	if got := dlqMessages(t, b); got != was {
		t.Errorf("%d dead letters on a full volume", got-was)
	}

	v.used.Store(50)
	inForce(t, writer, "orders.eu.x", large, "")
	reload(t, b, added)
}

// TestVolumeAtTheStart: what does not fit is refused before anything is written, with
// numbers and the keys to change; a size that nobody chose is lowered instead.
func TestVolumeAtTheStart(t *testing.T) {
	broken := errors.New("the device is gone")
	for name, c := range map[string]struct {
		size   uint64
		used   int64
		fail   error
		change func(*broker.Config)
		want   []string // in the error; none: it starts
		log    string
	}{
		"room":                      {size: 1 << 40, used: 50},
		"above the soft watermark":  {size: 1 << 40, used: 90},
		"full":                      {size: 1 << 40, used: 92, want: []string{"92 % used", "storage.hardWatermark is 92 %", "81.9 GiB of 1024.0 GiB free", "nothing that is stored is lost"}},
		"a default that is lowered": {size: 1 << 30, used: 10, log: `"storage.maxBytes":858993440`},
		"the same in dev":           {size: 1 << 30, used: 10, change: func(c *broker.Config) { c.Dev, c.Storage.MaxBytes = true, 2<<30 }, log: `"storage.maxBytes":858993440`},
		"chosen and too large": {
			size: 1 << 30, used: 10, change: func(c *broker.Config) { c.Storage.MaxBytes = 2 << 30 },
			want: []string{"has 1024 MiB", "80 % (819 MiB)", "storage.maxBytes is 2048 MiB", "lower storage.maxBytes to 858993440 or less"},
		},
		"too small for the policy": {size: 64 << 20, used: 10, want: []string{"has 64 MiB", "the policy reserves", "maxBytes of streams"}},
		"nothing is known":         {fail: broken, want: []string{broken.Error()}},
		"no guard on this system":  {fail: diskguard.ErrUnsupported, log: "no guard of the volume here"},
	} {
		t.Run(name, func(t *testing.T) {
			v := &volume{size: c.size}
			v.used.Store(c.used)
			if c.fail != nil {
				v.fail.Store(&c.fail)
			}
			cfg, _ := newState(t)
			broker.SetVolume(&cfg, v.stat)
			if c.change != nil {
				c.change(&cfg)
			}
			log := &lockedLog{}
			b := must(broker.New(cfg, "test", zerolog.New(log)))(t)
			err := b.Start(within(t))
			if err == nil {
				defer func() { check(t, b.Shutdown(within(t))) }()
			}
			if (err == nil) != (c.want == nil) || len(c.want) > 1 && !errors.Is(err, broker.ErrVolume) {
				t.Fatalf("got %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to say %q", err, want)
				}
			}
			if c.want != nil {
				if left, _ := os.ReadDir(cfg.State); len(left) != 0 {
					t.Errorf("%d files were left behind", len(left))
				}
			}
			if !strings.Contains(log.String(), c.log) {
				t.Errorf("the log does not say %q: %s", c.log, log)
			}
		})
	}
}

// TestStarvedStoreStartsAnew: a store that has failed for want of space stays failed
// when there is space. The broker then ends, not before, and started anew it has
// everything that was acknowledged and takes more.
func TestStarvedStoreStartsAnew(t *testing.T) {
	v := &volume{size: 1 << 40}
	v.used.Store(50)
	b := newBroker(t, onVolume(v))
	writer := connect(t, b, "writer", reconnects)
	acked := writer.publish(t, "orders.eu.x", "kept")
	// The real store fails for real at its second block of PAYMENTS.
	check(t, os.RemoveAll(filepath.Join(b.State.Dir, "store", "jetstream", "shop", "streams", "PAYMENTS", "msgs")))
	megabyte, broken := make([]byte, 1_000_000), false
	for i := 0; i < 16 && !broken; i++ { // no answer may also mean that the machine is slow
		_, err := writer.js(t).Publish(shortly(t), "payments.x", megabyte)
		var api *jetstream.APIError
		broken = errors.As(err, &api) && api.ErrorCode == jetstream.ErrorCode(wire.CodeUnavailable)
	}
	if !broken {
		t.Fatal("the store is not broken")
	}
	v.used.Store(100)
	p := inForce(t, writer, "orders.eu.x", []byte("x"), "storage")
	eventually(t, "it says what it waits for", func() bool {
		p, _ = writer.ask(t, "orders.eu.x", "x")
		return p != nil && strings.Contains(p.Detail, "want of space")
	})
	if code, text := probe(t, b, "/livez"); code != http.StatusOK {
		t.Errorf("a restart would only fail now, /livez: %d %s", code, text)
	}
	if code, _ := probe(t, b, "/readyz"); code != http.StatusServiceUnavailable {
		t.Error("ready without a store")
	}
	select {
	case <-b.Done():
		t.Fatal("it has ended before there is space")
	default:
	}
	v.used.Store(50)
	select {
	case <-b.Done():
	case <-within(t).Done():
		t.Fatal("it goes on with a broken store")
	}
	if !errors.Is(b.Err(), broker.ErrSpaceBack) {
		t.Errorf("it ended with %v", b.Err())
	}
	b = restart(t, b)
	eventually(t, "the client is back", writer.IsConnected)
	if seq := writer.publish(t, "orders.eu.x", "after"); seq != acked+1 {
		t.Errorf("sequence %d after %d", seq, acked)
	}
	writer.publish(t, "payments.x", "after")
	_ = b
}

// shortly bounds what is to have no answer.
func shortly(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestBlindGuardKeepsItsLevel: a volume that cannot be looked at any more neither
// opens nor closes the door, and health says so.
func TestBlindGuardKeepsItsLevel(t *testing.T) {
	v, log := &volume{size: 1 << 40}, &lockedLog{}
	v.used.Store(50)
	b := newBroker(t, onVolume(v), func(o *brokertest.Options) { o.Log = log })
	writer := connect(t, b, "writer")
	broken := errors.New("the device is gone")
	v.fail.Store(&broken)
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), broken.Error()) })
	writer.publish(t, "orders.eu.x", "x")
	v.used.Store(93)
	v.fail.Store(nil)
	inForce(t, writer, "orders.eu.x", []byte("x"), "storage.hardWatermark")
}

// TestGuardSettingsAreChecked: a setting that would switch a guard off is a fault.
func TestGuardSettingsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*broker.Config)
		want   string
	}{
		"soft at hard": {func(c *broker.Config) { c.Storage.SoftWatermark = c.Storage.HardWatermark }, "storage.softWatermark, storage.hardWatermark: want"},
		"too high":     {func(c *broker.Config) { c.Storage.HardWatermark = 99 }, "storage.softWatermark, storage.hardWatermark: want"},
		"none":         {func(c *broker.Config) { c.Storage.SoftWatermark = 0 }, "storage.softWatermark, storage.hardWatermark: want"},
		"tiny memory":  {func(c *broker.Config) { c.Gate.MaxMemory = 1 << 20 }, "gate.maxMemory: want"},
		"less":         {func(c *broker.Config) { c.Gate.MaxMemory = -1 }, "gate.maxMemory: want"},
		"too much":     {func(c *broker.Config) { c.Gate.MaxMemory = math.MaxInt64 }, "gate.maxMemory: want"},
	} {
		cfg := broker.DefaultConfig()
		if err := cfg.Validate(); err == nil || strings.Contains(err.Error(), c.want) {
			t.Errorf("by default: %v", err)
		}
		c.change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestShortMemoryIsToldAndEnds: real memory over gate.maxMemory keeps new connections
// out with a reason, and the old ones in.
func TestShortMemoryIsToldAndEnds(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) {
		change := o.Change
		o.Change = func(c *broker.Config) { change(c); c.Gate.MaxMemory = 512 << 20 }
	})
	writer := connect(t, b, "writer")
	auth := must(nats.NkeyOptionFromSeed(b.Cred("narrow")))(t)
	try := func() error {
		nc, err := nats.Connect(b.URL(), auth, nats.Secure(b.TLS()), nats.NoReconnect(), nats.Timeout(patience))
		if err == nil {
			nc.Close()
		}
		return err
	}
	withBallast(768<<20, func() {
		eventually(t, "a new connection is told", func() bool {
			err := try()
			return err != nil && strings.Contains(err.Error(), "gate.maxMemory")
		})
		writer.publish(t, "orders.eu.x", "who is in is served")
		if code, text := probe(t, b, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "gate.maxMemory") {
			t.Errorf("ready: %d %s", code, text)
		}
		if _, text := probe(t, b, "/metrics"); strings.Contains(text, `signet_gate_turned_away_total{limit="gate.maxMemory"} 0`) {
			t.Error("it is not counted")
		}
	})
	eventually(t, "new connections are let in", func() bool { return try() == nil })
}

// withBallast runs do while so many bytes of the heap are in use.
func withBallast(bytes int, do func()) {
	ballast := make([]byte, bytes)
	do()
	runtime.KeepAlive(ballast)
}
