package payload

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write docs/spec/vectors/encryption.json")

const vectorFile = "../../docs/spec/vectors/encryption.json"

// The vector file.
type (
	vectors struct {
		Format     string            `json:"format"`
		Note       string            `json:"note"`
		Recipients []vectorRecipient `json:"recipients"`
		Records    []recordCase      `json:"records"`
		Events     []eventCase       `json:"events"`
	}
	vectorRecipient struct {
		Seed   string `json:"seed"`
		Public string `json:"public"`
	}
	recordCase struct {
		Name   string `json:"name"`
		Record string `json:"record"` // data of the event
		Seed   string `json:"seed"`   // of the reader
		KeyID  string `json:"keyId,omitempty"`
		Key    string `json:"key,omitempty"` // these two of what is opened
		Result string `json:"result"`
	}
	eventCase struct {
		Name        string `json:"name"`
		Key         string `json:"key"` // hexadecimal, as all bytes here
		KeyID       string `json:"keyId"`
		Principal   string `json:"principal"`
		NATSSubject string `json:"natsSubject"`
		Source      string `json:"source"`
		ID          string `json:"id"`
		Type        string `json:"type"`
		Frame       string `json:"frame"`
		ContentType string `json:"contentType,omitempty"` // these two of what is decrypted
		Data        string `json:"data,omitempty"`
		Result      string `json:"result"`
	}
)

func resultOf(err error) string {
	for _, r := range []struct {
		is   error
		name string
	}{
		{ErrFrame, "frame"},
		{ErrAltered, "altered"},
		{ErrNotRecipient, "notRecipient"},
		{ErrUnwrap, "unwrap"},
		{ErrRecord, "record"},
		{ErrKeyID, "keyId"},
	} {
		if errors.Is(err, r.is) {
			return r.name
		}
	}
	if err != nil {
		return "unexpected: " + err.Error()
	}
	return "ok"
}

// TestVectors: the file is what this package does, case by case.
func TestVectors(t *testing.T) {
	want := makeVectors(t)
	if *update {
		if err := os.WriteFile(vectorFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, want) {
		t.Error("the vector file is stale: run go test ./signing/payload -run TestVectors -update, and review the difference: it is a change of format")
	}
	var file vectors
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	results := map[string]int{}
	for _, c := range file.Records {
		read := c
		read.read(t)
		if read != c {
			t.Errorf("record %s: got %+v, want %+v", c.Name, read, c)
		}
		results[c.Result]++
	}
	for _, c := range file.Events {
		read := c
		read.read(t)
		if read != c {
			t.Errorf("event %s: got %+v, want %+v", c.Name, read, c)
		}
		results[c.Result]++
	}
	for _, r := range []string{"ok", "frame", "altered", "notRecipient", "unwrap", "record", "keyId"} {
		if results[r] == 0 {
			t.Errorf("no case has the result %s", r)
		}
	}
	t.Logf("%v", results)
}

// read fills in what a reader says.
func (c *recordCase) read(t *testing.T) {
	t.Helper()
	c.KeyID, c.Key = "", ""
	rec, err := ParseRecord([]byte(c.Record))
	if err == nil {
		var r *Reader
		if r, err = NewReader([]byte(c.Seed)); err != nil {
			t.Fatal(err)
		}
		var key *Key
		if key, err = r.Open(rec); err == nil {
			// The key itself is not kept beside the cipher: that it is the one shows in the id.
			c.KeyID, c.Key = key.ID(), hex.EncodeToString(bytes.Repeat([]byte{0x11}, keyBytes))
			if fixed := fixedKey(t, 0x11); fixed.ID() != key.ID() {
				t.Errorf("%s: key %s", c.Name, key.ID())
			}
		}
	}
	c.Result = resultOf(err)
}

func (c *eventCase) read(t *testing.T) {
	t.Helper()
	raw, err := hex.DecodeString(c.Key)
	if err != nil {
		t.Fatal(err)
	}
	frame, err := hex.DecodeString(c.Frame)
	if err != nil {
		t.Fatal(err)
	}
	c.ContentType, c.Data = "", ""
	key, err := newKey(raw)
	if err == nil && key.ID() != c.KeyID {
		err = ErrKeyID
	}
	if err == nil {
		var data []byte
		c.ContentType, data, err = key.Decrypt(Bound{Principal: c.Principal, NATSSubject: c.NATSSubject, Source: c.Source, ID: c.ID, Type: c.Type}, frame)
		c.Data = hex.EncodeToString(data)
	}
	c.Result = resultOf(err)
}

func makeVectors(t *testing.T) []byte {
	t.Helper()
	file := vectors{
		Format: "signet-encryption-vectors/1",
		Note: "Written by go test ./signing/payload -run TestVectors -update. The keys are for tests only. " +
			"A record is what the event of type " + RecordType + " has as data; that this event is verified, and is of the right principal, comes before. " +
			"An event is decrypted with key, if keyId is its id, for the principal, subject, source, id and type of the case.",
	}
	seeds := map[byte]string{}
	for _, fill := range []byte{1, 2, 3} {
		_, seed, public := curve(t, fill)
		seeds[fill] = string(seed)
		file.Recipients = append(file.Recipients, vectorRecipient{string(seed), public})
	}
	record := func(name, data string, fill byte) {
		c := recordCase{Name: name, Record: data, Seed: seeds[fill]}
		c.read(t)
		file.Records = append(file.Records, c)
	}
	good := fixedRecord(t, 1, 2)
	record("first recipient", string(good.Data()), 1)
	record("second recipient", string(good.Data()), 2)
	record("not a recipient", string(good.Data()), 3)
	other := fixedRecord(t, 1)
	other.KeyID = fixedKey(t, 0x12).ID()
	record("id of another key", string(other.Data()), 1)
	sender := fixedRecord(t, 1)
	_, _, sender.Sender = curve(t, 0x23)
	record("another sender", string(sender.Data()), 1)
	box := fixedRecord(t, 1)
	box.Recipients[0].Box[wrappedBytes-1] ^= 1
	record("a bit of the wrapped key", string(box.Data()), 1)
	for _, c := range badRecords(t) {
		if len(c.data) <= MaxRecordBytes/4 { // the others are not worth their bytes
			record(c.name, c.data, 1)
		}
	}
	file.Events = eventCases(t)
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(&file); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func eventCases(t *testing.T) (cases []eventCase) {
	t.Helper()
	key := fixedKey(t, 0x11) // one counter: each frame has the next nonce
	hexKey := hex.EncodeToString(bytes.Repeat([]byte{0x11}, keyBytes))
	add := func(name string, frame []byte, change func(*eventCase)) {
		c := eventCase{
			Name: name, Key: hexKey, KeyID: key.ID(), Frame: hex.EncodeToString(frame),
			Principal: bound.Principal, NATSSubject: bound.NATSSubject, Source: bound.Source, ID: bound.ID, Type: bound.Type,
		}
		if change != nil {
			change(&c)
		}
		c.read(t)
		cases = append(cases, c)
	}
	make := func(contentType, data string) []byte {
		frame, err := key.Encrypt(bound, contentType, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return frame
	}
	frame := make("application/json", `{"celsius":39.5}`)
	add("JSON", frame, nil)
	add("no data", make("application/json", ""), nil)
	add("no content type", make("", "x"), nil)
	add("empty", make("", ""), nil)
	add("bytes", make("application/octet-stream", "\x00\xff\r\n"), nil)
	add("another principal", frame, func(c *eventCase) { c.Principal = "shop/mallory" })
	add("another subject", frame, func(c *eventCase) { c.NATSSubject = "care.8.temperature" })
	add("another source", frame, func(c *eventCase) { c.Source = "/shop/mallory" })
	add("another id", frame, func(c *eventCase) { c.ID = "e-2" })
	add("another type", frame, func(c *eventCase) { c.Type += "x" })
	add("a byte from source to id", frame, func(c *eventCase) { c.Source, c.ID = "/shop/clini", "ce-1" })
	add("another key", frame, func(c *eventCase) {
		c.Key, c.KeyID = hex.EncodeToString(bytes.Repeat([]byte{0x12}, keyBytes)), fixedKey(t, 0x12).ID()
	})
	add("the key under another id", frame, func(c *eventCase) { c.KeyID = fixedKey(t, 0x12).ID() })
	flip := func(i int) []byte {
		changed := bytes.Clone(frame)
		changed[(i+len(frame))%len(frame)] ^= 1
		return changed
	}
	add("a bit of the nonce", flip(headBytes-1), nil)
	add("a bit of the ciphertext", flip(headBytes), nil)
	add("a bit of the tag", flip(-1), nil)
	add("version 0", flip(0), nil)
	add("cut", frame[:len(frame)-1], nil)
	add("one byte more", append(bytes.Clone(frame), 0), nil)
	add("shorter than any frame", frame[:Overhead-1], nil)
	add("nothing", nil, nil)
	add("content type longer than what is there", longType(key), nil)
	return cases
}

// longType is a frame that the key has made, of which no reader can make anything.
func longType(k *Key) []byte {
	frame := append([]byte{frameVersion}, bytes.Repeat([]byte{0xaa}, nonceBytes)...)
	return k.aead.Seal(frame, frame[1:headBytes], []byte{0, 9, 'x'}, bound.appendAAD(nil, k.id))
}
