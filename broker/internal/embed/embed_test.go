package embed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, change func(*Config)) *Server {
	t.Helper()
	cfg := Config{
		StoreDir: t.TempDir(), ServerName: "test",
		Tenants: []TenantAccount{{Name: "shop", MaxBytes: 64 << 20}, {Name: "lab", MaxBytes: 32 << 20}},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := Start(testContext(t), cfg)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	select {
	case <-s.Done():
	default:
		t.Error("Done is open after Shutdown")
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		}
	}
}

// upstream makes nats.go dial as the gate does: the ticket is made for the
// connection that Dial returned.
type upstream struct {
	s                  *Server
	account            string
	publish, subscribe []string

	mu     sync.Mutex
	token  string
	revoke func()
}

func (u *upstream) Dial(string, string) (net.Conn, error) {
	c, err := u.s.Dial(context.Background())
	if err == nil {
		u.mu.Lock()
		u.token, u.revoke = u.s.Ticket(u.account, u.publish, u.subscribe, c.LocalAddr())
		u.mu.Unlock()
	}
	return c, err
}

func (u *upstream) get() string { u.mu.Lock(); defer u.mu.Unlock(); return u.token }

func (u *upstream) connect(t *testing.T, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := u.tryConnect(opts...)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (u *upstream) tryConnect(opts ...nats.Option) (*nats.Conn, error) {
	all := append([]nats.Option{nats.SetCustomDialer(u), nats.TokenHandler(u.get), nats.NoReconnect()}, opts...)
	return nats.Connect("nats://"+u.s.Addr().String(), all...)
}

func all(s *Server, account string) *upstream {
	return &upstream{s: s, account: account, publish: []string{">"}, subscribe: []string{">"}}
}

func internal(t *testing.T, s *Server, account string) *nats.Conn {
	t.Helper()
	token, revoke := s.InternalTicket(account)
	t.Cleanup(revoke)
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.Token(token), nats.NoReconnect())
	if err != nil {
		t.Fatalf("internal connection: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func TestTicketRefused(t *testing.T) {
	s := start(t, nil)
	used := all(s, "shop")
	used.connect(t)
	pipeToken, revokePipe := s.InternalTicket("shop")
	defer revokePipe()
	conn, err := s.Dial(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	otherPort, revokeOther := s.Ticket("shop", []string{">"}, []string{">"}, conn.LocalAddr())
	defer revokeOther()
	for _, tc := range []struct {
		name string
		opts []nats.Option
	}{
		{"no ticket", nil},
		{"unknown ticket", []nats.Option{nats.Token("guess")}},
		{"empty ticket", []nats.Option{nats.Token("")}},
		{"ticket redeemed by another connection", []nats.Option{nats.Token(used.get())}},
		{"ticket for another source port", []nats.Option{nats.Token(otherPort)}},
		{"internal ticket over TCP", []nats.Option{nats.Token(pipeToken)}},
		{"user and password", []nats.Option{nats.UserInfo("shop", "shop")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nc, err := nats.Connect("nats://"+s.Addr().String(), append(tc.opts, nats.NoReconnect())...)
			if err == nil {
				nc.Close()
				t.Fatal("connected")
			}
			if !errors.Is(err, nats.ErrAuthorization) {
				t.Fatalf("got %v, want %v", err, nats.ErrAuthorization)
			}
		})
	}
	t.Run("revoked before use", func(t *testing.T) {
		u := all(s, "shop")
		nc, err := u.tryConnect(nats.TokenHandler(func() string { u.revoke(); return u.get() }))
		if err == nil {
			nc.Close()
			t.Fatal("connected")
		}
	})
	t.Run("expired before use", func(t *testing.T) {
		u := all(s, "shop")
		nc, err := u.tryConnect(nats.TokenHandler(func() string {
			s.tickets.mu.Lock()
			for _, k := range s.tickets.table {
				if k.cid == 0 {
					k.expires = time.Now()
				}
			}
			s.tickets.mu.Unlock()
			return u.get()
		}))
		if err == nil {
			nc.Close()
			t.Fatal("connected")
		}
	})
	t.Run("unknown account", func(t *testing.T) {
		if nc, err := all(s, "nobody").tryConnect(); err == nil {
			nc.Close()
			t.Fatal("connected")
		}
	})
	t.Run("address that is not loopback TCP", func(t *testing.T) {
		for _, a := range []net.Addr{nil, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 9}, &net.UnixAddr{Name: "x", Net: "unix"}} {
			if token, _ := s.Ticket("shop", nil, nil, a); token != "" {
				t.Errorf("%v: got a ticket", a)
			}
		}
	})
	if n := s.Stats().TicketsRefused; n < 9 {
		t.Errorf("TicketsRefused = %d, want 9 or more", n)
	}
}

// fakeConn is a connection as the authenticator sees it.
type fakeConn struct {
	server.ClientAuthentication
	opts server.ClientOpts
	addr net.Addr
	kind int
	id   uint64
}

func (c *fakeConn) GetOpts() *server.ClientOpts { return &c.opts }
func (c *fakeConn) RemoteAddress() net.Addr     { return c.addr }
func (c *fakeConn) Kind() int                   { return c.kind }
func (c *fakeConn) GetID() uint64               { return c.id }

func TestAdmit(t *testing.T) {
	tcp := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	for _, tc := range []struct {
		name   string
		from   net.Addr // of the ticket; nil: internal
		change func(*fakeConn)
		want   bool
	}{
		{"as issued", tcp, func(*fakeConn) {}, true},
		{"as issued, address in 16 bytes", tcp, func(c *fakeConn) { c.addr = &net.TCPAddr{IP: tcp.IP.To16(), Port: 9} }, true},
		{"internal over a pipe", nil, func(c *fakeConn) { c.addr = pipe.RemoteAddr() }, true},
		{"network ticket over a pipe", tcp, func(c *fakeConn) { c.addr = pipe.RemoteAddr() }, false},
		{"internal over TCP", nil, func(*fakeConn) {}, false},
		{"no address", tcp, func(c *fakeConn) { c.addr = nil }, false},
		{"other address", tcp, func(c *fakeConn) { c.addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 9} }, false},
		{"leaf node", tcp, func(c *fakeConn) { c.kind = server.LEAF }, false},
		{"with a user name", tcp, func(c *fakeConn) { c.opts.Username = "x" }, false},
		{"with a password", tcp, func(c *fakeConn) { c.opts.Password = "x" }, false},
		{"with an nkey", tcp, func(c *fakeConn) { c.opts.Nkey = "x" }, false},
		{"with a JWT", tcp, func(c *fakeConn) { c.opts.JWT = "x" }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			table := newTickets()
			from, _ := source(tc.from)
			c := &fakeConn{addr: tcp, kind: server.CLIENT, id: 7}
			c.opts.Token = table.issue("shop", from, nil)
			tc.change(c)
			if _, _, ok := table.admit(c); ok != tc.want {
				t.Fatalf("admitted %v, want %v", ok, tc.want)
			}
			if !tc.want {
				return
			}
			if _, _, ok := table.admit(c); !ok {
				t.Error("the re-check of the same connection was refused")
			}
			c.id++
			if _, _, ok := table.admit(c); ok {
				t.Error("another connection from the same address was admitted")
			}
		})
	}
}

// A closed connection's port may come back to another connection, so the port
// alone must not carry a redeemed ticket over.
func TestTicketIsBoundToOneConnection(t *testing.T) {
	s := start(t, nil)
	u := all(s, "shop")
	nc := u.connect(t)
	id, err := nc.GetClientID()
	if err != nil {
		t.Fatal(err)
	}
	s.tickets.mu.Lock()
	defer s.tickets.mu.Unlock()
	for _, k := range s.tickets.table {
		if k.cid != id {
			t.Errorf("ticket is bound to connection %d, want %d", k.cid, id)
		}
	}
}

func TestEmptyListsAllowNothing(t *testing.T) {
	s := start(t, nil)
	errs := make(chan error, 8)
	u := &upstream{s: s, account: "shop"}
	nc := u.connect(t, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))
	if err := nc.Publish("a", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.SubscribeSync("b"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case err := <-errs:
			if !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
				t.Errorf("got %v, want a permissions violation", err)
			}
		case <-testContext(t).Done():
			t.Fatal("no permissions violation")
		}
	}
}

func TestReloadKeepsConnections(t *testing.T) {
	const n = 200
	s := start(t, nil)
	var mu sync.Mutex
	var lost []error
	conns := make([]*nats.Conn, n)
	for i := range conns {
		account := "shop"
		if i%2 == 1 {
			account = "lab"
		}
		conns[i] = all(s, account).connect(t, nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				mu.Lock()
				lost = append(lost, err)
				mu.Unlock()
			}
		}))
	}
	inside := internal(t, s, "shop")
	began := time.Now()
	tenants := []TenantAccount{{Name: "shop", MaxBytes: 64 << 20}, {Name: "lab", MaxBytes: 48 << 20}, {Name: "new", MaxBytes: 16 << 20}}
	if err := s.ReloadAccounts(tenants); err != nil {
		t.Fatalf("ReloadAccounts: %v", err)
	}
	t.Logf("reload with %d connections: %v", n, time.Since(began))
	for i, nc := range append(conns, inside) {
		if err := nc.FlushTimeout(10 * time.Second); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(lost) > 0 {
		t.Errorf("%d of %d connections lost: %v", len(lost), n, lost[0])
	}
	ctx := testContext(t)
	js, err := jetstream.New(all(s, "new").connect(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, MaxBytes: 16 << 20}); err != nil {
		t.Fatalf("stream in the new account: %v", err)
	}
	if _, err := js.Publish(ctx, "s.a", []byte("x")); err != nil {
		t.Fatalf("publish in the new account: %v", err)
	}
}

func TestReloadAccounts(t *testing.T) {
	s := start(t, nil)
	ctx := testContext(t)
	js, err := jetstream.New(internal(t, s, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	create := func(name string, bytes int64) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}, MaxBytes: bytes})
		return err
	}
	if err := create("A", 60<<20); err != nil {
		t.Fatal(err)
	}
	if err := create("B", 60<<20); err == nil {
		t.Fatal("the account's limit is not enforced")
	}
	if err := s.ReloadAccounts([]TenantAccount{{Name: "shop", MaxBytes: 128 << 20}}); err != nil {
		t.Fatalf("larger limit: %v", err)
	}
	if err := create("B", 60<<20); err != nil {
		t.Fatalf("after the larger limit: %v", err)
	}
	if err := s.ReloadAccounts([]TenantAccount{{Name: "shop", MaxBytes: 100 << 20}}); !errors.Is(err, ErrReload) {
		t.Errorf("limit below the reservation: got %v, want ErrReload", err)
	}
	if err := s.ReloadAccounts([]TenantAccount{{Name: "a b", MaxBytes: 1}}); !errors.Is(err, ErrConfig) {
		t.Errorf("bad name: got %v, want ErrConfig", err)
	}
	if !s.HasAccount("shop") || s.HasAccount("a b") || s.HasAccount("SYS") {
		t.Error("HasAccount")
	}
	// lab was not in the lists above: it keeps its account until the next start.
	if err := internal(t, s, "lab").FlushTimeout(10 * time.Second); err != nil {
		t.Errorf("lab: %v", err)
	}
	if err := s.ReloadAccounts([]TenantAccount{{Name: "shop", MaxBytes: 121 << 20}}); err != nil {
		t.Errorf("lower limit over the reservation: %v", err)
	}
	st := s.Stats()
	if len(st.JetStream.Tenants) != 2 || st.JetStream.Tenants[1].LimitBytes != 121<<20 || st.JetStream.Tenants[1].Streams != 2 || st.JetStream.Tenants[1].ReservedBytes != 120<<20 {
		t.Errorf("stats of tenants: %+v", st.JetStream.Tenants)
	}
}

func TestRevokedTicketIsCutAtReload(t *testing.T) {
	s := start(t, nil)
	keep, cut := all(s, "shop"), all(s, "shop")
	kept, gone := keep.connect(t), cut.connect(t)
	cut.revoke()
	if err := gone.FlushTimeout(5 * time.Second); err != nil {
		t.Fatalf("revoke alone cut the connection: %v", err)
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the revoked connection ends", gone.IsClosed)
	if err := kept.FlushTimeout(5 * time.Second); err != nil {
		t.Errorf("the other connection: %v", err)
	}
}

func TestUpdateTicket(t *testing.T) {
	s := start(t, nil)
	errs := make(chan error, 8)
	u := &upstream{s: s, account: "shop", publish: []string{"old.>"}, subscribe: []string{"old.>"}}
	nc := u.connect(t, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))
	watch, err := internal(t, s, "shop").SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.SubscribeSync("old.a"); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	s.UpdateTicket(u.get(), []string{"new.>"}, []string{"new.>"})
	s.UpdateTicket("unknown", nil, nil)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"old.a", "new.a"} {
		if err := nc.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	m, err := watch.NextMsg(10 * time.Second)
	if err != nil || m.Subject != "new.a" {
		t.Errorf("first message: %v, %v; want new.a", m, err)
	}
	var text string
	for range 2 { // the subscription that ended, the publish that was refused
		select {
		case err := <-errs:
			text += err.Error() + "\n"
		case <-testContext(t).Done():
			t.Fatalf("want two violations, got %q", text)
		}
	}
	if text = strings.ToLower(text); !strings.Contains(text, `subscription to "old.a"`) || !strings.Contains(text, `publish to "old.a"`) {
		t.Errorf("violations: %q", text)
	}
}

func TestTenantsAreApart(t *testing.T) {
	s := start(t, nil)
	sub, err := internal(t, s, "lab").SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	own, err := internal(t, s, "shop").SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	nc := all(s, "shop").connect(t)
	if err := nc.Publish("a.b", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := own.NextMsg(10 * time.Second); err != nil {
		t.Fatalf("own tenant: %v", err)
	}
	if n, _, err := sub.Pending(); err != nil || n != 0 {
		t.Errorf("the other tenant got %d messages, %v", n, err)
	}
}

func TestStartRefuses(t *testing.T) {
	valid := Config{StoreDir: t.TempDir(), ServerName: "test"}
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   error
	}{
		{"no store directory", func(c *Config) { c.StoreDir = "" }, ErrConfig},
		{"no server name", func(c *Config) { c.ServerName = "" }, ErrConfig},
		{"payload over 64 MiB", func(c *Config) { c.MaxPayload = 65 << 20 }, ErrConfig},
		{"pending below two payloads", func(c *Config) { c.MaxPending = 1 << 20 }, ErrConfig},
		{"port", func(c *Config) { c.LoopbackPort = 70000 }, ErrConfig},
		{"timeout", func(c *Config) { c.StartTimeout = -1 }, ErrConfig},
		{"tenant without bytes", func(c *Config) { c.Tenants = []TenantAccount{{Name: "a"}} }, ErrConfig},
		{"tenant named as the system account", func(c *Config) { c.Tenants = []TenantAccount{{"sys", 1}} }, ErrConfig},
		{"tenant twice", func(c *Config) { c.Tenants = []TenantAccount{{"a", 1}, {"a", 1}} }, ErrConfig},
		{"tenant that breaks out of its quotes", func(c *Config) { c.Tenants = []TenantAccount{{"a\": {}}\nhttp: 1\n#", 1}} }, ErrConfig},
		{"sum overflows", func(c *Config) { c.Tenants = []TenantAccount{{"a", 1 << 62}, {"b", 1 << 62}} }, ErrConfig},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := valid
			tc.change(&c)
			if s, err := Start(testContext(t), c); !errors.Is(err, tc.want) {
				if err == nil {
					stop(t, s)
				}
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	t.Run("store directory in use", func(t *testing.T) {
		s := start(t, nil)
		c := s.cfg
		if _, err := Start(testContext(t), c); !errors.Is(err, ErrLocked) {
			t.Errorf("got %v, want ErrLocked", err)
		}
		stop(t, s)
		s, err := Start(testContext(t), c)
		if err != nil {
			t.Fatalf("after the other ended: %v", err)
		}
		stop(t, s)
	})
	t.Run("port in use", func(t *testing.T) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c := valid
		c.LoopbackPort = l.Addr().(*net.TCPAddr).Port
		if _, err := Start(testContext(t), c); !errors.Is(err, ErrServer) {
			t.Errorf("got %v, want ErrServer", err)
		}
	})
	t.Run("store that is not a directory", func(t *testing.T) {
		c := valid
		c.StoreDir = t.TempDir()
		if err := os.WriteFile(c.StoreDir+"/jetstream", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Start(testContext(t), c); !errors.Is(err, ErrServer) {
			t.Errorf("got %v, want ErrServer", err)
		}
	})
	t.Run("context over", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Start(ctx, valid); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

// TestInspectRunsUnderTheLock: the store is looked at before the server and after it,
// while nobody else can open it; an objection ends the start and gives the lock back.
func TestInspectRunsUnderTheLock(t *testing.T) {
	dir := t.TempDir()
	objection := errors.New("damaged")
	locked := func(what string) {
		t.Helper()
		if _, err := lockDir(dir); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: the lock is free: %v", what, err)
		}
	}
	cfg := Config{StoreDir: dir, ServerName: "n", Tenants: []TenantAccount{{Name: "t", MaxBytes: 1 << 20}}}
	cfg.Inspect = func(context.Context) error { locked("Inspect"); return objection }
	if _, err := Start(t.Context(), cfg); !errors.Is(err, objection) {
		t.Fatalf("got %v", err)
	}
	stopped := 0
	cfg.Inspect = func(context.Context) error { locked("Inspect"); return nil }
	cfg.Stopped = func() { locked("Stopped"); stopped++ }
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if states, err := s.StreamStates(); err != nil || len(states) != 0 {
		t.Errorf("streams of an empty store: %v, %v", states, err)
	}
	stop(t, s)
	if stopped != 1 {
		t.Errorf("Stopped was called %d times", stopped)
	}
}

func TestStateSurvivesRestart(t *testing.T) {
	for _, always := range []bool{true, false} {
		t.Run(fmt.Sprintf("SyncAlways=%v", always), func(t *testing.T) {
			s := start(t, func(c *Config) { c.SyncAlways = always })
			ctx := testContext(t)
			js, err := jetstream.New(internal(t, s, "shop"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, MaxBytes: 1 << 20}); err != nil {
				t.Fatal(err)
			}
			if _, err := js.Publish(ctx, "s", []byte("kept")); err != nil {
				t.Fatal(err)
			}
			js.Conn().Close()
			stop(t, s)
			next, err := Start(ctx, s.cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer stop(t, next)
			js, err = jetstream.New(internal(t, next, "shop"))
			if err != nil {
				t.Fatal(err)
			}
			stream, err := js.Stream(ctx, "S")
			if err != nil {
				t.Fatal(err)
			}
			if m, err := stream.GetMsg(ctx, 1); err != nil || string(m.Data) != "kept" {
				t.Errorf("got %v, %v", m, err)
			}
			if err := next.Health(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestJetStreamThatIsOff: what nats-server does to itself without space shows, and is
// no health.
func TestJetStreamThatIsOff(t *testing.T) {
	s := start(t, nil)
	if err := s.Health(); err != nil || !s.JetStreamEnabled() {
		t.Fatalf("from the start: %v, on: %v", err, s.JetStreamEnabled())
	}
	if err := s.ns.ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	if err := s.Health(); !errors.Is(err, ErrUnhealthy) || s.JetStreamEnabled() {
		t.Errorf("off: %v, on: %v", err, s.JetStreamEnabled())
	}
}

func TestShutdown(t *testing.T) {
	s := start(t, nil)
	if err := s.Err(); err != nil {
		t.Errorf("Err while it runs: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(over); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown with an ended context: %v", err)
	}
	stop(t, s)
	stop(t, s)
	if err := s.Err(); err != nil {
		t.Errorf("Err after Shutdown: %v", err)
	}
	if _, err := s.Dial(testContext(t)); err == nil {
		t.Error("Dial after Shutdown")
	}
	if _, err := s.InProcessConn(); err == nil {
		t.Error("InProcessConn after Shutdown")
	}
	if err := s.Reload(); err == nil {
		t.Error("Reload after Shutdown")
	}
}

func TestFatalErrorEndsTheServer(t *testing.T) {
	s := start(t, nil)
	s.log.Fatalf("disk on %s", "fire")
	select {
	case <-s.Done():
	case <-testContext(t).Done():
		t.Fatal("it still runs")
	}
	if err := s.Err(); !errors.Is(err, ErrServer) || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("Err: %v", err)
	}
	s.err = nil // for the clean-up
}

// TestReloadsAndConnectsAreApart: nats-server has a data race between a reload and a
// CONNECT (it shows here with -race where Connecting is not held).
func TestReloadsAndConnectsAreApart(t *testing.T) {
	s := start(t, nil)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	failed := make(chan error, 4)
	for range 4 {
		wg.Go(func() {
			u := all(s, "shop")
			for {
				select {
				case <-stop:
					return
				default:
				}
				done := s.Connecting()
				nc, err := u.tryConnect() // returns after the PONG
				done()
				if err != nil {
					failed <- err
					return
				}
				nc.Close()
				u.revoke()
			}
		})
	}
	for i := range 200 {
		var err error
		if i%2 == 0 {
			err = s.Reload()
		} else {
			err = s.ReloadAccounts([]TenantAccount{{Name: "shop", MaxBytes: 64<<20 + int64(i)<<10}})
		}
		if err != nil {
			t.Errorf("reload %d: %v", i, err)
			break
		}
	}
	close(stop)
	wg.Wait()
	select {
	case err := <-failed:
		t.Errorf("connect: %v", err)
	default:
	}
}

// TestReloadWaitsForWhoeverLogsIn: a reload begins after the last one is done.
func TestReloadWaitsForWhoeverLogsIn(t *testing.T) {
	s := start(t, nil)
	first, second := s.Connecting(), s.Connecting()
	reloaded := make(chan error, 1)
	go func() { reloaded <- s.Reload() }()
	first()
	select {
	case err := <-reloaded:
		t.Errorf("reloaded while a connection logs in: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	second()
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
	s.Connecting()()
}
