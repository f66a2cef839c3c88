package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
)

// maxEventBytes is the largest payload that any broker takes.
const maxEventBytes = 8 << 20

// pubVerb is signet pub.
type pubVerb struct {
	*app
	data, file  string
	dataGiven   bool
	event       client.Event
	contentType string
	headers     []string
	count       int
	ndjson      bool
	live        bool
	rate        float64
	signKey     string
	signedAck   string
	encrypt     bool
	keyPrefix   string
	tenant      string // of --encrypt
	receipts    receiptFile
}

func pubCommand(a *app) *cobra.Command {
	p := &pubVerb{app: a}
	cmd := &cobra.Command{
		Use: "pub SUBJECT [-d DATA | --file FILE | < FILE]", Short: "publish events", Args: exactly("SUBJECT"), DisableFlagsInUseLine: true,
		Long: `Publishes one event, or with --ndjson one event per line of the input, and waits
until it is on stable storage. The broker adds what is missing (id, source, type,
time) and its attestation. What is refused is said with code, rule and fix.

Each line of --ndjson is the data of one event; blank lines are skipped. Events go
out in order with many in flight, so a refused one does not hold the others up.

--sign-key signs the events with an event key of this principal, which the keyring
must have: readers can then check who made them without believing the broker.
--signed-ack keeps the broker's signature on what it has stored. --encrypt encrypts
the data to the recipients that the keyring has for the subject; each run of the
command stores the record of a key of its own.`,
		Example: `  signet pub orders.created -d '{"id":1,"total":9.5}'
  signet pub orders.created --file order.json --type com.example.order --id order-1
  cat orders.ndjson | signet pub orders.created --ndjson --rate 500
  signet pub telemetry.cpu -d '{"load":0.2}' --live
  signet pub orders.paid --file order.json --sign-key checkout-events.seed
  signet pub orders.paid --file order.json --signed-ack receipts.ndjson
  signet pub care.7.temperature -d '{"celsius":39.5}' --encrypt`,
		RunE: a.verb(func(ctx context.Context, args []string) error { return p.run(ctx, args[0]) }),
	}
	f := cmd.Flags()
	f.StringVarP(&p.data, "data", "d", "", "the data")
	f.StringVarP(&p.file, "file", "f", "", "file with the data; - is standard input")
	f.StringVar(&p.event.Type, "type", "", "CloudEvents type, such as com.example.order")
	f.StringVar(&p.event.Source, "source", "", "CloudEvents source (default: /TENANT/PRINCIPAL; others need a grant)")
	f.StringVar(&p.event.ID, "id", "", "CloudEvents id; the same id again is a duplicate (default: a new one each)")
	f.StringArrayVarP(&p.headers, "header", "H", nil, "'ce-NAME: VALUE' sets an attribute, others need a grant of their name")
	f.StringVar(&p.contentType, "content-type", "", "media type of the data (default: application/json if it is JSON)")
	f.IntVar(&p.count, "count", 1, "publish this many times")
	f.BoolVar(&p.ndjson, "ndjson", false, "each line of the input is the data of one event")
	f.Float64Var(&p.rate, "rate", 0, "at most this many events a second (default: no bound)")
	f.StringVar(&p.signKey, "sign-key", "", "file with the seed of an event key (SU... or SA..., mode 0600): sign the events with it")
	f.StringVar(&p.signedAck, "signed-ack", "", "append the signed acknowledgements to this file, one a line, for signet verify --receipt")
	f.BoolVar(&p.encrypt, "encrypt", false, "encrypt the data end to end")
	f.StringVar(&p.tenant, "tenant", "", "with --encrypt: the tenant whose recipients are meant; needed where the keyring has several and there is no --sign-key")
	f.StringVar(&p.keyPrefix, "key-prefix", client.DefaultKeyPrefix, "where the records of --encrypt go: PREFIX.PRINCIPAL.KEY")
	f.BoolVar(&p.live, "live", false, "the subject is ephemeral: attested, not stored, no acknowledgement")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		p.dataGiven = cmd.Flags().Changed("data")
		return withCommand(p.check(), cmd)
	}
	return cmd
}

func (p *pubVerb) check() error {
	switch {
	case p.dataGiven && p.file != "":
		return &usageError{msg: "-d and --file exclude each other"}
	case p.dataGiven && p.ndjson:
		return &usageError{msg: "--ndjson reads lines from --file or standard input, not from -d"}
	case p.count < 1:
		return &usageError{msg: "--count: at least 1"}
	case p.count > 1 && p.ndjson:
		return &usageError{msg: "--count and --ndjson exclude each other"}
	case p.signedAck != "" && p.live:
		return &usageError{msg: "--signed-ack and --live exclude each other: what is not stored has no acknowledgement"}
	case p.rate < 0:
		return &usageError{msg: "--rate: events a second, more than 0"}
	case !p.dataGiven && p.file == "" && terminal(p.stdin):
		return &usageError{msg: "no data: give -d DATA or --file FILE, or pipe it in"}
	}
	return p.setHeaders()
}

// setHeaders takes the ce- headers into the event; the others stay.
func (p *pubVerb) setHeaders() error {
	var rest []string
	for _, h := range p.headers {
		name, value, ok := strings.Cut(h, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || name == "" {
			return &usageError{msg: fmt.Sprintf("-H %q: want 'name: value'", h)}
		}
		attr, isAttr := strings.CutPrefix(name, wire.PrefixAttribute)
		if !isAttr {
			if strings.HasPrefix(strings.ToLower(name), wire.PrefixAttribute) {
				return &usageError{msg: fmt.Sprintf("-H %q: attributes are lower case: %s", h, strings.ToLower(name))}
			}
			rest = append(rest, name, value)
			continue
		}
		if err := setAttribute(&p.event, attr, value); err != nil {
			return &usageError{msg: fmt.Sprintf("-H %q: %v", h, err)}
		}
	}
	p.headers = rest
	return nil
}

func setAttribute(e *client.Event, name, value string) error {
	if value == "" {
		return errors.New("the value is empty")
	}
	core := map[string]*string{
		"id": &e.ID, "source": &e.Source, "type": &e.Type, "subject": &e.Subject,
		"datacontenttype": &e.DataContentType, "dataschema": &e.DataSchema,
	}
	switch field := core[name]; {
	case field != nil:
		*field = value
	case name == "time":
		t, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return errors.New("want a time such as 2026-01-31T15:04:05Z")
		}
		e.Time = t
	case name == "specversion":
		if value != "1.0" {
			return errors.New("only 1.0 is spoken")
		}
	default:
		if e.Extensions == nil {
			e.Extensions = map[string]string{}
		}
		e.Extensions[name] = value
	}
	return nil
}

func (p *pubVerb) run(ctx context.Context, subject string) (err error) {
	in, closeIn, err := p.input()
	if err != nil {
		return err
	}
	defer closeIn()
	var single []byte
	if !p.ndjson {
		if single, err = readBounded(ctx, in); err != nil {
			return err
		}
	}
	live := &liveErrors{got: make(chan error, 64)}
	connect := []client.Option{client.WithErrorHandler(live.add)}
	if p.signKey != "" {
		if _, err := os.Stat(p.signKey); err != nil {
			return &usageError{msg: "--sign-key: " + err.Error()}
		}
		connect = append(connect, client.WithEventKeyFile(p.signKey))
	}
	if !p.encrypt && (p.tenant != "" || p.keyPrefix != client.DefaultKeyPrefix) {
		return &usageError{msg: "--tenant and --key-prefix go with --encrypt"}
	}
	if p.encrypt {
		connect = append(connect, client.WithEncryption(client.Encryption{KeyPrefix: p.keyPrefix, Tenant: p.tenant}))
	}
	c, err := p.connect(ctx, connect...)
	if err != nil {
		return err
	}
	defer c.Close()
	if p.receipts, err = openReceipts(p.signedAck); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.receipts.close()) }()
	var opts []client.PubOpt
	for i := 0; i+1 < len(p.headers); i += 2 {
		opts = append(opts, client.WithHeader(p.headers[i], p.headers[i+1]))
	}
	if p.signedAck != "" {
		opts = append(opts, client.WithSignedAck())
	}
	switch {
	case p.live:
		return p.publishLive(ctx, c, subject, in, single, opts, live)
	case p.ndjson || p.count > 1:
		return p.publishMany(ctx, c, subject, in, single, opts)
	}
	ev := p.make(single)
	call, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	ack, err := c.Publish(call, subject, ev, opts...)
	if err != nil {
		return hintLive(err)
	}
	if err := p.receipts.keep(ack); err != nil {
		return err
	}
	if p.jsonOut() {
		return p.printJSON(ackJSON{subject, ack.Stream, ack.Sequence, ack.EventID, ack.Duplicate})
	}
	word := "stored"
	if ack.Duplicate {
		word = "duplicate, stored before"
	}
	fmt.Fprintf(p.stdout, "%s: %s seq %d  id %s\n", word, ack.Stream, ack.Sequence, clean(ack.EventID))
	return nil
}

type ackJSON struct {
	Subject   string `json:"subject"`
	Stream    string `json:"stream"`
	Seq       uint64 `json:"seq"`
	ID        string `json:"id"`
	Duplicate bool   `json:"duplicate,omitempty"`
}

// hintLive words what a publish on an ephemeral subject runs into, or one on a stream
// without a leader: the answer is the same.
func hintLive(err error) error {
	var e *client.Error
	if errors.As(err, &e) && e.Code == 0 && errors.Is(err, client.ErrUnavailable) && e.Op == "publish" {
		e.Fix = "if the policy declares the subject as ephemeral, publish it with --live; else its stream has no leader now: try again, signet cluster status says more"
	}
	return err
}

// input opens what the events come from.
func (p *pubVerb) input() (io.Reader, func(), error) {
	switch {
	case p.dataGiven:
		return strings.NewReader(p.data), func() {}, nil
	case p.file == "" || p.file == "-":
		return p.stdin, func() {}, nil
	}
	f, err := os.Open(p.file)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { _ = f.Close() }, nil // only read
}

// readBounded reads one payload. Reading a terminal or a pipe cannot be ended, so
// it goes on in the background when ctx ends; the process ends soon after.
func readBounded(ctx context.Context, r io.Reader) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(r, maxEventBytes+1))
		if err == nil && len(data) > maxEventBytes {
			err = &usageError{msg: fmt.Sprintf("the data is larger than %s, the most that any broker takes", size(maxEventBytes)), fix: "--ndjson publishes the lines of a file as events"}
		}
		done <- result{data, err}
	}()
	select {
	case got := <-done:
		return got.data, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// make returns the event for data.
func (p *pubVerb) make(data []byte) *client.Event {
	ev := p.event
	ev.Data = data
	switch {
	case p.contentType != "":
		ev.DataContentType = p.contentType
	case ev.DataContentType == "" && json.Valid(data):
		ev.DataContentType = client.ContentTypeJSON
	}
	return &ev
}

// payloads yields the data of each event with its number, until send fails.
func (p *pubVerb) payloads(ctx context.Context, in io.Reader, single []byte, send func(n int, data []byte) error) error {
	pace := newPace(p.rate)
	defer pace.stop()
	if !p.ndjson {
		for n := 1; n <= p.count; n++ {
			if err := pace.wait(ctx); err != nil {
				return err
			}
			if err := send(n, single); err != nil {
				return err
			}
		}
		return nil
	}
	lines := make(chan []byte, 64)
	failed := make(chan error, 1)
	go func() {
		defer close(lines)
		failed <- eachLine(in, func(line []byte) bool {
			select {
			case lines <- line:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	for n := 1; ; n++ {
		select {
		case line, ok := <-lines:
			if !ok {
				return <-failed
			}
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			if err := pace.wait(ctx); err != nil {
				return err
			}
			if err := send(n, line); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// eachLine calls f with each line, without its end, in memory of its own.
func eachLine(r io.Reader, f func([]byte) bool) error {
	b := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	for n := 1; ; {
		part, err := b.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxEventBytes+2:
			return &usageError{msg: fmt.Sprintf("line %d is larger than %s", n, size(maxEventBytes))}
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return err
		}
		last := err != nil // the end of the input
		if (len(line) > 0 || !last) && !f(bytes.TrimRight(line, "\r\n")) || last {
			return nil //nolint:nilerr // io.EOF is how it ends
		}
		line, n = nil, n+1
	}
}

// pace spaces events out. The zero rate does not.
type pace struct {
	gap   time.Duration
	next  time.Time
	timer *time.Timer
}

func newPace(rate float64) *pace {
	p := &pace{next: time.Now(), timer: time.NewTimer(time.Hour)}
	if rate > 0 {
		p.gap = time.Duration(float64(time.Second) / rate)
	}
	return p
}

func (p *pace) wait(ctx context.Context) error {
	if p.gap == 0 {
		return ctx.Err()
	}
	p.timer.Reset(time.Until(p.next))
	p.next = p.next.Add(p.gap)
	select {
	case <-p.timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pace) stop() { p.timer.Stop() }
