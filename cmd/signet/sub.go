package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
)

// subVerb is signet sub.
type subVerb struct {
	*app
	from    string
	durable string
	count   int
	rawData bool
	save    string
	live    bool
	signers []string // of --require-producer; anyProducer: whoever
	// decrypt are the seed files of --decrypt.
	decrypt   []string
	keyPrefix string
	encrypted bool // --require-encryption

	file    *os.File // of --save
	seen    int
	done    chan struct{} // closed when count was reached
	invalid atomic.Uint64
	leaving atomic.Bool // the connection is closed on purpose
	wrote   error       // first failure of an output; read after the subscription is closed
}

func subCommand(a *app) *cobra.Command {
	s := &subVerb{app: a, done: make(chan struct{})}
	cmd := &cobra.Command{
		Use: "sub SUBJECT", Short: "read verified events", Args: exactly("SUBJECT"),
		Long: `Prints the events on a subject (wildcards * and >) whose attestation holds; an
event that does not verify is reported on standard error and never printed, and
makes the exit code 3.

Without --durable it starts with the next event (--since new) and remembers
nothing. With --durable the position is kept by the broker under that name, each
event is acknowledged after it was printed, and the first start is at the oldest.

-o json prints one structured CloudEvent a line, with natssubject and attestation:
the evidence that signet verify reads. --save FILE appends the same lines to a file.

--require-producer takes only events that their producer has signed, and with a value
only those that it names: nobody can then take a signature away unseen, not even the
broker. Others are reported like events that do not verify.

--decrypt prints the data of encrypted events; with -o json too, which then is not the
evidence: --save keeps that, encrypted, as it was signed.`,
		Example: `  signet sub 'orders.>'
  signet sub orders.created --since 1h -o json
  signet sub 'orders.>' --since start --count 10 --save evidence.ndjson
  signet sub 'orders.>' --durable billing
  signet sub orders.paid --require-producer=shop/checkout
  signet sub 'telemetry.>' --live
  signet sub 'care.>' --decrypt doctor.recipient.seed`,
		RunE: a.verb(func(ctx context.Context, args []string) error { return s.run(ctx, args[0]) }),
	}
	f := cmd.Flags()
	f.StringVar(&s.from, "since", "", "start, new, 5m, an RFC 3339 time or seq:N (default: new, with --durable start)")
	f.StringVar(&s.durable, "durable", "", "keep the position under this name and acknowledge")
	f.IntVar(&s.count, "count", 0, "end after this many events (default: go on)")
	f.BoolVar(&s.rawData, "raw-data", false, "print the data only, byte for byte, each followed by a line end")
	f.StringVar(&s.save, "save", "", "append the events as structured JSON lines to this file")
	f.StringArrayVar(&s.decrypt, "decrypt", nil, "file with the seed of a recipient key (SX..., mode 0600): decrypt what is encrypted to it (repeat it)")
	f.BoolVar(&s.encrypted, "require-encryption", false, "only events whose payload was encrypted; with --decrypt")
	f.StringVar(&s.keyPrefix, "key-prefix", client.DefaultKeyPrefix, "where the key records of encrypted events are")
	f.BoolVar(&s.live, "live", false, "the subject is ephemeral: only what is published from now on")
	f.StringSliceVar(&s.signers, "require-producer", nil, "only events signed by their producer: any, or these (TENANT/NAME, comma between them, after a =)")
	f.Lookup("require-producer").NoOptDefVal = anyProducer
	return cmd
}

// anyProducer is the value of --require-producer where none is given; it is no principal,
// which has a slash.
const anyProducer = "any"

// producerOption is what --require-producer asks for; nil: it is not given.
func producerOption(signers []string) ([]client.SubOption, error) {
	if len(signers) == 0 {
		return nil, nil
	}
	named := slices.DeleteFunc(slices.Clone(signers), func(p string) bool { return p == anyProducer })
	if len(named) > 0 && len(named) < len(signers) {
		return nil, &usageError{msg: "--require-producer: either any producer, or those that are named"}
	}
	for _, p := range named {
		if tenant, name, ok := strings.Cut(p, "/"); !ok || tenant == "" || name == "" {
			return nil, &usageError{msg: fmt.Sprintf("--require-producer=%s: want TENANT/NAME", clean(p))}
		}
	}
	return []client.SubOption{client.RequireProducer(named...)}, nil
}

func (s *subVerb) run(ctx context.Context, filter string) (err error) {
	opts, err := s.options()
	if err != nil {
		return err
	}
	signed, err := producerOption(s.signers)
	if err != nil {
		return err
	}
	opts = append(opts, signed...)
	switch {
	case len(s.decrypt) == 0 && (s.encrypted || s.keyPrefix != client.DefaultKeyPrefix):
		return &usageError{msg: "--require-encryption and --key-prefix go with --decrypt"}
	case s.encrypted:
		opts = append(opts, client.RequireEncryption())
	}
	if s.save != "" {
		if s.file, err = os.OpenFile(s.save, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.file.Close()) }()
	}
	connect := []client.Option{client.WithErrorHandler(s.warn), client.WithInvalidHandler(s.refused), client.WithStateHandler(s.state)}
	for _, file := range s.decrypt {
		if _, err := os.Stat(file); err != nil {
			return &usageError{msg: "--decrypt: " + err.Error()}
		}
	}
	if len(s.decrypt) > 0 {
		connect = append(connect, client.WithDecryption(client.Decryption{SeedFiles: s.decrypt, KeyPrefix: s.keyPrefix}))
	}
	c, err := s.connect(ctx, connect...)
	if err != nil {
		return err
	}
	defer func() {
		s.leaving.Store(true)
		c.Close()
	}()
	subscribe := c.Subscribe
	if s.live {
		subscribe = c.SubscribeLive
	}
	call, cancel := context.WithTimeout(ctx, s.timeout)
	sub, err := subscribe(call, filter, s.handle, opts...)
	cancel()
	if err != nil {
		return hintSubscribe(err, filter)
	}
	s.note("subscribed to %s (Ctrl-C ends)", clean(filter))
	select {
	case <-ctx.Done():
		s.leaving.Store(true)
		sub.Stop()
		<-sub.Closed()
		return ctx.Err()
	case <-sub.Closed():
		err = sub.Err()
	case <-s.done:
		s.leaving.Store(true)
		// What is buffered beyond the count goes back to the broker.
		call, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		err = c.Drain(call)
		<-sub.Closed()
	}
	if err = errors.Join(err, s.wrote); err == nil && s.invalid.Load() > 0 {
		return &exitError{code: exitRefused}
	}
	return err
}

// options checks the flags and turns them into those of the subscription.
func (s *subVerb) options() ([]client.SubOption, error) {
	switch {
	case s.count < 0:
		return nil, &usageError{msg: "--count: at least 1"}
	case s.rawData && s.jsonOut():
		return nil, &usageError{msg: "--raw-data and -o json exclude each other"}
	case s.live && (s.from != "" || s.durable != ""):
		return nil, &usageError{msg: "--live has no past: leave out --since and --durable"}
	case s.live:
		return nil, nil
	}
	from := s.from
	if from == "" {
		from = "new"
		if s.durable != "" {
			from = "start"
		}
	}
	start, err := startOption(from, time.Now())
	if err != nil {
		return nil, err
	}
	if s.durable == "" {
		return []client.SubOption{client.Ordered(), start}, nil
	}
	opts := []client.SubOption{client.Durable(s.durable), start}
	if s.count > 0 {
		opts = append(opts, client.SubMaxInFlight(min(s.count, client.DefaultSubMaxInFlight)))
	}
	return opts, nil
}

func startOption(from string, now time.Time) (client.SubOption, error) {
	switch number, isSeq := strings.CutPrefix(from, "seq:"); {
	case from == "start":
		return client.FromStart(), nil
	case from == "new":
		return client.FromNew(), nil
	case isSeq:
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || n == 0 {
			return nil, &usageError{msg: fmt.Sprintf("--since %q: want seq:N with N from 1", from)}
		}
		return client.FromSequence(n), nil
	}
	t, err := since("--since", from, now)
	if err != nil {
		return nil, &usageError{msg: fmt.Sprintf("--since %q: want start, new, a span such as 5m, an RFC 3339 time or seq:N", from)}
	}
	return client.FromTime(t), nil
}

// handle prints one event. It runs on one goroutine.
func (s *subVerb) handle(_ context.Context, d *client.Delivery) error {
	if s.count > 0 && s.seen >= s.count {
		return d.Nak(0)
	}
	if err := s.print(d); err != nil {
		if s.wrote == nil {
			s.wrote = err
			close(s.done)
			s.count, s.seen = 1, 1 // takes no more
		}
		return err
	}
	if s.seen++; s.seen == s.count {
		close(s.done)
	}
	return nil
}

func (s *subVerb) print(d *client.Delivery) error {
	var line []byte
	if s.jsonOut() || s.file != nil {
		var err error
		if line, err = evidence(d); err != nil {
			return err
		}
	}
	if s.file != nil {
		if _, err := s.file.Write(line); err != nil {
			return err
		}
	}
	var err error
	switch {
	case s.jsonOut() && d.KeyID != "":
		if line, err = decrypted(d); err == nil {
			_, err = s.stdout.Write(line)
		}
	case s.jsonOut():
		_, err = s.stdout.Write(line)
	case s.rawData && d.Ciphertext:
		s.invalid.Add(1)
		fmt.Fprintf(s.stderr, "signet: ENCRYPTED, not printed: %s %s seq %d: --decrypt SEED reads it\n", clean(d.NATSSubject), clean(d.Stream), d.Sequence)
	case s.rawData:
		_, err = s.stdout.Write(append(d.Event.Data[:len(d.Event.Data):len(d.Event.Data)], '\n'))
	default:
		at := d.Stored
		if at.IsZero() {
			at = d.Attestation.RecordedTime
		}
		_, err = fmt.Fprintf(s.stdout, "%s  %s  %s  %s  %s\n", at.Local().Format("15:04:05.000"),
			clean(d.NATSSubject), clean(d.Principal), clean(d.Event.ID), s.body(d))
	}
	return err
}

// body is the payload of an event in one line.
func (s *subVerb) body(d *client.Delivery) string {
	switch {
	case d.Ciphertext:
		return fmt.Sprintf("(encrypted, %d bytes; --decrypt SEED reads it)", len(d.Event.Data))
	case len(s.decrypt) > 0 && d.KeyID == "":
		return "(came in the clear) " + payload(d.Event.Data)
	}
	return payload(d.Event.Data)
}

// decrypted is the event in the clear, structured, and a line end.
func decrypted(d *client.Delivery) ([]byte, error) {
	ev := d.Event.Clone()
	if ev.Extensions == nil {
		ev.Extensions = map[string]string{}
	}
	ev.Extensions[wire.AttrNATSSubject] = d.NATSSubject
	line, err := ev.MarshalJSON()
	return append(line, '\n'), err
}

// evidence is the structured event with everything that was signed, and a line end.
func evidence(d *client.Delivery) ([]byte, error) {
	ev := d.Attested()
	if ev.Extensions == nil {
		ev.Extensions = map[string]string{}
	}
	// Signed, but not on the wire: it is the subject that the event came on.
	ev.Extensions[wire.AttrNATSSubject] = d.NATSSubject
	line, err := ev.MarshalJSON()
	return append(line, '\n'), err
}

func (s *subVerb) refused(ev client.InvalidEvent) {
	if !ev.Retried {
		s.invalid.Add(1)
	}
	verdict := "NOT VERIFIED"
	if errors.Is(ev.Err, client.ErrDecryption) {
		verdict = "NOT DECRYPTED"
	}
	fmt.Fprintf(s.stderr, "signet: "+verdict+": %s %s seq %d: %s\n", clean(ev.NATSSubject), clean(ev.Stream), ev.Sequence, clean(ev.Err.Error()))
}

func (s *subVerb) warn(err error) { s.note("warning: %s", clean(plain(err.Error()))) }

func (s *subVerb) state(connected bool, err error) {
	switch {
	case s.leaving.Load():
	case connected:
		s.note("connected again")
	case err != nil:
		s.note("connection lost, trying again: %s", clean(plain(err.Error())))
	default:
		s.note("connection lost, trying again")
	}
}

// hintSubscribe names the filter, which the requests of the SDK do not show, and
// words what a subscription to an ephemeral subject runs into.
func hintSubscribe(err error, filter string) error {
	var e *client.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Code == 0 && errors.Is(err, client.ErrNotFound):
		e.Fix = "if the policy declares the subject as ephemeral, read it with --live"
	case strings.HasPrefix(e.Subject, wire.PrefixJSAPI):
		e.Detail = strings.TrimSuffix(filter+": "+e.Detail, ": ")
	}
	return err
}
