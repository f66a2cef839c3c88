package translog

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestFilesAndServerBringTheSame: message by message, in every field, a log reads the
// same from the files of a stream as from the server, from any sequence on.
func TestFilesAndServerBringTheSame(t *testing.T) {
	r := newRig(t)
	r.publish(0, 300)
	js := r.js("shop")
	for _, m := range []*nats.Msg{
		{Subject: "orders.bare"},
		{Subject: "orders.plain", Data: []byte("no headers")},
		{Subject: "orders.empty", Header: nats.Header{"Ce-Id": {"1"}}},
		{Subject: "orders.lines", Header: nats.Header{"A": {"1", "2"}, "b": {""}}, Data: []byte("\r\n\r\nNATS/1.0\r\n\r\n")},
		{Subject: "orders.large", Data: make([]byte, 900_000)},
	} {
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	for _, from := range []uint64{1, 2, 299, 303, 305} {
		feed, err := openFeed(t.Context(), r.server, "shop", "ORDERS", "", from)
		if err != nil {
			t.Fatal(err)
		}
		defer feed.close()
		f, err := r.follow("shop", "ORDERS", from)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		file := &files{Follower: f, idle: lookFiles}
		for seq := from; seq <= 305; seq++ {
			var a, b message
			for _, from := range []struct {
				r reader
				m *message
			}{{feed, &a}, {file, &b}} {
				if ok, err := from.r.next(patient, from.m); !ok || err != nil {
					t.Fatalf("sequence %d of %T: %t, %v", seq, from.r, ok, err)
				}
			}
			a.pending, b.pending = 0, 0 // which files do not know
			if a, b := fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b); a != b {
				t.Fatalf("the server brings\n%.500s\nthe files bring\n%.500s", a, b)
			}
			if a.seq != seq {
				t.Fatalf("got sequence %d, want %d", a.seq, seq)
			}
		}
	}
}

// TestLogIsReadFromFiles: the log of a stream that denies deletes does not cost the server
// a consumer, also while its events age out; the log of another one is read from it.
func TestLogIsReadFromFiles(t *testing.T) {
	r := newRig(t)
	r.updateStream(keeping(4 * time.Second))
	var opened atomic.Int64
	up := &counted{Upstream: r.server}
	s, _ := r.serve(func(c *Config) {
		c.Upstream = up
		wrapFollow(c, func(from uint64, open func() (Follower, error)) (Follower, error) {
			opened.Add(1)
			return open()
		})
	})
	r.publish(0, 20)
	note := awaitSize(t, s, 20)
	awaitSample(t, s, &note.Origin, 21)
	r.awaitMessages(0)
	r.publish(20, 60)
	note = awaitSize(t, s, 60)
	if n := up.readers.Load(); n != 0 || opened.Load() != 1 {
		t.Errorf("%d consumers, %d followers", n, opened.Load())
	}
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Aged != 20 || got.Compared != 40 {
		t.Errorf("%+v, %+v", got, got.Finding)
	}
	if st := s.States()[0]; st.ByServer || st.Absent != 0 {
		t.Errorf("%+v", st)
	}

	loose := newLooseRig(t)
	up = &counted{Upstream: loose.server}
	s, _ = loose.serve(func(c *Config) {
		c.Upstream = up
		c.Follow = func(string, string, uint64) (Follower, error) {
			return nil, errors.New("the files of this stream must not be read")
		}
	})
	loose.publish(0, 20)
	awaitSize(t, s, 20)
	if n := up.readers.Load(); n == 0 || s.States()[0].ByServer {
		t.Errorf("%d consumers, %+v", n, s.States()[0])
	}
}

// wrapFollow has wrap open the files of streams; open is how c would have done it.
func wrapFollow(c *Config, wrap func(from uint64, open func() (Follower, error)) (Follower, error)) {
	follow := c.Follow
	c.Follow = func(account, stream string, from uint64) (Follower, error) {
		return wrap(from, func() (Follower, error) { return follow(account, stream, from) })
	}
}

// counted is an Upstream that counts who reads from the server.
type counted struct {
	Upstream
	readers atomic.Int64
}

func (c *counted) Ticket(account string, publish, subscribe []string, local net.Addr) (string, func()) {
	c.readers.Add(1)
	return c.Upstream.Ticket(account, publish, subscribe, local)
}

// failing is a follower that ends in a way, after so many messages.
type failing struct {
	Follower
	left int
	err  error // nil: it brings nothing more
	skip uint64
}

func (f *failing) Next(m *Record) (bool, error) {
	if f.left == 0 {
		return false, f.err
	}
	ok, err := f.Follower.Next(m)
	if ok && m.Seq == f.skip {
		ok, err = f.Follower.Next(m)
	}
	if ok {
		f.left--
	}
	return ok, err
}

func (f *failing) Buffered() bool { return f.left > 0 && f.Follower.Buffered() }

// TestLogWithoutFiles: whatever is wrong with the files of a stream, its log goes on, and
// says that it reads from the server; after a while it tries the files again.
func TestLogWithoutFiles(t *testing.T) {
	for _, tt := range []struct {
		name  string
		open  error // of opening them
		left  int
		fault error
		skip  uint64
	}{
		{"that cannot be opened", errors.New("no such folder"), 0, nil, 0},
		{"that end with an error", nil, 150, errors.New("a record is not sound"), 0},
		{"that do not grow", nil, 150, nil, 0},
		{"that lack a message", nil, 399, nil, 77},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			var whole atomic.Bool
			up := &counted{Upstream: r.server}
			s, _ := r.serve(func(c *Config) {
				c.Upstream, c.retryFiles = up, 300*time.Millisecond
				wrapFollow(c, func(from uint64, open func() (Follower, error)) (Follower, error) {
					if tt.open != nil && !whole.Load() {
						return nil, tt.open
					}
					f, err := open()
					if whole.Load() || err != nil {
						return f, err
					}
					return &failing{Follower: f, left: tt.left, err: tt.fault, skip: tt.skip}, nil
				})
			})
			r.publish(0, 400)
			note := awaitSize(t, s, 400)
			if st := s.States()[0]; up.readers.Load() == 0 || st.Absent != 0 {
				t.Errorf("%d consumers, %+v", up.readers.Load(), st)
			}
			if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Compared != 400 {
				t.Errorf("%+v, %+v", got, got.Finding)
			}
			whole.Store(true)
			eventually(t, "the files are read again", func() (bool, string) {
				st := s.States()[0]
				return !st.ByServer, fmt.Sprintf("%+v", st)
			})
			r.publish(400, 450)
			note = awaitSize(t, s, 450)
			if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Compared != 450 {
				t.Errorf("%+v, %+v", got, got.Finding)
			}
		})
	}
}

// TestHolesAreReadFromTheServer: a message that was deleted is in its block for a while. The
// log has nothing that the server does not serve, so such a stream is read from it.
func TestHolesAreReadFromTheServer(t *testing.T) {
	r := newLooseRig(t)
	r.publish(0, 20)
	stream, err := r.js("shop").Stream(t.Context(), "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	r.loose = false
	r.updateStream(keeping(0)) // from now on nobody can
	up := &counted{Upstream: r.server}
	s, _ := r.serve(func(c *Config) {
		c.Upstream = up
		c.Lacks = func(string, string) uint64 { return 1 } // known: it is no damage
	})
	note := awaitSize(t, s, 20)
	if st := s.States()[0]; st.Absent != 1 || !st.ByServer || up.readers.Load() == 0 {
		t.Errorf("%d consumers, %+v", up.readers.Load(), st)
	}
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Compared != 19 || got.Absent != 1 {
		t.Errorf("%+v, %+v", got, got.Finding)
	}
}

// TestStuckFilesAreBehind: that the files bring nothing, though the server has more, is
// known before they are given up, and also where the node leads the stream anew.
func TestStuckFilesAreBehind(t *testing.T) {
	r := newRig(t)
	r.publish(0, 400)
	s, _ := r.serve(func(c *Config) {
		wrapFollow(c, func(from uint64, open func() (Follower, error)) (Follower, error) {
			f, err := open()
			return &failing{Follower: f, left: 150}, err
		})
	})
	eventually(t, "something waits", func() (bool, string) {
		st := s.States()[0]
		return !st.ByServer && st.Size == 150 && !st.Behind.IsZero() && st.Lag() == 250, fmt.Sprintf("%+v", st)
	})
	awaitSize(t, s, 400)
	awaitState := func(what string, ok func(*State) bool) {
		t.Helper()
		eventually(t, what, func() (bool, string) {
			st := s.States()[0]
			return ok(&st), fmt.Sprintf("%+v", st)
		})
	}
	r.leads.Store(false)
	awaitState("it leads no more", func(st *State) bool { return !st.Leading && !st.ByServer })
	r.leads.Store(true)
	awaitState("it leads again, and reads from the server", func(st *State) bool { return st.Leading && st.ByServer })
}

// TestHoleEndsTheFiles: what the server lets go within a stream, while its log is read from
// the files, does not come into the log from there.
func TestHoleEndsTheFiles(t *testing.T) {
	r := newRig(t)
	var files atomic.Int64
	s, _ := r.serve(func(c *Config) {
		wrapFollow(c, func(from uint64, open func() (Follower, error)) (Follower, error) {
			files.Add(1)
			return open()
		})
	})
	js := r.js("shop")
	put := func(subject string) {
		t.Helper()
		if _, err := js.Publish(t.Context(), subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	put("orders.first")
	put("orders.same")
	put("orders.same")
	awaitSize(t, s, 3)
	if st := s.States()[0]; st.ByServer || files.Load() != 1 {
		t.Fatalf("%d followers, %+v", files.Load(), st)
	}
	cfg := keeping(0)
	cfg.MaxMsgsPerSubject = 1
	r.updateStream(cfg)
	eventually(t, "the log is read from the server", func() (bool, string) {
		st := s.States()[0]
		return st.ByServer, fmt.Sprintf("%+v", st)
	})
	if files.Load() != 1 {
		t.Errorf("%d followers", files.Load())
	}
}

// TestFilesOfAnotherStream: a stream that is deleted and made anew between the comparison
// with its log and the reading of its files does not go on in that log.
func TestFilesOfAnotherStream(t *testing.T) {
	r := newRig(t)
	r.publish(0, 20)
	s, stop := r.serve(nil)
	awaitSize(t, s, 20)
	stop()
	var once sync.Once
	s, _ = r.serve(func(c *Config) {
		wrapFollow(c, func(from uint64, open func() (Follower, error)) (Follower, error) {
			once.Do(func() {
				if err := r.js("shop").DeleteStream(t.Context(), "ORDERS"); err != nil {
					t.Error(err)
				}
				r.makeStream("shop", jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, DenyDelete: true, DenyPurge: true})
				r.publish(100, 140)
			})
			return open()
		})
	})
	eventually(t, "the log stands still", func() (bool, string) {
		st := s.States()[0]
		return errors.Is(st.Fault, ErrDisagrees), fmt.Sprintf("%+v", st)
	})
	if note, _, err := s.Last(t.Context(), "shop", "ORDERS"); err != nil || note.Size != 20 {
		t.Errorf("%+v, %v", note, err)
	}
}

// trailed is a follower in whose file a record that is no message stands behind the last.
type trailed struct {
	Follower
	last  uint64
	there bool
}

func (f *trailed) Next(m *Record) (bool, error) {
	ok, err := f.Follower.Next(m)
	f.there = ok && m.Seq == f.last
	return ok, err
}

func (f *trailed) Buffered() bool { return f.there || f.Follower.Buffered() }

// TestTombstoneIsNotBehind: what stands behind the last message in its file, and is none,
// does not make the log one that waits for ever.
func TestTombstoneIsNotBehind(t *testing.T) {
	r := newRig(t)
	r.publish(0, 20)
	s, _ := r.serve(func(c *Config) {
		wrapFollow(c, func(from uint64, open func() (Follower, error)) (Follower, error) {
			f, err := open()
			return &trailed{Follower: f, last: 20}, err
		})
	})
	eventually(t, "nothing waits", func() (bool, string) {
		st := s.States()[0]
		return !st.ByServer && st.Size == 20 && st.Behind.IsZero() && st.Lag() == 0, fmt.Sprintf("%+v", st)
	})
}

// TestFilesAreOnlyForWhatComes: what a writer that begins compares comes from the server, and
// so does a log of some of the messages of a stream.
func TestFilesAreOnlyForWhatComes(t *testing.T) {
	r := newRig(t)
	r.publish(0, 20)
	s, stop := r.serve(nil)
	awaitSize(t, s, 20)
	stop()
	r.publish(20, 25)
	var lowest atomic.Uint64
	lowest.Store(1000)
	s, stop = r.serve(func(c *Config) {
		wrapFollow(c, func(from uint64, open func() (Follower, error)) (Follower, error) {
			lowest.Store(min(lowest.Load(), from))
			return open()
		})
	})
	awaitSize(t, s, 25)
	r.publish(25, 30)
	awaitSize(t, s, 30)
	stop()
	if n := lowest.Load(); n < 21 || n > 26 {
		t.Errorf("files were read from sequence %d on", n)
	}

	js := r.js("shop")
	for _, subject := range []string{"orders.some", "orders.created", "orders.some"} {
		if _, err := js.Publish(t.Context(), subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	cfg := r.config()
	cfg.Follow = func(string, string, uint64) (Follower, error) {
		t.Error("files were read for some of the messages")
		return nil, errors.New("they must not be")
	}
	some, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := some.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	source := orders
	source.Tenant, source.Filter = "SOME", "orders.some"
	some.Set([]Source{source})
	eventually(t, "the last of them is in a checkpoint", func() (bool, string) {
		st := some.States()[0]
		return st.First > 0 && st.First+uint64(st.Size) == 34, fmt.Sprintf("%+v", st)
	})
}
