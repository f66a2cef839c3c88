package backupfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

var made = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// cluster is a root, a broker key, and a ring that has it.
type cluster struct {
	root   string
	signer *signing.Signer
	ring   *keyring.Ring
	doc    []byte
}

// newCluster is the same cluster each time for the same fill: fuzzing runs in
// several processes.
func newCluster(tb testing.TB, fill ...byte) *cluster {
	tb.Helper()
	seed := func(prefix nkeys.PrefixByte) []byte {
		s, err := nkeys.EncodeSeed(prefix, bytes.Repeat(append(fill, byte(prefix)), 32)[:32])
		if err != nil {
			tb.Fatal(err)
		}
		return s
	}
	rootSeed := seed(nkeys.PrefixByteOperator)
	root, err := nkeys.FromSeed(rootSeed)
	if err != nil {
		tb.Fatal(err)
	}
	c := &cluster{}
	if c.root, err = root.PublicKey(); err != nil {
		tb.Fatal(err)
	}
	if c.signer, err = signing.NewSigner(seed(nkeys.PrefixByteServer)); err != nil {
		tb.Fatal(err)
	}
	c.ring = c.keys(tb, time.Time{})
	if c.doc, err = c.ring.Sign(rootSeed); err != nil {
		tb.Fatal(err)
	}
	return c
}

// keys is a ring with the node key, revoked at a time if it is not zero.
func (c *cluster) keys(tb testing.TB, revoked time.Time) *keyring.Ring {
	tb.Helper()
	ring, err := keyring.New(1, made.Add(-time.Hour), made.Add(time.Hour), []keyring.Key{{
		ID: c.signer.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "node",
		NotBefore: made.Add(-time.Hour), NotAfter: made.AddDate(1, 0, 0), RevokedAt: revoked,
	}})
	if err != nil {
		tb.Fatal(err)
	}
	return ring
}

func (c *cluster) head() Head {
	return Head{ID: strings.Repeat("ab", 16), Tenant: "shop", Node: "node", Created: made, Policy: "digest", Root: c.root, Keyring: c.doc}
}

// event is an attested event as it is stored.
func (c *cluster) event(tb testing.TB, subject, principal string, n int) entryBytes {
	tb.Helper()
	e := &cloudevent.Event{
		ID: fmt.Appendf(nil, "%d", n), Source: []byte("/shop/app"), Type: []byte("order"), Time: []byte("2026-03-01T11:30:00Z"),
		ContentType: []byte("application/json"), Data: fmt.Appendf(nil, `{"n":%d}`, n),
	}
	e.SetExt([]byte("authid"), []byte(principal))
	e.SetExt([]byte("authtype"), []byte("service_account"))
	e.SetExt([]byte("recordedtime"), e.Time)
	var b signing.Batch
	i := b.Add(e, []byte(subject))
	if i < 0 {
		tb.Fatal("the event cannot be attested")
	}
	b.Sign(c.signer)
	e.SetExt([]byte("attestation"), b.AppendAttestation(nil, i))
	header := append([]byte("NATS/1.0\r\n"), cloudevent.AppendHeaders(nil, e)...)
	return entryBytes{name: subject, seq: uint64(n), header: append(header, '\r', '\n'), data: e.Data}
}

// entryBytes is one entry of an archive.
type entryBytes struct {
	name   string
	seq    uint64
	header []byte
	data   []byte
}

// state is the first entry of an archive.
func state(first, last uint64, consumers int) entryBytes {
	return entryBytes{name: stateEntry, data: fmt.Appendf(nil, `{"messages":%d,"first_seq":%d,"last_seq":%d,"consumer_count":%d}`, last-first+1, first, last, consumers)}
}

func consumer(entry, name string) entryBytes {
	return entryBytes{name: entry, data: fmt.Appendf(nil, `{"config":{"name":%q,"durable_name":%q},"state":{}}`, name, name)}
}

// end is the mark at the end of an archive.
func end() entryBytes { return entryBytes{} }

func archive(entries ...entryBytes) []byte {
	var out bytes.Buffer
	w := s2.NewWriter(&out)
	_, _ = w.Write([]byte(archiveMagic)) // a bytes.Buffer takes everything
	for _, e := range entries {
		b := binary.AppendUvarint(nil, uint64(len(e.name)))
		at := int64(0)
		if e.name != "" {
			at = made.UnixNano()
		}
		b = binary.AppendVarint(b, at)
		b = binary.AppendUvarint(b, e.seq)
		b = binary.AppendUvarint(b, uint64(len(e.header)))
		b = binary.AppendUvarint(b, uint64(len(e.data)))
		b = append(b, e.name...)
		b = append(b, e.header...)
		_, _ = w.Write(append(b, e.data...))
	}
	_ = w.Close()
	return out.Bytes()
}

// stream is a stream of a file.
type stream struct {
	name    string
	archive []byte
}

func config(name string) json.RawMessage { return fmt.Appendf(nil, `{"name":%q}`, name) }

// file writes a file through Writer, which refuses broken archives.
func (c *cluster) file(tb testing.TB, streams ...stream) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, c.head())
	if err != nil {
		tb.Fatal(err)
	}
	for _, s := range streams {
		err := w.Stream(StreamHead{Name: s.name, Config: config(s.name)}, func(to io.Writer) error {
			_, err := to.Write(s.archive)
			return err
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	if _, err := w.Finish(c.signer); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// crafted writes a file as an enemy would who has the key: nothing is checked.
func (c *cluster) crafted(tb testing.TB, streams ...stream) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, c.head())
	if err != nil {
		tb.Fatal(err)
	}
	for _, s := range streams {
		if err := w.document(frameStream, &StreamHead{Name: s.name, Config: config(s.name)}, MaxConfigBytes); err != nil {
			tb.Fatal(err)
		}
		d := &dataWriter{f: w, sum: sha256.New()}
		if _, err := d.Write(s.archive); err != nil {
			tb.Fatal(err)
		}
		if err := w.frame(frameEnd, nil); err != nil {
			tb.Fatal(err)
		}
	}
	if _, err := w.Finish(c.signer); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}
