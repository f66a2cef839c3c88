package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

// bucket is one key-value bucket of the policy, as far as the SDK's own helpers need it:
// reads that see every earlier write, and writes that expect a revision. It is stateless.
type bucket struct {
	js   jsAPI
	name string
	// deadline bounds a call whose context has no deadline.
	deadline func(context.Context) (context.Context, context.CancelFunc)
}

func newBucket(c *Client, name string) (bucket, error) {
	if err := checkConsumerName(name); err != nil { // the grammar of buckets too
		return bucket{}, fmt.Errorf("bucket: %w", err)
	}
	return bucket{js: c.js(), name: name, deadline: c.cfg.deadline}, nil
}

func (b bucket) subject(key string) string { return wire.PrefixKV + b.name + "." + key }

const (
	kvOperation    = "KV-Operation"
	headerExpected = "Nats-Expected-Last-Subject-Sequence"
)

// value is what a bucket holds for a key.
type value struct {
	data     []byte    // nil: none, or deleted
	revision uint64    // 0: there never was one, or its time is over
	stored   time.Time // by the clock of the server
}

// get returns the value of key.
//
// Errors: ErrDenied without the grant to read, ErrNotFound if there is no such bucket,
// ErrUnavailable.
func (b bucket) get(ctx context.Context, key string) (value, error) {
	ctx, cancel := b.deadline(ctx)
	defer cancel()
	var answer struct {
		apiAnswer
		Message struct {
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	// Not a direct get: any replica answers that, and one that lags shows a lease that is gone.
	request := struct {
		Last string `json:"last_by_subj"`
	}{b.subject(key)}
	err := b.js.request(ctx, "bucket", "STREAM.MSG.GET.KV_"+b.name, request, &answer)
	var e *Error
	switch {
	case errors.As(err, &e) && e.Code == jsNoMessage:
		return value{}, nil
	case err != nil:
		return value{}, err
	}
	m := &answer.Message
	if len(m.Header) > 0 && gone(m.Header) {
		m.Data = nil
	}
	return value{m.Data, m.Sequence, m.Time}, nil
}

// gone says whether a header block marks a value that was deleted.
func gone(block []byte) bool {
	h, err := nats.DecodeHeadersMsg(block)
	return err == nil && (h.Get(kvOperation) != "" || h.Get("Nats-Marker-Reason") != "")
}

// put writes value if the revision of key is still the one given, 0 for none, and
// returns the new one.
//
// Errors: ErrConflict if it is not, or may not be: a write that was sent again after a
// lost connection finds itself. Others as get, and ErrTooLarge.
func (b bucket) put(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return b.write(ctx, key, value, nats.Header{headerExpected: {strconv.FormatUint(revision, 10)}})
}

// drop deletes key if its revision is still the one given.
func (b bucket) drop(ctx context.Context, key string, revision uint64) error {
	_, err := b.write(ctx, key, nil, nats.Header{
		headerExpected: {strconv.FormatUint(revision, 10)}, kvOperation: {"DEL"},
	})
	return err
}

func (b bucket) write(ctx context.Context, key string, value []byte, h nats.Header) (uint64, error) {
	ctx, cancel := b.deadline(ctx)
	defer cancel()
	subject := b.subject(key)
	answer, err := b.js.mux.request(ctx, &nats.Msg{Subject: subject, Header: h, Data: value})
	if err != nil {
		return 0, fromTransport("bucket", subject, err)
	}
	var a pubAnswer
	if err := json.Unmarshal(answer.Data, &a); err != nil || a.Error == nil && a.Sequence == 0 {
		return 0, &Error{Op: "bucket", Class: string(wire.ClassInternal), Title: "the answer cannot be read", Subject: subject, Err: err}
	}
	if a.Error != nil {
		return 0, atSubject(fromAPI("bucket", *a.Error, a.Problem), subject)
	}
	return a.Sequence, nil
}

// look returns how long values live, 0 for ever, and the clock of the server.
//
// Errors: ErrDenied if there is no such bucket, or it is not granted; ErrUnavailable.
func (b bucket) look(ctx context.Context) (ttl time.Duration, now time.Time, err error) {
	ctx, cancel := b.deadline(ctx)
	defer cancel()
	var answer struct {
		apiAnswer
		Config struct {
			MaxAge time.Duration `json:"max_age"`
		} `json:"config"`
		Now time.Time `json:"ts"`
	}
	err = b.js.request(ctx, "bucket", "STREAM.INFO.KV_"+b.name, struct{}{}, &answer)
	return answer.Config.MaxAge, answer.Now, err
}
