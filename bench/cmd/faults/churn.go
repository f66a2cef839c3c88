package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/bench"
)

// The churn: values that are overwritten all the time, so that nats-server deletes
// inside its blocks and compacts them, and values that age out.
const (
	churnKeys    = 256
	churnWriters = 4
	agedTTL      = 5 * time.Second // as in the policy
)

var churnPad = string(bytes.Repeat([]byte("churn"), 400))

// churn is what was put into the buckets. Safe for concurrent use.
type churn struct {
	mu      sync.Mutex
	buckets map[string][]value
	puts    int
	fault   error // a refusal

	checked, gone int // of check, which runs alone
}

// value is one key. Only one writer has it at a time.
type value struct {
	sent, acked int       // numbers
	at          time.Time // when the acknowledged one was sent
}

func newChurn() *churn {
	return &churn{buckets: map[string][]value{"churn": make([]value, churnKeys), "aged": make([]value, churnKeys)}}
}

func (c *churn) written() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.puts
}

func encodeValue(bucket string, key, number int) []byte {
	return []byte(bucket + " " + strconv.Itoa(key) + " " + strconv.Itoa(number) + " " + churnPad)
}

// run writes until the connection ends, with the broker or by the function that it
// returns, which waits and may be called again.
func (c *churn) run(a bench.Address) (stop func(), err error) {
	nc, err := a.Connect("publisher", nats.NoReconnect())
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	for bucket := range c.buckets {
		for w := range churnWriters {
			wg.Go(func() {
				for {
					// Some keys are rewritten all the time, others hardly ever: what is left
					// of an old block is then compacted.
					r := rand.Float64()
					key := w + churnWriters*int(r*r*r*(churnKeys/churnWriters))
					if err := c.put(nc, bucket, key); err != nil {
						c.ended(err)
						return
					}
				}
			})
		}
	}
	return func() { nc.Close(); wg.Wait() }, nil
}

// ended keeps a refusal. That the broker went away is no fault; what had no answer
// is unknown then.
func (c *churn) ended(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, errBroken) && c.fault == nil {
		c.fault = err
	}
}

func (c *churn) put(nc *nats.Conn, bucket string, key int) error {
	c.mu.Lock()
	v := &c.buckets[bucket][key]
	v.sent++
	number, at := v.sent, time.Now()
	c.mu.Unlock()
	m, err := nc.Request("$KV."+bucket+".k"+strconv.Itoa(key), encodeValue(bucket, key, number), bootWait)
	if err != nil {
		return err
	}
	var answer struct {
		Sequence uint64          `json:"seq"`
		Error    json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Sequence == 0 {
		return fmt.Errorf("put: %q: %w", m.Data, errors.Join(err, errBroken))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v.acked, v.at = number, at
	c.puts++
	return nil
}

// check reads every key and compares it with what was written: the acknowledged
// value or one sent after it, byte for byte, and nothing only where it has aged
// out. Nobody writes meanwhile.
func (c *churn) check(ctx context.Context, a bench.Address) (int, error) {
	if c.fault != nil {
		return 0, c.fault
	}
	nc, err := a.Connect("publisher")
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, err
	}
	checked := 0
	for bucket, values := range c.buckets {
		kv, err := js.KeyValue(ctx, bucket)
		if err != nil {
			return 0, err
		}
		for key := range values {
			there, err := checkValue(ctx, kv, bucket, key, values[key])
			if err != nil {
				return 0, err
			}
			if there {
				checked++
			} else if values[key].acked > 0 {
				c.gone++
			}
		}
	}
	c.checked += checked
	return checked, nil
}

func checkValue(ctx context.Context, kv jetstream.KeyValue, bucket string, key int, v value) (there bool, err error) {
	e, err := kv.Get(ctx, "k"+strconv.Itoa(key))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		if v.acked > 0 && (bucket != "aged" || time.Since(v.at) < agedTTL) {
			return false, fmt.Errorf("%w: bucket %s lost key %d, number %d", errBroken, bucket, key, v.acked)
		}
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("bucket %s, key %d: %w", bucket, key, err)
	}
	for number := v.acked; number <= v.sent; number++ {
		if number > 0 && bytes.Equal(e.Value(), encodeValue(bucket, key, number)) {
			return true, nil
		}
	}
	return false, fmt.Errorf("%w: bucket %s, key %d: the value %.40q is not number %d to %d", errBroken, bucket, key, e.Value(), v.acked, v.sent)
}
