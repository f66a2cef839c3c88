package broker

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseStoreKey(t *testing.T) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i*37 + 11)
	}
	digits, text := hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key)
	long := bytes.Repeat(key, 32)
	for _, tc := range []struct {
		name, in string
		want     []byte // nil: refused
	}{
		{"hex", digits, key},
		{"hex, upper case, new line", strings.ToUpper(digits) + "\r\n", key},
		{"base64", text, key},
		{"base64 and a new line", text + "\n", key},
		{"32 raw bytes", string(key), key},
		{"1024 raw bytes", string(long), long},
		{"raw bytes that end like a line", string(key) + "\n", append(bytes.Clone(key), '\n')},
		{"empty", "", nil},
		{"only blanks", " \n", nil},
		{"hex, one digit short", digits[:63], nil},
		{"hex, one digit more", digits + "0", nil},
		{"hex of 48 bytes", digits + digits[:32], nil},
		{"base64, cut", text[:40], nil},
		{"base64 of 24 bytes", base64.StdEncoding.EncodeToString(key[:24]), nil},
		{"a passphrase", "correct horse battery staple, and quite a bit more of it", nil},
		{"31 raw bytes", string(key[:31]), nil},
		{"1025 raw bytes", string(long) + "\x00", nil},
		{"zeros", string(make([]byte, 32)), nil},
		{"zeros in hex", strings.Repeat("0", 64), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseStoreKey([]byte(tc.in))
			if (err == nil) != (tc.want != nil) || !bytes.Equal(got, tc.want) {
				t.Fatalf("got %x, %v", got, err)
			}
			if err != nil && !strings.Contains(err.Error(), "openssl rand -hex 32") {
				t.Errorf("the error does not say what to do: %v", err)
			}
			if err != nil && len(tc.in) > 8 && strings.Contains(err.Error(), tc.in[:8]) {
				t.Errorf("the error quotes the key: %v", err)
			}
		})
	}
}

func TestEncryptionConfig(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := write("good", strings.Repeat("0123456789abcdef", 4), 0o600)
	open := write("open", strings.Repeat("0123456789abcdef", 4), 0o644)
	bad := write("bad", "secret", 0o600)
	for _, tc := range []struct {
		name string
		cfg  EncryptionConfig
		want []string // of the joined faults; none: fine
	}{
		{"off", EncryptionConfig{}, nil},
		{"key", EncryptionConfig{KeyFile: good}, nil},
		{"all", EncryptionConfig{KeyFile: good, PreviousKeyFile: good, Cipher: "chacha20"}, nil},
		{"only the previous key", EncryptionConfig{PreviousKeyFile: good}, []string{"keyFile is required"}},
		{"only a cipher", EncryptionConfig{Cipher: "aes-256"}, []string{"keyFile is required"}},
		{"unknown cipher", EncryptionConfig{KeyFile: good, Cipher: "aes-gcm"}, []string{`want one of aes-256, chacha20, got "aes-gcm"`}},
		{"others may read it", EncryptionConfig{KeyFile: open}, []string{"chmod 600"}},
		{"both faulty", EncryptionConfig{KeyFile: bad, PreviousKeyFile: filepath.Join(dir, "none")}, []string{"keyFile " + bad, "previousKeyFile", "no such file"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.cfg.validate()
			if err == nil {
				e, lerr := tc.cfg.load()
				if err = lerr; err == nil && (e == nil) != (tc.cfg.KeyFile == "") {
					t.Errorf("loaded %v", e)
				}
			}
			if (err == nil) != (tc.want == nil) {
				t.Fatalf("error %v", err)
			}
			for _, text := range tc.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("error %q lacks %q", err, text)
				}
			}
		})
	}
}
