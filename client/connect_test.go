package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

func TestConnectRefusesOtherNonces(t *testing.T) {
	// The PAE of a DSSE envelope, a short one, and one outside the alphabet.
	for _, nonce := range []string{"DSSEv1 46 https://cloudevents.io/verifiability/dsse/v0.1 2 {}", "abc", "abcdefghijklm n"} {
		f := newFakeBroker(t)
		f.nonce = nonce
		_, err := Connect(context.Background(), f.url(), f.options()...)
		if !errors.Is(err, ErrNonce) {
			t.Errorf("nonce %q: error = %v", nonce, err)
		}
	}
}

func TestConnectNeedsAKeyring(t *testing.T) {
	f := newFakeBroker(t)
	_, other := testSeed(t, nkeys.PrefixByteOperator)
	_, err := Connect(context.Background(), f.url(), f.options(WithRoot(other))...)
	if !errors.Is(err, ErrKeyring) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("another root: error = %v", err)
	}
	file := filepath.Join(t.TempDir(), "keyring.json")
	if _, err := Connect(context.Background(), f.url(), f.options(WithKeyringFile(file))...); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: error = %v", err)
	}
	writeFile(t, file, f.ring)
	f.ring = nil
	f.connect(WithKeyringFile(file))
}

func TestConnectChecksTheCertificate(t *testing.T) {
	f, g := newFakeBroker(t), newFakeBroker(t)
	if _, err := Connect(context.Background(), f.url(), f.options(WithTLSRoots(g.roots))...); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error = %v", err)
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	f := newFakeBroker(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Connect(ctx, f.url(), f.options()...); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

func TestCloseAndDrain(t *testing.T) {
	f := newFakeBroker(t)
	c := f.connect()
	if !c.Connected() || c.Err() != nil {
		t.Errorf("connected = %v, Err = %v", c.Connected(), c.Err())
	}
	if err := c.Drain(context.Background()); err != nil {
		t.Errorf("Drain: %v", err)
	}
	receive(t, c.Closed())
	if !errors.Is(c.Err(), ErrClosed) {
		t.Errorf("Err = %v", c.Err())
	}
	c.Close()
}

func TestOptions(t *testing.T) {
	_, user := testSeed(t, nkeys.PrefixByteUser)
	_, root := testSeed(t, nkeys.PrefixByteOperator)
	sign := func([]byte) ([]byte, error) { return nil, nil }
	good := []Option{WithNkey(user, sign), WithRoot(root)}
	tests := []struct {
		name string
		url  string
		opts []Option
		want error
	}{
		{"no root", "tls://h", []Option{WithNkey(user, sign)}, ErrNoRoot},
		{"no credential", "tls://h", []Option{WithRoot(root)}, ErrInvalidOption},
		{"no url", "", good, ErrInvalidOption},
		{"scheme", "http://h", good, ErrInvalidOption},
		{"ws", "ws://h", good, ErrInvalidOption},
		{"credential in url", "tls://u:p@h", good, ErrInvalidOption},
		{"path", "tls://h/x", good, ErrInvalidOption},
		{"second url", "tls://h,http://h", good, ErrInvalidOption},
		{"no host", "tls://:4222", good, ErrInvalidOption},
		{"root is a user", "tls://h", []Option{WithRoot(user)}, ErrInvalidOption},
		{"user is a root", "tls://h", []Option{WithNkey(root, sign)}, ErrInvalidOption},
		{"no sign", "tls://h", []Option{WithNkey(user, nil)}, ErrInvalidOption},
		{"insecure TLS", "tls://h", []Option{WithTLSConfig(&tls.Config{InsecureSkipVerify: true})}, ErrInvalidOption},
		{"old TLS", "tls://h", []Option{WithTLSConfig(&tls.Config{MaxVersion: tls.VersionTLS12})}, ErrInvalidOption},
		{"nil TLS", "tls://h", []Option{WithTLSConfig(nil)}, ErrInvalidOption},
		{"name", "tls://h", []Option{WithName("")}, ErrInvalidOption},
		{"timeout", "tls://h", []Option{WithTimeout(time.Millisecond)}, ErrInvalidOption},
		{"in flight", "tls://h", []Option{WithMaxInFlight(0)}, ErrInvalidOption},
		{"retry", "tls://h", []Option{WithRetry(RetryPolicy{Retries: -1})}, ErrInvalidOption},
		{"reconnect", "tls://h", []Option{WithReconnectWait(0)}, ErrInvalidOption},
		{"error handler", "tls://h", []Option{WithErrorHandler(nil)}, ErrInvalidOption},
		{"invalid handler", "tls://h", []Option{WithInvalidHandler(nil)}, ErrInvalidOption},
		{"state handler", "tls://h", []Option{WithStateHandler(nil)}, ErrInvalidOption},
		{"keyring file", "tls://h", []Option{WithKeyringFile("")}, ErrInvalidOption},
		{"no roots file", "tls://h", []Option{WithTLSRoots("/nonexistent")}, fs.ErrNotExist},
		{"no context", "", []Option{WithContext("none")}, fs.ErrNotExist},
	}
	t.Setenv(EnvHome, t.TempDir())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Connect(context.Background(), tt.url, tt.opts...)
			if !errors.Is(err, tt.want) {
				t.Errorf("error = %v, want %v", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "u:p") {
				t.Errorf("the credential is in the error: %v", err)
			}
		})
	}
}

func TestServerURL(t *testing.T) {
	for in, want := range map[string]string{"h": "tls://h", "h:1": "tls://h:1", "nats://h:1": "tls://h:1", "tls://[::1]:1": "tls://[::1]:1"} {
		if got, err := serverURL(in); got != want || err != nil {
			t.Errorf("serverURL(%q) = %q, %v", in, got, err)
		}
	}
}

func TestSeedFile(t *testing.T) {
	dir := t.TempDir()
	user, public := testSeed(t, nkeys.PrefixByteUser)
	account, _ := testSeed(t, nkeys.PrefixByteAccount)
	name := filepath.Join(dir, "seed")
	writeFile(t, name, append(append([]byte{}, user...), '\n'))
	id, err := loadIdentity(name)
	if err != nil || id.public != public {
		t.Fatalf("identity = %+v, %v", id, err)
	}
	nonce := []byte("abcdefghijklmn-")
	sig, err := id.signNonce(nonce)
	if err != nil {
		t.Fatal(err)
	}
	kp, err := nkeys.FromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if err := kp.Verify(nonce, sig); err != nil {
		t.Errorf("signature: %v", err)
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(name, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := loadIdentity(name); !errors.Is(err, ErrInvalidOption) || !strings.Contains(err.Error(), "0640") {
			t.Errorf("mode 0640: error = %v", err)
		}
	}
	for what, data := range map[string][]byte{"account": account, "text": []byte("not a seed"), "empty": nil, "large": make([]byte, 4096)} {
		file := filepath.Join(dir, what)
		writeFile(t, file, data)
		_, err := loadIdentity(file)
		if !errors.Is(err, ErrInvalidOption) {
			t.Errorf("%s: error = %v", what, err)
		}
		if err != nil && strings.Contains(err.Error(), string(account)) {
			t.Errorf("%s: the seed is in the error", what)
		}
	}
	if _, err := loadIdentity(dir); !errors.Is(err, ErrInvalidOption) {
		t.Errorf("directory: error = %v", err)
	}
}

func TestContexts(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	t.Setenv(EnvHome, home)
	if names, err := ListContexts(); err != nil || names != nil {
		t.Fatalf("ListContexts = %v, %v", names, err)
	}
	if _, err := LoadContext(""); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("nothing selected: %v", err)
	}
	want := Context{Name: "dev", URL: "tls://127.0.0.1:4222", NkeySeedFile: "/k/a.nk", CAFile: "ca.pem", RootKey: "OX"}
	for _, name := range []string{"prod", "dev"} {
		c := want
		c.Name = name
		if err := SaveContext(&c); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := ListContexts(); err != nil || !reflect.DeepEqual(names, []string{"dev", "prod"}) {
		t.Fatalf("ListContexts = %v, %v", names, err)
	}
	if err := SelectContext("dev"); err != nil {
		t.Fatal(err)
	}
	got, err := LoadContext("")
	want.CAFile = filepath.Join(home, "contexts", "ca.pem")
	if err != nil || *got != want {
		t.Fatalf("LoadContext = %+v, %v, want %+v", got, err, want)
	}
	info, err := os.Stat(filepath.Join(home, "contexts", "dev.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode = %v, %v", info.Mode(), err)
	}
	if err := RemoveContext("dev"); err != nil {
		t.Fatal(err)
	}
	if _, err := SelectedContext(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the selection outlived its context: %v", err)
	}
	if err := SelectContext("dev"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("SelectContext of none: %v", err)
	}
}

func TestContextsAreStrict(t *testing.T) {
	home := t.TempDir()
	t.Setenv(EnvHome, home)
	if err := SaveContext(&Context{Name: "ok", URL: "tls://h"}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`{"url":"tls://h","password":"x"}`, `{"url":"tls://h"} {}`, `{"url":""}`, `{}`, ``, `[]`} {
		writeFile(t, filepath.Join(home, "contexts", "bad.json"), []byte(text))
		if _, err := LoadContext("bad"); !errors.Is(err, ErrInvalidOption) {
			t.Errorf("%s: error = %v", text, err)
		}
	}
	for _, name := range []string{"", "..", "../ok", ".ok", "a/b", `a\b`, "a b", strings.Repeat("a", 65)} {
		if err := SaveContext(&Context{Name: name, URL: "tls://h"}); !errors.Is(err, ErrInvalidOption) {
			t.Errorf("SaveContext %q: error = %v", name, err)
		}
		if name != "" {
			if _, err := LoadContext(name); !errors.Is(err, ErrInvalidOption) {
				t.Errorf("LoadContext %q: error = %v", name, err)
			}
		}
	}
	if err := SelectContext(""); err == nil {
		t.Error("SelectContext of the empty name")
	}
}

func TestConnectWithContext(t *testing.T) {
	f := newFakeBroker(t)
	t.Setenv(EnvHome, t.TempDir())
	err := SaveContext(&Context{Name: "dev", URL: f.url(), NkeySeedFile: f.seed, CAFile: f.roots, RootKey: f.root})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Connect(context.Background(), "", WithContext("dev"))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
