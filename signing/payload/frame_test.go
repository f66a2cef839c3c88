package payload

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// TestRoundTrip: what is encrypted comes back, of any size, and no frame has the data in
// it.
func TestRoundTrip(t *testing.T) {
	k := fixedKey(t, 1)
	rapid.Check(t, func(t *rapid.T) {
		b := Bound{
			Principal: rapid.String().Draw(t, "principal"), NATSSubject: rapid.StringMatching(`[a-z]{1,9}\.[a-z]{1,9}`).Draw(t, "subject"), Source: rapid.String().Draw(t, "source"),
			ID: rapid.String().Draw(t, "id"), Type: rapid.String().Draw(t, "type"),
		}
		contentType := rapid.StringMatching(`[a-z/]{0,40}`).Draw(t, "contentType")
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		kept := bytes.Clone(data)
		frame, err := k.Encrypt(b, contentType, data)
		if err != nil || len(frame) != Overhead+len(contentType)+len(data) || CheckFrame(frame) != nil {
			t.Fatalf("%d bytes of %d: %v", len(frame), len(data), err)
		}
		if len(data) > 8 && bytes.Contains(frame, data) {
			t.Fatal("the data is in the frame")
		}
		gotType, got, err := k.Decrypt(b, frame)
		if err != nil || gotType != contentType || !bytes.Equal(got, data) || !bytes.Equal(data, kept) {
			t.Fatalf("got %q %q, %v", gotType, got, err)
		}
	})
}

// TestEveryByteCounts: no change of a byte of the frame, or of what it is bound to, and no
// other key is accepted.
func TestEveryByteCounts(t *testing.T) {
	k := fixedKey(t, 1)
	frame, err := k.Encrypt(bound, "application/json", []byte(`{"celsius":39.5}`))
	if err != nil {
		t.Fatal(err)
	}
	tried, accepted := 0, 0
	try := func(k *Key, b Bound, frame []byte) {
		tried++
		if _, data, err := k.Decrypt(b, frame); err == nil {
			accepted++
			t.Errorf("accepted: %+v, %x: %q", b, frame, data)
		} else if !errors.Is(err, ErrAltered) && !errors.Is(err, ErrFrame) {
			t.Errorf("got %v", err)
		}
	}
	for i := range frame {
		for bit := range 8 {
			changed := bytes.Clone(frame)
			changed[i] ^= 1 << bit
			try(k, bound, changed)
		}
		try(k, bound, frame[:i])
	}
	try(k, bound, append(bytes.Clone(frame), 0))
	fields := reflect.TypeOf(bound).NumField()
	for f := range fields {
		value := reflect.ValueOf(bound).Field(f).String()
		for i := range value {
			b := bound
			changed := []byte(value)
			changed[i] ^= 1
			reflect.ValueOf(&b).Elem().Field(f).SetString(string(changed))
			try(k, b, frame)
		}
		for _, other := range []string{"", value + "x", value[1:]} {
			b := bound
			reflect.ValueOf(&b).Elem().Field(f).SetString(other)
			try(k, b, frame)
		}
		// Bytes that move from one value to the next.
		if next := (f + 1) % fields; next > f {
			b := bound
			v := reflect.ValueOf(&b).Elem()
			v.Field(next).SetString(value[len(value)-1:] + v.Field(next).String())
			v.Field(f).SetString(value[:len(value)-1])
			try(k, b, frame)
		}
	}
	try(fixedKey(t, 2), bound, frame)
	// The same key under another id: the id is bound, too.
	renamed := fixedKey(t, 1)
	renamed.id = fixedKey(t, 2).id
	try(renamed, bound, frame)
	if _, _, err := k.Decrypt(bound, frame); err != nil {
		t.Errorf("the frame itself: %v", err)
	}
	t.Logf("%d changes, %d accepted", tried, accepted)
}

func TestNoncesDiffer(t *testing.T) {
	k := fixedKey(t, 1)
	const workers, each = 8, 64
	frames := make([][][]byte, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range each {
				frame, err := k.Encrypt(bound, "", nil)
				if err != nil {
					t.Error(err)
					return
				}
				frames[w] = append(frames[w], frame)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, list := range frames {
		for _, frame := range list {
			seen[string(frame[1:headBytes])] = true
		}
	}
	if len(seen) != workers*each || k.Used() != workers*each {
		t.Errorf("%d nonces for %d frames, %d counted", len(seen), workers*each, k.Used())
	}
}

func TestKeyIsSpent(t *testing.T) {
	k := fixedKey(t, 1)
	k.used.Store(MaxEvents - 1)
	if _, err := k.Encrypt(bound, "", nil); err != nil {
		t.Errorf("the last event: %v", err)
	}
	for range 3 {
		if _, err := k.Encrypt(bound, "", nil); !errors.Is(err, ErrSpent) {
			t.Errorf("one more: got %v, want %v", err, ErrSpent)
		}
	}
	if _, err := k.Encrypt(bound, strings.Repeat("a", maxContentType+1), nil); !errors.Is(err, ErrContentType) {
		t.Errorf("long content type: %v", err)
	}
}

func TestCheckKeyID(t *testing.T) {
	good := fixedKey(t, 1).ID()
	for id, ok := range map[string]bool{
		good: true, fixedKey(t, 2).ID(): true, "": false, good[1:]: false, good + "a": false, strings.ToUpper(good): false,
		good[:51] + "b": false, good[:51] + "1": false, "." + good[1:]: false, "*" + good[1:]: false, good[:20] + "\n" + good[21:]: false,
	} {
		if err := CheckKeyID(id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// FuzzFrame: no input makes Decrypt panic or accept, but what the key has made.
func FuzzFrame(f *testing.F) {
	k := fixedKey(f, 1)
	frame, err := k.Encrypt(bound, "text/plain", []byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame)
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Add(make([]byte, Overhead))
	f.Add(frame[:len(frame)-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		contentType, got, err := k.Decrypt(bound, data)
		if err == nil && !bytes.Equal(data, frame) {
			t.Errorf("%x was accepted: %q %q", data, contentType, got)
		}
		if CheckFrame(data) != nil && err == nil {
			t.Error("CheckFrame refuses what Decrypt takes")
		}
	})
}

func BenchmarkEncrypt(b *testing.B) { bench(b, true) }

func BenchmarkDecrypt(b *testing.B) { bench(b, false) }

func bench(b *testing.B, encrypt bool) {
	for name, size := range map[string]int{"256B": 256, "2KiB": 2048} {
		b.Run(name, func(b *testing.B) {
			k := fixedKey(b, 1)
			data := make([]byte, size)
			frame, err := k.Encrypt(bound, "application/json", data)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if encrypt {
					_, err = k.Encrypt(bound, "application/json", data)
				} else {
					_, _, err = k.Decrypt(bound, frame)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
