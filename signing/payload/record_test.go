package payload

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

func TestRecordRoundTrip(t *testing.T) {
	var recipients []string
	for fill := range byte(40) {
		_, _, public := curve(t, fill+1)
		recipients = append(recipients, public)
	}
	key, rec, err := NewEpoch(bound.NATSSubject, recipients, created.Add(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseRecord(rec.Data())
	if err != nil || !bytes.Equal(back.Data(), rec.Data()) {
		t.Fatalf("%+v: %v", back, err)
	}
	frame, err := key.Encrypt(bound, "text/plain", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fill := range []byte{1, 20, 40} {
		opened, err := reader(t, 99, fill).Open(back)
		if err != nil || opened.ID() != key.ID() {
			t.Fatalf("recipient %d: %v", fill, err)
		}
		if _, data, err := opened.Decrypt(bound, frame); err != nil || string(data) != "x" {
			t.Errorf("recipient %d: %q, %v", fill, data, err)
		}
	}
	if _, err := reader(t, 99).Open(back); !errors.Is(err, ErrNotRecipient) {
		t.Errorf("nobody: %v", err)
	}
	// Two epochs have nothing in common.
	again, other, err := NewEpoch(bound.NATSSubject, recipients, created)
	if err != nil || again.ID() == key.ID() || other.Sender == rec.Sender || bytes.Equal(other.Recipients[0].Box, rec.Recipients[0].Box) {
		t.Errorf("%+v: %v", other, err)
	}
}

func TestNewEpochRefuses(t *testing.T) {
	_, _, good := curve(t, 1)
	for _, c := range []struct {
		name, subject string
		recipients    []string
		want          error
	}{
		{"nobody", "a.b", nil, ErrRecipients},
		{"too many", "a.b", make([]string, MaxRecipients+1), ErrRecipients},
		{"one twice", "a.b", []string{good, good}, ErrRecord},
		{"a user key", "a.b", []string{"UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"}, ErrRecord},
		{"small order", "a.b", []string{point(t, make([]byte, 32))}, ErrRecord},
		{"a filter", "a.*", []string{good}, ErrRecord},
		{"no subject", "", []string{good}, ErrRecord},
	} {
		if _, _, err := NewEpoch(c.subject, c.recipients, created); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// point is a public key with these bytes, which nkeys does not look at.
func point(t testing.TB, raw []byte) string {
	t.Helper()
	id, err := nkeys.Encode(nkeys.PrefixByteCurve, raw)
	if err != nil {
		t.Fatal(err)
	}
	return string(id)
}

func TestParseRecordRefuses(t *testing.T) {
	for _, c := range badRecords(t) {
		if r, err := ParseRecord([]byte(c.data)); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: got %+v, %v", c.name, r, err)
		}
	}
	if _, err := ParseRecord(fixedRecord(t, 1, 2).Data()); err != nil {
		t.Errorf("the base case must pass: %v", err)
	}
}

type badRecord struct{ name, data string }

// badRecords are changes of a good record, none of which is one.
func badRecords(t testing.TB) []badRecord {
	t.Helper()
	rec := fixedRecord(t, 1, 2)
	good := string(rec.Data())
	box := base64.StdEncoding.EncodeToString(rec.Recipients[0].Box)
	swap := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in %s", old, good)
		}
		return strings.Replace(good, old, with, 1)
	}
	first := fmt.Sprintf(`{"key":"%s","wrapped":"%s"}`, rec.Recipients[0].Key, box)
	list := good[strings.Index(good, `"recipients":`):]
	top := make([]byte, 32)
	top[31] = 0x80
	over := bytes.Repeat([]byte{0xff}, 32)
	over[31] = 0x7f
	var many []string
	for range MaxRecipients + 1 {
		many = append(many, first)
	}
	return []badRecord{
		{"empty", ""},
		{"not JSON", "x"},
		{"array", "[]"},
		{"no members", "{}"},
		{"version 2", swap(`"version":1`, `"version":2`)},
		{"no version", swap(`"version":1,`, ``)},
		{"unknown member", swap(`"version":1`, `"version":1,"x":1`)},
		{"repeated member", swap(`"version":1`, `"version":1,"version":1`)},
		{"white space", swap(`"version":1`, `"version": 1`)},
		{"member in another case", swap(`"subject"`, `"Subject"`)},
		{"escape", swap(`"subject":"c`, `"subject":"\u0063`)},
		{"bytes after it", good + "\n"},
		{"cut", good[:len(good)-1]},
		{"key id upper case", swap(rec.KeyID, strings.ToUpper(rec.KeyID))},
		{"key id short", swap(rec.KeyID, rec.KeyID[1:])},
		{"wildcard subject", swap(bound.NATSSubject, "care.>")},
		{"system subject", swap(bound.NATSSubject, "$JS.API.INFO")},
		{"no subject", swap(bound.NATSSubject, "")},
		{"time with a zone", swap("07:30:00Z", "07:30:00+00:00")},
		{"time with a fraction", swap("07:30:00Z", "07:30:00.5Z")},
		{"sender of another type", swap(rec.Sender, "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4")},
		{"sender of small order", swap(rec.Sender, point(t, make([]byte, 32)))},
		{"sender with the top bit", swap(rec.Sender, point(t, top))},
		{"sender not reduced", swap(rec.Sender, point(t, over))},
		{"recipient of small order", swap(rec.Recipients[0].Key, point(t, append([]byte{1}, make([]byte, 31)...)))},
		{"no recipients", swap(list, `"recipients":[]}`)},
		{"recipients null", swap(list, `"recipients":null}`)},
		{"recipient twice", swap(first, first+","+first)},
		{"recipients in another order", swap(list, fmt.Sprintf(`"recipients":[{"key":"%s","wrapped":"%s"},%s]}`,
			rec.Recipients[1].Key, base64.StdEncoding.EncodeToString(rec.Recipients[1].Box), first))},
		{"too many recipients", swap(list, `"recipients":[`+strings.Join(many, ",")+"]}")},
		{"wrapped key short", swap(box, base64.StdEncoding.EncodeToString(rec.Recipients[0].Box[1:]))},
		{"wrapped key without padding", swap(box, strings.TrimRight(box, "="))},
		{"wrapped key empty", swap(box, "")},
		{"too long", good[:len(good)-1] + strings.Repeat(" ", MaxRecordBytes) + "}"},
	}
}

// TestEveryByteOfARecordCounts: no change of a byte lets a reader open the key of the id
// that the event names; the signature of the record's event is not even looked at here.
func TestEveryByteOfARecordCounts(t *testing.T) {
	rec := fixedRecord(t, 1)
	data, r := rec.Data(), reader(t, 1)
	tried := 0
	for i := range data {
		for _, flip := range []byte{1, 2, 0x20, 0x80} {
			changed := bytes.Clone(data)
			changed[i] ^= flip
			tried++
			got, err := ParseRecord(changed)
			if err != nil {
				continue
			}
			// What may change without spoiling the key is in the event's own signature.
			same := got.KeyID == rec.KeyID && got.Subject == rec.Subject
			if _, err := r.Open(got); err == nil && same && got.Created.Equal(rec.Created) {
				t.Errorf("byte %d: %s is opened", i, changed)
			}
		}
	}
	t.Logf("%d changes", tried)
	if _, err := r.Open(rec); err != nil {
		t.Error(err)
	}
}

func TestReaderRefuses(t *testing.T) {
	if _, err := NewReader(); !errors.Is(err, ErrSeed) {
		t.Errorf("none: %v", err)
	}
	user, err := nkeys.EncodeSeed(nkeys.PrefixByteUser, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, seed := range [][]byte{nil, []byte("SX"), user} {
		if _, err := NewReader(seed); !errors.Is(err, ErrSeed) || strings.Contains(err.Error(), string(user)) {
			t.Errorf("%q: %v", seed, err)
		}
	}
	_, seed, public := curve(t, 1)
	r, err := NewReader(append(seed, '\n'))
	if err != nil || r.Keys()[0] != public {
		t.Errorf("with a line end: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	other := fixedRecord(t, 1)
	other.KeyID = fixedKey(t, 0x12).ID()
	if _, err := reader(t, 1).Open(other); !errors.Is(err, ErrKeyID) {
		t.Errorf("another id: %v", err)
	}
	sender := fixedRecord(t, 1)
	_, _, sender.Sender = curve(t, 0x23)
	if _, err := reader(t, 1).Open(sender); !errors.Is(err, ErrUnwrap) {
		t.Errorf("another sender: %v", err)
	}
	box := fixedRecord(t, 1, 2)
	box.Recipients[0].Box, box.Recipients[1].Box = box.Recipients[1].Box, box.Recipients[0].Box
	if _, err := reader(t, 1).Open(box); !errors.Is(err, ErrUnwrap) {
		t.Errorf("the box of another: %v", err)
	}
}

// FuzzRecord: what is accepted has one encoding, and opening it never panics.
func FuzzRecord(f *testing.F) {
	f.Add(fixedRecord(f, 1).Data())
	f.Add(fixedRecord(f, 1, 2, 3).Data())
	for _, c := range badRecords(f) {
		f.Add([]byte(c.data))
	}
	r := reader(f, 1)
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := ParseRecord(data)
		if err != nil {
			return
		}
		if !bytes.Equal(rec.Data(), data) {
			t.Errorf("got %q, want %q", rec.Data(), data)
		}
		if key, err := r.Open(rec); err == nil && key.ID() != rec.KeyID {
			t.Error("a key of another id")
		}
	})
}
