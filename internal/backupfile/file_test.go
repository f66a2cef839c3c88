package backupfile

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// small is a file with everything in it.
func (c *cluster) small(tb testing.TB) []byte {
	tb.Helper()
	return c.file(tb,
		stream{"DLQ", archive(state(1, 1, 0), entryBytes{name: "$SIGNET.DLQ.schema.app", seq: 1, data: []byte("x")}, end())},
		stream{"KV_prices", archive(state(1, 3, 0), entryBytes{name: "$KV.prices.bread", seq: 3, data: []byte("3")}, end())},
		stream{"OBJ_scans", archive(state(0, 0, 0), end())},
		stream{"ORDERS", archive(state(1, 2, 1), consumer("consumers/work", "work"),
			c.event(tb, "orders.new", "shop/app", 1), c.event(tb, "orders.old", "shop/app", 2), end())},
	)
}

func TestVerify(t *testing.T) {
	c := newCluster(t)
	file := c.small(t)
	p, err := Verify(bytes.NewReader(file), Trust{Root: c.root, Ring: c.ring})
	if err != nil {
		t.Fatal(err)
	}
	if p.Proven != 2 || p.Unproven != 2 || p.Key != c.signer.KeyID() || len(p.Manifest.Streams) != 4 {
		t.Errorf("%+v", p)
	}
	if s := p.Manifest.Streams[3]; s.Consumers != 1 || s.Messages != 2 || s.FirstSeq != 1 || s.EndSeq != 2 {
		t.Errorf("%+v", s)
	}
	if s := p.Manifest.Streams[1]; s.FirstSeq != 3 || s.Messages != 1 {
		t.Errorf("%+v", s)
	}
	// The archives come out as they went in, and only as they were verified.
	r, err := p.Archive(bytes.NewReader(file), "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, r); err != nil || uint64(n) != p.Manifest.Streams[3].ArchiveBytes {
		t.Errorf("%d bytes, %v", n, err)
	}
	late := bytes.Clone(file)
	at := p.archives["ORDERS"] + frameHeadBytes + 60
	late[at] ^= 1
	r, err = p.Archive(bytes.NewReader(late), "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, ErrChanged) {
		t.Errorf("changed after it was verified: %v", err)
	}
	if _, err := p.Archive(bytes.NewReader(file), "NONE"); !errors.Is(err, ErrFormat) {
		t.Errorf("an archive that is not there: %v", err)
	}
}

// Every single byte counts.
func TestEveryByteIsCovered(t *testing.T) {
	c := newCluster(t)
	file := c.small(t)
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		if _, err := Verify(bytes.NewReader(bad), Trust{Root: c.root}); err == nil {
			t.Errorf("byte %d of %d changed, and it verified", i, len(file))
		}
	}
	for n := 0; n < len(file); n += 1 + n/100 {
		if _, err := Verify(bytes.NewReader(file[:n]), Trust{Root: c.root}); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := Verify(bytes.NewReader(append(file, 0)), Trust{Root: c.root}); !errors.Is(err, ErrFormat) {
		t.Errorf("one byte more: %v", err)
	}
}

func TestVerifyTrust(t *testing.T) {
	c, other := newCluster(t), newCluster(t, 7)
	file := c.small(t)
	for name, tc := range map[string]struct {
		trust Trust
		want  error
	}{
		"another root":         {Trust{Root: other.root}, ErrForeign},
		"no root":              {Trust{}, ErrForeign},
		"key unknown now":      {Trust{Root: c.root, Ring: other.ring}, ErrNotProven},
		"key revoked since":    {Trust{Root: c.root, Ring: c.keys(t, made.Add(-45*time.Minute))}, ErrNotProven},
		"revoked before made":  {Trust{Root: c.root, Ring: c.keys(t, made.Add(-time.Minute))}, ErrChanged},
		"too small a stream":   {Trust{Root: c.root, MaxBytes: func(string) (int64, error) { return 100, nil }}, ErrTooLarge},
		"a stream not allowed": {Trust{Root: c.root, MaxBytes: func(string) (int64, error) { return 0, io.ErrNoProgress }}, io.ErrNoProgress},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Verify(bytes.NewReader(file), tc.trust); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	// The name of the root is not its signature.
	liar := *other
	liar.root = c.root
	if _, err := Verify(bytes.NewReader(liar.small(t)), Trust{Root: c.root}); !errors.Is(err, ErrForeign) {
		t.Errorf("a keyring of another root: %v", err)
	}
	// And a key of the ring is not the one that signed.
	liar = *c
	liar.signer = other.signer
	if _, err := Verify(bytes.NewReader(liar.file(t)), Trust{Root: c.root}); !errors.Is(err, ErrChanged) {
		t.Errorf("signed by a key that is not in the keyring: %v", err)
	}
}

// What an enemy can build who has everything but what is checked here.
func TestCraftedFiles(t *testing.T) {
	c := newCluster(t)
	one := c.event(t, "orders.new", "shop/app", 1)
	moved, third := one, c.event(t, "orders.new", "shop/app", 3)
	moved.name = "orders.other"
	bare := entryBytes{name: "orders.new", seq: 1, data: []byte("{}")}
	big := entryBytes{name: "orders.new", seq: 1, header: make([]byte, maxHeaderBytes+1)}
	for name, tc := range map[string]struct {
		stream  string
		archive []byte
		want    error
	}{
		"stream up":              {"../ORDERS", archive(state(1, 1, 0), one, end()), ErrFormat},
		"stream absolute":        {"/etc", archive(state(1, 1, 0), one, end()), ErrFormat},
		"stream with a dot":      {"A.B", archive(state(1, 1, 0), one, end()), ErrFormat},
		"stream without a name":  {"", archive(state(1, 1, 0), one, end()), ErrFormat},
		"consumer up":            {"ORDERS", archive(state(1, 1, 1), consumer("consumers/../../x", "../../x"), one, end()), ErrFormat},
		"consumer absolute":      {"ORDERS", archive(state(1, 1, 1), consumer("consumers//etc", "/etc"), one, end()), ErrFormat},
		"consumer with NUL":      {"ORDERS", archive(state(1, 1, 1), consumer("consumers/a\x00b", "a"), one, end()), ErrFormat},
		"consumer of two names":  {"ORDERS", archive(state(1, 1, 1), consumer("consumers/a", "../b"), one, end()), ErrFormat},
		"consumer without state": {"ORDERS", archive(state(1, 1, 1), entryBytes{name: "consumers/a", data: []byte(`{"config":{"name":"a"}}`)}, one, end()), ErrFormat},
		"consumers missing":      {"ORDERS", archive(state(1, 1, 2), consumer("consumers/a", "a"), one, end()), ErrFormat},
		"too many consumers":     {"ORDERS", archive(state(1, 1, maxConsumers+1), one, end()), ErrTooLarge},
		"no state":               {"ORDERS", archive(one, end()), ErrFormat},
		"state is nonsense":      {"ORDERS", archive(state(9, 1, 0), end()), ErrFormat},
		"state is no JSON":       {"ORDERS", archive(entryBytes{name: stateEntry, data: []byte("{")}, end()), ErrFormat},
		"a file among messages":  {"ORDERS", archive(state(1, 1, 0), entryBytes{name: "meta.inf", data: []byte("x")}, end()), ErrFormat},
		"no end":                 {"ORDERS", archive(state(1, 1, 0), one), ErrFormat},
		"after the end":          {"ORDERS", archive(state(1, 1, 0), one, end(), one), ErrFormat},
		"backwards":              {"ORDERS", archive(state(1, 2, 0), one, one, end()), ErrFormat},
		"beyond the end":         {"ORDERS", archive(state(1, 1, 0), one, third, end()), ErrFormat},
		"on another subject":     {"ORDERS", archive(state(1, 1, 0), moved, end()), ErrNotProven},
		"not attested":           {"ORDERS", archive(state(1, 1, 0), bare, end()), ErrNotProven},
		"of another tenant":      {"ORDERS", archive(state(1, 1, 0), c.event(t, "orders.new", "mill/app", 1), end()), ErrNotProven},
		"on a system subject":    {"ORDERS", archive(state(1, 1, 0), entryBytes{name: "$SYS.x", seq: 1}, end()), ErrFormat},
		"a bucket's in another":  {"KV_a", archive(state(1, 1, 0), entryBytes{name: "$KV.b.k", seq: 1}, end()), ErrFormat},
		"headers over the limit": {"ORDERS", archive(state(1, 1, 0), big, end()), ErrTooLarge},
		"name over the limit":    {"ORDERS", archive(state(1, 1, 0), entryBytes{name: strings.Repeat("a", maxNameBytes+1), seq: 1}, end()), ErrTooLarge},
		"of the old form":        {"ORDERS", []byte("a tar archive, perhaps"), ErrFormat},
		"empty":                  {"ORDERS", nil, ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Verify(bytes.NewReader(c.crafted(t, stream{tc.stream, tc.archive})), Trust{Root: c.root}); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	t.Run("twice", func(t *testing.T) {
		kv := stream{"KV_a", archive(state(0, 0, 0), end())}
		if _, err := Verify(bytes.NewReader(c.crafted(t, kv, kv)), Trust{Root: c.root}); !errors.Is(err, ErrFormat) {
			t.Errorf("%v", err)
		}
	})
	t.Run("counts that were not signed", func(t *testing.T) {
		// crafted signs a manifest without streams.
		kv := stream{"KV_a", archive(state(0, 0, 0), end())}
		if _, err := Verify(bytes.NewReader(c.crafted(t, kv)), Trust{Root: c.root}); !errors.Is(err, ErrChanged) {
			t.Errorf("%v", err)
		}
	})
}

// A backup of a damaged stream is well signed, and says that events are missing.
func TestHoles(t *testing.T) {
	c := newCluster(t)
	one, third := c.event(t, "orders.new", "shop/app", 1), c.event(t, "orders.new", "shop/app", 3)
	for name, tc := range map[string]struct {
		archive []byte
		want    error
	}{
		"a hole":              {archive(state(1, 3, 0), one, third, end()), ErrChanged},
		"the last is missing": {archive(state(1, 2, 0), one, end()), ErrChanged},
		"the first are gone":  {archive(state(1, 3, 0), third, end()), nil}, // by their age
		"all are gone":        {archive(state(4, 3, 0), end()), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Verify(bytes.NewReader(c.file(t, stream{"ORDERS", tc.archive})), Trust{Root: c.root}); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestFrames(t *testing.T) {
	huge := []byte(magic + "H\xff\xff\xff\xff")
	if _, _, err := NewReader(bytes.NewReader(huge)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a header of 4 GiB: %v", err)
	}
	// A frame that promises more than comes costs no more than what comes.
	promise := []byte(magic + "H\x00\x3f\xff\xff{}")
	if n := testing.AllocsPerRun(1, func() { _, _, _ = NewReader(bytes.NewReader(promise)) }); n > 100 {
		t.Errorf("%v allocations for a promise", n)
	}
	next := strings.Replace(magic, "\x01", "\x02", 1) + "H\x00\x00\x00\x02{}"
	if _, _, err := NewReader(strings.NewReader(next)); !errors.Is(err, ErrVersion) {
		t.Errorf("version 2: %v", err)
	}
}

func TestWriterRefusesBrokenArchives(t *testing.T) {
	c := newCluster(t)
	w, err := NewWriter(io.Discard, c.head())
	if err != nil {
		t.Fatal(err)
	}
	save := func(b []byte) func(io.Writer) error {
		return func(to io.Writer) error { _, err := to.Write(b); return err }
	}
	if err := w.Stream(StreamHead{Name: "A", Config: config("A")}, save(archive(state(1, 1, 0)))); !errors.Is(err, ErrFormat) {
		t.Errorf("an archive without its end: %v", err)
	}
	if err := w.Stream(StreamHead{Name: "../A", Config: config("A")}, save(nil)); !errors.Is(err, ErrFormat) {
		t.Errorf("a path: %v", err)
	}
}

// FuzzVerify: no file may panic, or verify unless it is the one that was made.
func FuzzVerify(f *testing.F) {
	c := newCluster(f)
	good := c.small(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(magic))
	f.Add(c.crafted(f, stream{"ORDERS", archive(state(1, 1, 1), consumer("consumers/../x", "x"), end())}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Verify(bytes.NewReader(b), Trust{Root: c.root}); err == nil && !bytes.Equal(b, good) {
			t.Errorf("a file that nobody made verifies")
		}
	})
}

// FuzzArchive reads what a snapshot may hold, without the signature in front of it.
func FuzzArchive(f *testing.F) {
	c := newCluster(f)
	f.Add(archive(state(1, 1, 1), consumer("consumers/work", "work"), c.event(f, "orders.new", "shop/app", 1), end()))
	f.Add(archive(state(0, 0, 0), end()))
	f.Add([]byte(archiveMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		messages := uint64(0)
		counts, err := scan(bytes.NewReader(b), func(m *message) error {
			if messages++; m.seq == 0 || m.subject == "" {
				t.Error("a message without a sequence or a subject")
			}
			return nil
		})
		if err == nil && counts.Messages != messages {
			t.Errorf("%d messages, counted %d", messages, counts.Messages)
		}
	})
}
