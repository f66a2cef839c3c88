package integrity

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// message is what a record holds.
type message struct {
	subject string
	header  string // in the order of its keys
	data    string
	at      int64
}

// onDisk reads the messages of a stream from its files.
func onDisk(t *testing.T, s stored, stream string) (out map[uint64]message, blocks int) {
	t.Helper()
	out = map[uint64]message{}
	files, err := listBlocks(s.msgs)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range files {
		if b.size == 0 {
			continue
		}
		blocks++
		data, _, err := decompress(s.read(t, filepath.Join(s.msgs, b.name)))
		if err != nil {
			t.Fatal(err)
		}
		h, err := newHasher(blockKey(stream, b.index), false)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(data); {
			r, kind := h.read(data[at:])
			if kind != "" {
				t.Fatalf("%s of %s at %d: %s", b.name, stream, at, kind)
			}
			rec := data[at : at+r.size]
			at += r.size
			if r.tomb || r.erased {
				continue
			}
			_, slen, _, _ := lengths(rec)
			body := rec[recordHead : len(rec)-hashSize]
			hlen := int(binary.LittleEndian.Uint32(body[slen:]))
			header, err := nats.DecodeHeadersMsg(body[slen+4 : slen+4+hlen])
			if err != nil {
				t.Fatal(err)
			}
			out[r.seq] = message{string(body[:slen]), fmt.Sprint(header), string(body[slen+4+hlen:]), r.ts}
		}
	}
	return out, blocks
}

// compareStored holds the messages that are read of the files of a stream against those
// that the server gives. It returns how many blocks and messages there are.
func compareStored(t *testing.T, js jetstream.JetStream, s stored, stream string) (blocks, messages int) {
	t.Helper()
	st, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	info := st.CachedInfo().State
	disk, blocks := onDisk(t, s, stream)
	for seq := info.FirstSeq; seq <= info.LastSeq; seq++ {
		m, err := st.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		messages++
		for k := range m.Header { // of the answer, not of the message
			if strings.HasPrefix(k, "Nats-") {
				delete(m.Header, k)
			}
		}
		if want := (message{m.Subject, fmt.Sprint(m.Header), string(m.Data), m.Time.UnixNano()}); disk[seq] != want {
			t.Fatalf("%s %d: read %+q, the server has %+q", stream, seq, fmt.Sprint(disk[seq]), fmt.Sprint(want))
		}
	}
	if uint64(messages) != info.Msgs {
		t.Errorf("%s: %d messages compared of %d", stream, messages, info.Msgs)
	}
	return blocks, messages
}

// compareSmall holds index, configuration and consumer of a stopped stream against what
// the server had said.
func compareSmall(t *testing.T, s stored, want *jetstream.StreamInfo) {
	t.Helper()
	root, name := filepath.Dir(s.msgs), want.Config.Name
	top, err := s.vault.open(filepath.Join(root, metaKey), name)
	if err != nil || top == nil || top.bad {
		t.Fatalf("%s: no key: %v", name, err)
	}
	text, whole := top.text(read(t, filepath.Join(root, "meta.inf")))
	var cfg jetstream.StreamConfig
	if err := json.Unmarshal(text, &cfg); err != nil || !whole || cfg.Name != name || cfg.MaxBytes != want.Config.MaxBytes {
		t.Errorf("%s: %s (%v)", name, text, err)
	}
	x, err := readIndex(s.msgs, name, top)
	if err != nil || x == nil || x.Messages != want.State.Msgs || x.FirstSeq != want.State.FirstSeq || x.LastSeq != want.State.LastSeq {
		t.Errorf("%s: index %+v, the server said %+v (%v)", name, x, want.State, err)
	}
	consumers, err := subfolders(filepath.Join(root, "obs"))
	if err != nil || len(consumers) != want.State.Consumers {
		t.Errorf("%s: consumers %v, want %d (%v)", name, consumers, want.State.Consumers, err)
	}
	for _, c := range consumers {
		l, err := s.vault.open(filepath.Join(root, "obs", c, metaKey), name+"."+c)
		if err != nil || l == nil || l.bad {
			t.Fatalf("%s: no key: %v", c, err)
		}
		state, whole := l.text(read(t, filepath.Join(root, "obs", c, "o.dat")))
		cur := cursor{b: state[2:]}
		// The floor of the acks comes first: of the consumer, of the stream.
		if floor := cur.uint(); !whole || floor != 10 {
			t.Errorf("%s: the state %x says %d acks, want 10", c, state, floor)
		}
	}
}

// TestDecryptsWhatTheServerStored: bytes that are read of an encrypted store are the
// ones that the server has stored, in every kind of file, whatever has been done to the
// stream, after a restart, and after nats-server's own change of the key.
func TestDecryptsWhatTheServerStored(t *testing.T) {
	for _, v := range encrypted() {
		t.Run(v.name, func(t *testing.T) { decryptsWhatTheServerStored(t, v) })
	}
}

func decryptsWhatTheServerStored(t *testing.T, v variant) {
	dir := t.TempDir()
	often := func(o *server.Options) { o.SyncInterval = 50 * time.Millisecond }
	s := startServer(t, dir, v.server, often)
	_, js := jet(t, s)
	ctx := t.Context()
	streams := []string{"ORDERS", "PACKED", "LOOSE"}
	for _, cfg := range []jetstream.StreamConfig{
		appendOnlyConfig("ORDERS", 1),
		{Name: "PACKED", Subjects: []string{"PACKED.>"}, MaxBytes: small, Compression: jetstream.S2Compression},
		{Name: "LOOSE", Subjects: []string{"LOOSE.>"}, MaxBytes: small},
	} {
		if _, err := js.CreateStream(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		fill(t, js, cfg.Name+".a", 1, messages-50, 100)
	}
	loose, err := js.Stream(ctx, "LOOSE")
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(dir, "jetstream/$G/streams/LOOSE/msgs/2.blk")
	before := len(read(t, second))
	for seq := uint64(200); seq < 330; seq++ {
		if err := loose.DeleteMsg(ctx, seq); err != nil {
			t.Fatal(err)
		}
	}
	if err := loose.Purge(ctx, jetstream.WithPurgeSequence(100)); err != nil {
		t.Fatal(err)
	}
	for tick := time.Tick(20 * time.Millisecond); len(read(t, second)) >= before; {
		select {
		case <-tick:
		case <-time.After(30 * time.Second):
			t.Fatal("the server does not compact")
		}
	}
	cons, err := js.CreateConsumer(ctx, "LOOSE", jetstream.ConsumerConfig{Durable: "w", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := cons.Fetch(10)
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		if err := m.DoubleAck(ctx); err != nil {
			t.Fatal(err)
		}
	}
	of := func(name string) stored {
		s := v.orders(dir)
		s.msgs = filepath.Join(dir, "jetstream/$G/streams", name, "msgs")
		s.vault.name = name
		return s
	}
	for range 2 { // the second time after a restart
		blocks, compared := 0, 0
		for _, name := range streams {
			b, n := compareStored(t, js, of(name), name)
			blocks, compared = blocks+b, compared+n
		}
		if blocks < 9 || compared < 2*messages {
			t.Errorf("%d blocks with %d messages were compared", blocks, compared)
		}
		infos := map[string]*jetstream.StreamInfo{}
		for _, name := range streams {
			st, err := js.Stream(ctx, name)
			if err != nil {
				t.Fatal(err)
			}
			infos[name] = st.CachedInfo()
		}
		stopServer(s)
		for _, name := range streams {
			compareSmall(t, of(name), infos[name])
		}
		s = startServer(t, dir, v.server, often)
		_, js = jet(t, s)
		for _, name := range streams { // goes on in the block that is there
			fill(t, js, name+".a", messages-49, messages-40, 100)
		}
	}
	stopServer(s)
	if rep := mustCheck(t, Options{Dir: dir, Key: v.key}); len(rep.Damaged()) > 0 || rep.Read == 0 {
		t.Errorf("damaged %v, read %d", rep.Damaged(), rep.Read)
	}
}

// TestNatsKeyChange: a store that nats-server itself has encrypted anew opens with the
// new key, and the old one is a wrong key and no damage.
func TestNatsKeyChange(t *testing.T) {
	for _, v := range encrypted() {
		t.Run(v.name, func(t *testing.T) {
			dir := ordersStore(t, v.server)
			next := v
			next.key = NewStoreKey("fedcba9876543210fedcba9876543210", v.key.chacha)
			s := startServer(t, dir, next.server, func(o *server.Options) { o.JetStreamOldKey = testKey })
			_, js := jet(t, s)
			if got := served(t, js, "ORDERS", messages); got != messages {
				t.Fatalf("the server has %d of %d", got, messages)
			}
			compareStored(t, js, next.orders(dir), "ORDERS")
			stopServer(s)
			if rep := mustCheck(t, Options{Dir: dir, Key: next.key}); len(rep.Damaged()) > 0 || rep.Read == 0 {
				t.Errorf("damaged %v, read %d", rep.Damaged(), rep.Read)
			}
			if _, err := Check(t.Context(), Options{Dir: dir, SystemAccount: systemAccount, Key: v.key}); !errors.Is(err, ErrWrongKey) {
				t.Errorf("the old key: %v", err)
			}
		})
	}
}

// TestWrongKeyIsNoDamage: with the key of another store, or with none, nothing is judged
// and the ledger keeps what it knew.
func TestWrongKeyIsNoDamage(t *testing.T) {
	v := encrypted()[1]
	dir := ordersStore(t, v.server)
	seal(t, dir, Options{Key: v.key})
	l := mustLedger(t, dir)
	for name, key := range map[string]*StoreKey{
		"another key":    NewStoreKey("fedcba9876543210fedcba9876543210", false),
		"another cipher": NewStoreKey(testKey, true),
		"none":           nil,
	} {
		rep, err := Check(t.Context(), Options{Dir: dir, SystemAccount: systemAccount, Key: key, Ledger: l, Full: true})
		if !errors.Is(err, ErrWrongKey) || rep != nil || strings.Contains(err.Error(), "fedcba") {
			t.Errorf("%s: got %v, %v", name, rep, err)
		}
		if known, sealed := l.known("jetstream/$G/streams/ORDERS"); len(known) != 4 || !sealed {
			t.Errorf("%s: the ledger knows %d blocks", name, len(known))
		}
		scrub := NewScrubber(ScrubConfig{
			Dir: dir, SystemAccount: systemAccount, Key: key, Ledger: l, Interval: time.Hour, Rate: 1 << 30,
			Found: func([]*Replica, *Report) { t.Errorf("%s: the scrubber judges", name) }, Failed: func(error) {},
		})
		if err := scrub.Pass(t.Context()); !errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: the scrubber says %v", name, err)
		}
	}
}

// TestKeysAfterACrash: what a crash leaves between a block and its key is no damage, and
// the server serves everything.
func TestKeysAfterACrash(t *testing.T) {
	v := encrypted()[1]
	base := ordersStore(t, v.server)
	for _, tt := range []struct {
		name     string
		do       func(t *testing.T, msgs string)
		lazy     bool
		powerCut bool
		served   uint64 // 0: it must be damage
	}{
		{name: "a new block, and its key is not there yet", served: messages, do: func(t *testing.T, msgs string) {
			write(t, filepath.Join(msgs, "5.blk"), nil)
		}},
		{name: "a new block and its key", served: messages, do: func(t *testing.T, msgs string) {
			write(t, filepath.Join(msgs, "5.blk"), nil)
			write(t, filepath.Join(msgs, "5.key"), make([]byte, 64))
		}},
		{name: "a block was removed, and its key is there", served: messages, do: func(t *testing.T, msgs string) {
			write(t, filepath.Join(msgs, "5.key"), read(t, filepath.Join(msgs, "4.key")))
		}},
		{name: "a purge that has moved the key of its block", served: messages, do: func(t *testing.T, msgs string) {
			write(t, filepath.Join(msgs, "5.blk"), []byte("a tombstone under a key that is elsewhere"))
			moved := filepath.Join(filepath.Dir(msgs), newMessages)
			if err := os.Mkdir(moved, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(moved, "5.key"), read(t, filepath.Join(msgs, "4.key")))
		}},
		{name: "a key that a power cut has taken, with several writes to a sync", lazy: true, powerCut: true, served: messages, do: func(t *testing.T, msgs string) {
			write(t, filepath.Join(msgs, "5.blk"), []byte("what nobody was told of"))
			write(t, filepath.Join(msgs, "5.key"), nil)
		}},
		{name: "the same after a kill", lazy: true, do: func(t *testing.T, msgs string) {
			write(t, filepath.Join(msgs, "5.blk"), []byte("what nobody was told of"))
			write(t, filepath.Join(msgs, "5.key"), nil)
		}},
		{name: "the same with every write synced", powerCut: true, do: func(t *testing.T, msgs string) {
			write(t, filepath.Join(msgs, "5.blk"), []byte("what nobody was told of"))
			write(t, filepath.Join(msgs, "5.key"), nil)
		}},
		{name: "a key that is not there", lazy: true, powerCut: true, do: func(t *testing.T, msgs string) {
			if err := os.Remove(filepath.Join(msgs, "4.key")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyStore(t, base)
			l := mustLedger(t, dir)
			if !tt.powerCut {
				if err := l.Running(); err != nil {
					t.Fatal(err)
				}
			}
			tt.do(t, v.orders(dir).msgs)
			r := replica(t, mustCheck(t, Options{Dir: dir, Key: v.key, Ledger: l, LazySync: tt.lazy}), "$G/ORDERS")
			if r.Damaged() != (tt.served == 0) {
				t.Fatalf("damage %v, notes %v", r.Damage, r.Notes)
			}
			if tt.served == 0 {
				return
			}
			_, js := jet(t, startServer(t, dir, v.server))
			if got := served(t, js, "ORDERS", tt.served); got != tt.served {
				t.Errorf("served %d, want %d", got, tt.served)
			}
		})
	}
}

// TestSizeFromGroup: a stream whose configuration cannot be read is set aside where its
// Raft group says that there are other replicas.
func TestSizeFromGroup(t *testing.T) {
	bad := []Damage{{Kind: KindKey, File: "meta.key"}}
	rep := &Report{Replicas: []Replica{
		{Account: "shop", Stream: "ORDERS", Replicas: 1, Damage: bad, unsure: true},
		{Account: "shop", Stream: "LOCAL", Replicas: 1, Damage: bad, unsure: true},
		{Account: "shop", Stream: "ORDERS", Group: "S-R3F-abc"},
		{Account: "shop", Stream: "LOCAL", Consumer: "c", Group: "C-R3F-abc"},
	}}
	sizeFromGroups(rep.Replicas)
	v := Decide(rep, Situation{Clustered: true})
	got := []Action{v.Rulings[0].Action, v.Rulings[1].Action}
	if want := []Action{ActionSetAside, ActionRefuse}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestAcceptedKeys: with the operator's consent to lost keys the server loses the blocks
// under them and nothing else. Left to itself it would delete the stream, or stumble
// over them again and again.
func TestAcceptedKeys(t *testing.T) {
	v := encrypted()[1]
	base := ordersStore(t, v.server)
	block := uint64(len(recordsOf(t, v.orders(base), "2.blk")))
	for _, tt := range []struct {
		name, file string
		remove     bool
		served     uint64
	}{
		{"a damaged key of a block", "msgs/2.key", false, messages - block},
		{"a missing key of a block", "msgs/2.key", true, messages - block},
		{"the damaged key of the stream", "meta.key", false, messages},
		{"the missing key of the stream", "meta.key", true, messages},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyStore(t, base)
			file := filepath.Join(dir, "jetstream/$G/streams/ORDERS", tt.file)
			if flip(t, file, 40, 1); tt.remove {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
			l := mustLedger(t, dir)
			r := replica(t, mustCheck(t, Options{Dir: dir, Key: v.key, Ledger: l}), "$G/ORDERS")
			if !r.Damaged() {
				t.Fatal("it is not seen")
			}
			l.Accept(r, time.Now())
			a, err := Withdraw(dir, r, time.Now())
			if err != nil || len(a.Moved) == 0 {
				t.Fatalf("%+v, %v", a, err)
			}
			for range 2 {
				s := startServer(t, dir, v.server)
				_, js := jet(t, s)
				if _, err := js.CreateOrUpdateStream(t.Context(), appendOnlyConfig("ORDERS", 1)); err != nil {
					t.Fatal(err)
				}
				if got := served(t, js, "ORDERS", tt.served); got != tt.served {
					t.Errorf("served %d, want %d", got, tt.served)
				}
				stopServer(s)
				if rep := mustCheck(t, Options{Dir: dir, Key: v.key, Ledger: l, Full: true}); len(rep.Damaged()) > 0 {
					t.Errorf("it is damaged again: %v", rep.Damaged()[0].Damage)
				}
			}
		})
	}
	r := &Replica{Account: "$G", Stream: "ORDERS", Damage: []Damage{{Kind: KindChecksum, File: "x"}}}
	if a, err := Withdraw(base, r, time.Now()); a != nil || err != nil {
		t.Errorf("damage that is not of keys: %+v, %v", a, err)
	}
}

// TestAcceptedSequence: a sequence that has become another one does not keep the server
// from starting, once the operator has agreed to lose what follows it in its block.
func TestAcceptedSequence(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			dir := ordersStore(t, v.server)
			s := v.orders(dir)
			at := recordsOf(t, s, "2.blk")
			flip(t, filepath.Join(s.msgs, "2.blk"), int64(at[10])+4+6, 1) // sequence and 2^48
			l := mustLedger(t, dir)
			r := replica(t, mustCheck(t, Options{Dir: dir, Key: v.key, Ledger: l}), "$G/ORDERS")
			l.Accept(r, time.Now())
			if a, err := Withdraw(dir, r, time.Now()); a != nil || err != nil {
				t.Fatalf("%+v, %v", a, err)
			}
			srv := startServer(t, dir, v.server)
			_, js := jet(t, srv)
			want := uint64(messages - len(at) + 10)
			if got := served(t, js, "ORDERS", want); got != want {
				t.Errorf("served %d, want %d", got, want)
			}
			stopServer(srv)
			if rep := mustCheck(t, Options{Dir: dir, Key: v.key, Ledger: l, Full: true}); len(rep.Damaged()) > 0 {
				t.Errorf("it is damaged again: %v", rep.Damaged()[0].Damage)
			}
		})
	}
}

func recordsOf(t *testing.T, s stored, block string) []int {
	t.Helper()
	return offsets(t, s.read(t, filepath.Join(s.msgs, block)))
}

// TestUnfinishedKeys: a stream and a consumer whose key files a power cut has emptied were
// made and not finished; they can be made anew. After anything else they are damage.
func TestUnfinishedKeys(t *testing.T) {
	v := encrypted()[1]
	dir := ordersStore(t, v.server)
	orders := filepath.Dir(v.orders(dir).msgs)
	cut := func(folder string) {
		t.Helper()
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(folder, metaKey), nil)
		write(t, filepath.Join(folder, "meta.inf"), []byte("whatever"))
		write(t, filepath.Join(folder, "meta.sum"), []byte("whatever"))
	}
	cut(filepath.Join(filepath.Dir(orders), "NEW"))
	cut(filepath.Join(orders, "obs", "w"))
	killed := mustLedger(t, dir)
	if err := killed.Running(); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"a kill":             {Dir: dir, Key: v.key, Ledger: killed, LazySync: true},
		"every write synced": {Dir: dir, Key: v.key},
	} {
		if rep := mustCheck(t, o); len(rep.Damaged()) != 2 {
			t.Errorf("%s: %d replicas are damaged, want 2", name, len(rep.Damaged()))
		}
	}
	rep := mustCheck(t, Options{Dir: dir, Key: v.key, LazySync: true})
	if n := len(rep.Damaged()); n != 0 {
		t.Fatalf("a power cut: %v", rep.Damaged()[0].Damage)
	}
	_, js := jet(t, startServer(t, dir, v.server))
	if got := served(t, js, "ORDERS", messages); got != messages {
		t.Errorf("served %d", got)
	}
	if _, err := js.CreateStream(t.Context(), appendOnlyConfig("NEW", 1)); err != nil {
		t.Error(err)
	}
	if _, err := js.CreateConsumer(t.Context(), "ORDERS", jetstream.ConsumerConfig{Durable: "w", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Error(err)
	}
}
