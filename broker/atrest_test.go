package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

const planted = "planted-2c91-must-not-be-found"

// plant leaves the marker in an event, in a bucket and in a dead letter.
func plant(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	writer := b.Client("writer")
	for range 20 {
		if _, err := writer.Publish(ctx, "payments.eu", client.NewEvent("paid", []byte(`"`+planted+` event"`))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := writer.Publish(ctx, "orders.checked", client.NewEvent("order", []byte(`{"no":"`+planted+` letter"}`))); err == nil {
		t.Fatal("an order without an id was taken")
	}
	js, err := jetstream.New(b.NATS("keeper"))
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(ctx, "secrets")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(ctx, "one", []byte(planted+" value")); err != nil {
		t.Fatal(err)
	}
	inside := insideStream(t, b, "DLQ")
	eventually(t, "the dead letter is stored", func() bool {
		info, err := inside.Info(ctx)
		return err == nil && info.State.Msgs == 1
	})
}

func insideStream(t *testing.T, b *brokertest.Broker, name string) jetstream.Stream {
	t.Helper()
	nc, err := b.Inside("shop")
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkPlanted reads all three back.
func checkPlanted(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	for stream, want := range map[string]uint64{"PAYMENTS": 20, "KV_secrets": 1, "DLQ": 1} {
		s := insideStream(t, b, stream)
		info := s.CachedInfo()
		if info.State.Msgs != want {
			t.Errorf("%s has %d messages, want %d", stream, info.State.Msgs, want)
			continue
		}
		m, err := s.GetMsg(t.Context(), info.State.LastSeq)
		if err != nil || !bytes.Contains(m.Data, []byte(planted)) {
			t.Errorf("%s: %v, %v", stream, m, err)
		}
	}
}

func onDisk(t *testing.T, dir, what string) (in []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(what)) {
			in = append(in, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func stopBroker(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
}

// storeDir is State of the brokers that brokertest makes.
func storeDir(b *brokertest.Broker) string { return filepath.Join(b.State.Dir, "store") }

func TestNothingStoredIsReadableOnDisk(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*broker.Config)
		on     bool
	}{
		{"as signet init --encrypt sets it up", nil, true},
		{"off", func(c *broker.Config) { c.Storage.Encryption = broker.EncryptionConfig{} }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy, Change: tc.change})
			plant(t, b)
			key, err := os.ReadFile(b.State.StoreKey)
			if err != nil {
				t.Fatal(err)
			}
			stopBroker(t, b)
			for _, part := range []string{" event", " value", " letter"} {
				if found := onDisk(t, storeDir(b), planted+part); (len(found) == 0) != tc.on {
					t.Errorf("%q is in %v", planted+part, found)
				}
			}
			if found := onDisk(t, storeDir(b), string(bytes.TrimSpace(key))); len(found) > 0 {
				t.Errorf("the key is in %v", found)
			}
			checkPlanted(t, brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy, Change: tc.change, Dir: b.State.Dir}))
		})
	}
}

// tryStart starts a broker on the state of another one, and returns its error.
func tryStart(t *testing.T, st *broker.State, change func(*broker.EncryptionConfig)) error {
	t.Helper()
	cfg, err := broker.LoadConfig(st.Config, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Ops.Listen = "off"
	change(&cfg.Storage.Encryption)
	var log bytes.Buffer
	b, err := broker.New(cfg, "test", zerolog.New(&log))
	if err != nil {
		return err
	}
	check := b.Check(t.Context())
	err = b.Start(t.Context())
	if err == nil {
		stopBroker(t, &brokertest.Broker{Broker: b})
		t.Fatal("it started")
	}
	if check == nil {
		t.Errorf("--check finds nothing; the start says %v", err)
	}
	return errors.Join(err, check)
}

func TestWrongStoreKeyLosesNothing(t *testing.T) {
	first := brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy})
	plant(t, first)
	stopBroker(t, first)
	wrong := writeKey(t, first.State.Dir, "wrong.key", 1)
	for name, tc := range map[string]struct {
		change func(*broker.EncryptionConfig)
		text   string
	}{
		"wrong": {func(e *broker.EncryptionConfig) { e.KeyFile = wrong }, "wrong key"},
		"none":  {func(e *broker.EncryptionConfig) { *e = broker.EncryptionConfig{} }, "set storage.encryption.keyFile again"},
		"gone":  {func(e *broker.EncryptionConfig) { e.KeyFile += ".gone" }, "no such file"},
	} {
		if err := tryStart(t, first.State, tc.change); !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s key: error %q lacks %q", name, err, tc.text)
		}
	}
	checkPlanted(t, brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy, Dir: first.State.Dir}))
}

// TestKeyOfAnotherStore: a sealed store key that the configured key opens, and which is
// that of another store, is no damage: nothing is judged, accepted or set aside.
func TestKeyOfAnotherStore(t *testing.T) {
	first := brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy})
	plant(t, first)
	stopBroker(t, first)
	key := must(os.ReadFile(first.State.StoreKey))(t)
	other := brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy, Dir: t.TempDir(), Change: func(c *broker.Config) {
		check(t, os.WriteFile(c.Storage.Encryption.KeyFile, key, 0o600))
	}})
	stopBroker(t, other)
	from, to := storeOf(t, other), storeOf(t, first)
	kept := map[string][]byte{}
	for _, name := range []string{"store-key.json", "store-key.copy.json"} {
		kept[name] = must(os.ReadFile(filepath.Join(to, name)))(t)
		check(t, os.WriteFile(filepath.Join(to, name), must(os.ReadFile(filepath.Join(from, name)))(t), 0o600))
	}
	cfg := must(broker.LoadConfig(first.State.Config, nil))(t)
	cfg.Ops.Listen, cfg.AcceptDamage = "off", []string{"shop/ORDERS"}
	err := must(broker.New(cfg, "test", zerolog.Nop()))(t).Start(within(t))
	if err == nil || errors.Is(err, broker.ErrDamaged) || !strings.Contains(err.Error(), "wrong key") || !strings.Contains(err.Error(), "put back the store-key.json") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(to, "quarantine")); err == nil {
		t.Error("something was set aside")
	}
	for name, text := range kept {
		check(t, os.WriteFile(filepath.Join(to, name), text, 0o600))
	}
	checkPlanted(t, brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy, Dir: first.State.Dir}))
}

func TestStoreKeyChange(t *testing.T) {
	first := brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy})
	plant(t, first)
	stopBroker(t, first)
	old, key := first.State.StoreKey, ""
	for i := range 3 {
		key = writeKey(t, first.State.Dir, fmt.Sprintf("%d.key", i), byte(i+2))
		var log logBuffer
		b := brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy, Dir: first.State.Dir, Log: &log, Change: func(c *broker.Config) {
			c.Storage.Encryption = broker.EncryptionConfig{KeyFile: key, PreviousKeyFile: old}
		}})
		checkPlanted(t, b)
		for _, want := range []string{"sealed anew", `"damaged":0`, "store verified"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log of the change does not say %q", want)
			}
		}
		stopBroker(t, b)
		b = brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy, Dir: first.State.Dir, Change: func(c *broker.Config) {
			c.Storage.Encryption = broker.EncryptionConfig{KeyFile: key}
		}})
		checkPlanted(t, b)
		stopBroker(t, b)
		was := old
		if err := tryStart(t, first.State, func(e *broker.EncryptionConfig) { e.KeyFile = was }); !strings.Contains(err.Error(), "wrong key") {
			t.Errorf("the key before: %v", err)
		}
		old = key
	}
}

// State of a release that knew no encryption starts as it did, and is not turned
// into half of one.
func TestPlainStoreStaysPlain(t *testing.T) {
	off := func(c *broker.Config) { c.Storage.Encryption = broker.EncryptionConfig{} }
	first := brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy, Change: off})
	plant(t, first)
	stopBroker(t, first)
	if err := tryStart(t, first.State, func(*broker.EncryptionConfig) {}); !strings.Contains(err.Error(), "take storage.encryption out") {
		t.Errorf("with a key: %v", err)
	}
	checkPlanted(t, brokertest.New(t, brokertest.Options{Encrypt: true, Policy: shopPolicy, Dir: first.State.Dir, Change: off}))
}

func writeKey(t *testing.T, dir, name string, first byte) string {
	t.Helper()
	key := make([]byte, 32)
	for i := range key {
		key[i] = first + byte(i*7)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
