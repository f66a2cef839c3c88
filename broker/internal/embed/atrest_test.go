package embed

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

func newKey(t *testing.T) []byte {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return key
}

// sealedServer starts a server on dir with copies of the keys; the caller stops it.
func sealedServer(t *testing.T, dir string, e *Encryption) (*Server, error) {
	t.Helper()
	cfg := Config{StoreDir: dir, ServerName: "test", Tenants: []TenantAccount{{Name: "shop", MaxBytes: 64 << 20}}}
	if e != nil {
		cfg.Encryption = &Encryption{Key: bytes.Clone(e.Key), PreviousKey: bytes.Clone(e.PreviousKey), Cipher: e.Cipher}
		defer cfg.Encryption.Wipe() // as the broker does: Start must not need them later
	}
	return Start(testContext(t), cfg)
}

func mustStart(t *testing.T, dir string, e *Encryption) *Server {
	t.Helper()
	s, err := sealedServer(t, dir, e)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	return s
}

const (
	marker = "marker-7f3a-found-on-disk"
	stored = 40
	acked  = 7
)

// fill stores what a broker stores: a stream, a bucket, a durable consumer that has
// got somewhere.
func fill(t *testing.T, s *Server) {
	t.Helper()
	ctx := testContext(t)
	js, err := jetstream.New(internal(t, s, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, MaxBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for i := range stored {
		if _, err := js.Publish(ctx, "orders.new", []byte(fmt.Sprint(marker, i))); err != nil {
			t.Fatal(err)
		}
	}
	kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "settings", MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for i := range stored {
		if _, err := kv.Put(ctx, "colour", []byte(fmt.Sprint(marker, "kv", i))); err != nil {
			t.Fatal(err)
		}
	}
	cons, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "billing", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := cons.Fetch(acked)
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		if err := m.DoubleAck(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// checkFilled reads all of it back.
func checkFilled(t *testing.T, s *Server) {
	t.Helper()
	ctx := testContext(t)
	js, err := jetstream.New(internal(t, s, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, "ORDERS")
	if err != nil {
		t.Fatalf("the stream: %v", err)
	}
	for i := range stored {
		m, err := stream.GetMsg(ctx, uint64(i+1))
		if err != nil || string(m.Data) != fmt.Sprint(marker, i) {
			t.Fatalf("message %d: %v, %v", i+1, m, err)
		}
	}
	kv, err := js.KeyValue(ctx, "settings")
	if err != nil {
		t.Fatalf("the bucket: %v", err)
	}
	if e, err := kv.Get(ctx, "colour"); err != nil || string(e.Value()) != fmt.Sprint(marker, "kv", stored-1) {
		t.Fatalf("the key: %v, %v", e, err)
	}
	cons, err := stream.Consumer(ctx, "billing")
	if err != nil {
		t.Fatalf("the durable consumer: %v", err)
	}
	if info := cons.CachedInfo(); info.AckFloor.Stream != acked {
		t.Fatalf("the durable consumer has acknowledged %d, want %d", info.AckFloor.Stream, acked)
	}
}

// files reads everything under dir.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		out[path] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func holding(t *testing.T, dir, what string) (in []string) {
	t.Helper()
	for path, b := range files(t, dir) {
		if bytes.Contains(b, []byte(what)) {
			in = append(in, path)
		}
	}
	return in
}

func TestAtRestHidesWhatIsStored(t *testing.T) {
	key := newKey(t)
	for _, tc := range []struct {
		name string
		e    *Encryption
	}{
		{"off", nil},
		{CipherAES, &Encryption{Key: key, Cipher: CipherAES}},
		{CipherChaCha, &Encryption{Key: key, Cipher: CipherChaCha}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustStart(t, dir, tc.e)
			if want := tc.name; want != "off" && s.AtRest() != (AtRest{Cipher: want}) {
				t.Errorf("AtRest %+v", s.AtRest())
			}
			fill(t, s)
			stop(t, s)
			for _, secret := range []string{marker, "orders.new"} {
				if found := holding(t, dir, secret); (len(found) > 0) != (tc.e == nil) {
					t.Errorf("%q is in %v", secret, found)
				}
			}
			if found := holding(t, dir, string(key)); len(found) > 0 {
				t.Errorf("the key is in %v", found)
			}
			s = mustStart(t, dir, tc.e)
			checkFilled(t, s)
			stop(t, s)
		})
	}
}

// What nats-server does with a wrong key, or none, is to start without the streams.
func TestAtRestRefusals(t *testing.T) {
	right, other, third := newKey(t), newKey(t), newKey(t)
	sealedDir, plainDir, lostDir := t.TempDir(), t.TempDir(), t.TempDir()
	for dir, e := range map[string]*Encryption{sealedDir: {Key: right}, plainDir: nil, lostDir: {Key: right}} {
		s := mustStart(t, dir, e)
		fill(t, s)
		stop(t, s)
	}
	for _, name := range []string{storeKeyFile, storeKeyCopy} {
		if err := os.Rename(filepath.Join(lostDir, name), filepath.Join(lostDir, name+".away")); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name, dir string
		e         *Encryption
		want      error
		text      string
	}{
		{"no key", sealedDir, nil, ErrEncrypted, "storage.encryption.keyFile"},
		{"wrong key", sealedDir, &Encryption{Key: other}, ErrWrongKey, "previousKeyFile"},
		{"two wrong keys", sealedDir, &Encryption{Key: other, PreviousKey: third}, ErrWrongKey, "and that of previousKeyFile"},
		{"another cipher", sealedDir, &Encryption{Key: right, Cipher: CipherChaCha}, ErrConfig, "leave the cipher out"},
		{"plain data", plainDir, &Encryption{Key: right}, ErrPlain, "take storage.encryption out"},
		{"store key lost, key given", lostDir, &Encryption{Key: right}, ErrNoStoreKey, "from a backup"},
		{"store key lost, no key", lostDir, nil, ErrNoStoreKey, "from a backup"},
		{"short key", sealedDir, &Encryption{Key: right[:31]}, ErrConfig, "31 bytes"},
		{"unknown cipher", sealedDir, &Encryption{Key: right, Cipher: "rot13"}, ErrConfig, "rot13"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := files(t, tc.dir)
			s, err := sealedServer(t, tc.dir, tc.e)
			if err == nil {
				stop(t, s)
				t.Fatal("it started")
			}
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error %v, want %v with %q", err, tc.want, tc.text)
			}
			if cerr := CheckEncryption(tc.dir, tc.e); !errors.Is(cerr, tc.want) {
				t.Errorf("CheckEncryption: %v, want %v", cerr, tc.want)
			}
			for _, key := range [][]byte{right, other, third} {
				if strings.Contains(err.Error(), string(key)) || strings.Contains(err.Error(), fmt.Sprintf("%x", key)) {
					t.Error("the error holds a key")
				}
			}
			after := files(t, tc.dir)
			if len(after) != len(before) {
				t.Errorf("%d files before, %d after", len(before), len(after))
			}
			for path, b := range before {
				if !bytes.Equal(after[path], b) {
					t.Errorf("%s was changed", path)
				}
			}
		})
	}
	unread := t.TempDir()
	for _, name := range []string{storeKeyFile, storeKeyCopy} { // unlike a mode, this holds for root too
		if err := os.Mkdir(filepath.Join(unread, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := CheckEncryption(unread, &Encryption{Key: right}); err == nil || errors.Is(err, ErrWrongKey) || !strings.Contains(err.Error(), "read the sealed store key") {
		t.Errorf("files that cannot be read: %v", err)
	}
	// Nothing was lost by any of it.
	for dir, e := range map[string]*Encryption{sealedDir: {Key: right}, plainDir: nil} {
		s := mustStart(t, dir, e)
		checkFilled(t, s)
		stop(t, s)
	}
}

func TestKeyChange(t *testing.T) {
	first, second, third := newKey(t), newKey(t), newKey(t)
	dir := t.TempDir()
	s := mustStart(t, dir, &Encryption{Key: first})
	fill(t, s)
	stop(t, s)
	for _, step := range []struct {
		name     string
		e        *Encryption
		resealed bool
	}{
		{"new and previous", &Encryption{Key: second, PreviousKey: first}, true},
		{"again, before the configuration is changed", &Encryption{Key: second, PreviousKey: first}, false},
		{"new only", &Encryption{Key: second}, false},
		{"once more", &Encryption{Key: third, PreviousKey: second}, true},
		{"third only", &Encryption{Key: third}, false},
	} {
		s := mustStart(t, dir, step.e)
		if got := s.AtRest(); got != (AtRest{Cipher: CipherAES, Resealed: step.resealed}) {
			t.Errorf("%s: %+v", step.name, got)
		}
		checkFilled(t, s)
		stop(t, s)
	}
	for name, old := range map[string][]byte{"first": first, "second": second} {
		if err := CheckEncryption(dir, &Encryption{Key: old}); !errors.Is(err, ErrWrongKey) {
			t.Errorf("the %s key still opens it: %v", name, err)
		}
	}
}

// A change of the key may be cut at any write: the state then is one of these.
func TestKeyChangeCutInTheMiddle(t *testing.T) {
	first, second := newKey(t), newKey(t)
	key := storeKey{key: newKey(t), cipher: CipherAES}
	old, err := seal(key, first)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := seal(key, second)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name        string
		main, extra []byte // nil: no file
		e           *Encryption
		opens       bool
	}{
		{"before it, as asked", old, old, &Encryption{Key: second, PreviousKey: first}, true},
		{"between the files, asked again", changed, old, &Encryption{Key: second, PreviousKey: first}, true},
		{"between the files, the new key alone", changed, old, &Encryption{Key: second}, true},
		{"between the files, taken back", changed, old, &Encryption{Key: first}, true},
		{"only the first file, of a new store", changed, nil, &Encryption{Key: second}, true},
		{"the first file damaged", append([]byte("x"), changed[1:]...), changed, &Encryption{Key: second}, true},
		{"the first file empty", []byte{}, changed, &Encryption{Key: second}, true},
		{"the first file gone", nil, changed, &Encryption{Key: second}, true},
		{"both damaged", changed[:40], changed[:41], &Encryption{Key: second}, false},
		{"both old, the new key alone", old, old, &Encryption{Key: second}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string][]byte{storeKeyFile: tc.main, storeKeyCopy: tc.extra, storeKeyFile + ".new": changed[:10]} {
				if text == nil {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			at, err := unlock(dir, tc.e)
			if !tc.opens {
				if !errors.Is(err, ErrWrongKey) {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err != nil || at.key != string(key.key) {
				t.Fatalf("not the store key: %v", err)
			}
			// Both files are good now, under the key that was asked for alone.
			at, err = unlock(dir, &Encryption{Key: tc.e.Key})
			if err != nil || at.key != string(key.key) || at.Resealed {
				t.Fatalf("after the repair: %v", err)
			}
		})
	}
}

// Every bit of a sealed key counts: what is changed does not open, or means the
// same to JSON (the case of a name).
func TestSealedKeyTakesNoChange(t *testing.T) {
	sealing, key := newKey(t), storeKey{key: newKey(t), cipher: CipherAES}
	text, err := seal(key, sealing)
	if err != nil {
		t.Fatal(err)
	}
	if !opens(t, text, sealing, key) {
		t.Fatal("it does not open as it is")
	}
	refused := 0
	for i := range text[:len(text)-1] {
		for bit := range 8 {
			changed := bytes.Clone(text)
			changed[i] ^= 1 << bit
			if !opens(t, changed, sealing, key) {
				refused++
			}
		}
	}
	if all := 8 * (len(text) - 1); refused < all*9/10 {
		t.Errorf("%d of %d changes refused", refused, all)
	}
	if opens(t, bytes.Replace(text, []byte(CipherAES), []byte(CipherChaCha), 1), sealing, key) {
		t.Error("the cipher was exchanged")
	}
}

// opens reports whether text opens, and fails the test when it opens as another key.
func opens(t *testing.T, text, sealing []byte, want storeKey) bool {
	t.Helper()
	s := &sealed{text: text}
	s.bad = s.parse()
	k, err := s.open(sealing)
	if err != nil {
		return false
	}
	if !bytes.Equal(k.key, want.key) || k.cipher != want.cipher {
		t.Fatalf("%q opens as another key", text)
	}
	return true
}

func FuzzSealedKey(f *testing.F) {
	sealing, key := bytes.Repeat([]byte("k3y"), 11), storeKey{key: bytes.Repeat([]byte{7}, storeKeyBytes), cipher: CipherAES}
	text, err := seal(key, sealing)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"format":"signet-store-key/1","cipher":"aes-256","salt":"","nonce":"","key":""}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, text []byte) { opens(t, text, sealing, key) })
}

func TestAtRestSurvivesReloads(t *testing.T) {
	key := newKey(t)
	dir := t.TempDir()
	s := mustStart(t, dir, &Encryption{Key: key})
	if err := s.ReloadAccounts([]TenantAccount{{Name: "late", MaxBytes: 16 << 20}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	fill(t, s) // streams that are made after a reload
	stop(t, s)
	if found := holding(t, dir, marker); len(found) > 0 {
		t.Errorf("after a reload %q is in %v", marker, found)
	}
	s = mustStart(t, dir, &Encryption{Key: key})
	checkFilled(t, s)
	stop(t, s)
}

func TestKeysAreInNoText(t *testing.T) {
	key := newKey(t)
	var mu sync.Mutex
	var lines strings.Builder
	cfg := Config{
		StoreDir: t.TempDir(), ServerName: "test", Debug: true, Encryption: &Encryption{Key: key, PreviousKey: key},
		Tenants: []TenantAccount{{Name: "shop", MaxBytes: 64 << 20}},
		Log:     func(_, msg string) { mu.Lock(); defer mu.Unlock(); lines.WriteString(msg + "\n") },
	}
	before := fmt.Sprintf("%v %+v %#v %v %+v", cfg, cfg, cfg, cfg.Encryption, *cfg.Encryption)
	s, err := Start(context.WithoutCancel(t.Context()), cfg)
	if err != nil {
		t.Fatal(err)
	}
	inside := s.cfg.atRest.key
	fill(t, s)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	text := s.cfg.render(s.cfg.Tenants, s.limits) + fmt.Sprintf("%v %+v %#v", s.cfg, s.cfg, s.cfg)
	if s.cfg.Encryption != nil {
		t.Error("the server keeps the sealing key")
	}
	stop(t, s)
	mu.Lock()
	defer mu.Unlock()
	if lines.Len() == 0 {
		t.Error("no log lines: the test proves nothing")
	}
	for name, text := range map[string]string{"configuration": before, "server": text, "log": lines.String()} {
		for _, secret := range []string{string(key), inside} {
			for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret)), fmt.Sprintf("%q", secret)} {
				if strings.Contains(text, strings.Trim(form, "[]")) {
					t.Errorf("the %s shows a key", name)
				}
			}
		}
	}
}
