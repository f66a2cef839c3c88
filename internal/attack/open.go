package attack

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Open makes a rig against the nodes of urls (tls://host:port, several with commas), of
// which the first that answers is attacked, with the principals of the stage. It finds out
// that they can do what they may. The rig is the caller's to close.
func (s *Stage) Open(ctx context.Context, urls string, conf *tls.Config) (*Rig, error) {
	r := &Rig{tls: conf, creds: s.creds}
	var err error
	if r.addrs, err = addresses(urls); err != nil {
		return nil, err
	}
	return r, r.ready(ctx)
}

func addresses(urls string) ([]string, error) {
	var out []string
	for text := range strings.SplitSeq(urls, ",") {
		text = strings.TrimSpace(text)
		if !strings.Contains(text, "://") {
			text = "tls://" + text
		}
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		host := u.Host
		if u.Port() == "" {
			host += ":4222"
		}
		out = append(out, host)
	}
	return out, nil
}

// plainStreams is what a rig on plain nats-server attacks.
var plainStreams = []map[string]any{
	{"name": stream, "subjects": []string{"attack.>"}, "allow_rollup_hdrs": true, "allow_msg_ttl": true, "allow_msg_schedules": true},
	{"name": "KV_" + bucket, "subjects": []string{"$KV." + bucket + ".>"}, "allow_rollup_hdrs": true},
	{"name": "KV_" + openBucket, "subjects": []string{"$KV." + openBucket + ".>"}, "allow_rollup_hdrs": true},
	{"name": "DLQ", "subjects": []string{"$SIGNET.DLQ.>"}},
}

// noStream is the server's err_code for a stream that is not there.
const noStream = 10059

// OpenPlain makes a rig against plain nats-server with JetStream and without any access
// control: nothing there stops an attack, so those that can exist there succeed. It makes
// the streams that are attacked, in memory, and deletes them with Close. What plain
// nats-server does not have (the admin API, readers of advisories) is played by a
// subscriber that says yes to everything. Without conf the connections are in the clear.
//
// It must not be used against a server with streams of anybody else's.
func OpenPlain(ctx context.Context, urls string, conf *tls.Config) (*Rig, error) {
	r := &Rig{tls: conf, plain: true}
	var err error
	if r.addrs, err = addresses(urls); err != nil {
		return nil, err
	}
	if err := r.sniff(ctx); err != nil {
		return nil, err
	}
	c, err := r.as(ctx, victim)
	if err != nil {
		return nil, err
	}
	var made []string
	r.close = func() {
		for _, name := range made {
			_, _ = c.request(context.WithoutCancel(ctx), api+"STREAM.DELETE."+name, nil, "") // the server may be gone
		}
		_ = c.Close()
	}
	for _, config := range plainStreams {
		own := map[string]any{"storage": "memory", "allow_direct": true, "max_bytes": 16 << 20, "retention": "limits", "discard": "new"}
		for k, v := range config {
			own[k] = v
		}
		if own["allow_msg_schedules"] == true {
			delete(own, "discard")
		}
		name, _ := own["name"].(string)
		if a, err := c.request(ctx, api+"STREAM.INFO."+name, nil, ""); err != nil || a.api != noStream {
			return r, errors.Join(fmt.Errorf("attack: there is a stream %s, or no JetStream: this is for a server that has nothing of anybody's", name), err)
		}
		body, err := json.Marshal(own)
		if err != nil {
			return r, err
		}
		a, err := c.request(ctx, api+"STREAM.CREATE."+name, nil, string(body))
		if err != nil {
			return r, err
		}
		if a.api != 0 || a.noticed {
			return r, fmt.Errorf("attack: stream %s: %d %s%s", name, a.api, a.reason, short(a.header))
		}
		made = append(made, name)
	}
	if a, err := c.request(ctx, "$SIGNET.DLQ.schema.victim", nil, "a dead letter"); err != nil || !a.acked() {
		return r, fmt.Errorf("attack: no dead letter: %w", err)
	}
	if err := r.yes(ctx); err != nil {
		return r, err
	}
	return r, r.ready(ctx)
}

// yes plays what answers administrators and takes advisories: it says yes to everything,
// until the rig is closed.
func (r *Rig) yes(ctx context.Context) error {
	c, err := r.as(ctx, victim)
	if err != nil {
		return err
	}
	for _, s := range []string{"$SIGNET.API.>", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"} {
		if _, err := c.subscribe(s); err != nil {
			return err
		}
	}
	if _, err := c.sync(ctx); err != nil {
		return err
	}
	_ = c.SetDeadline(time.Time{}) // none
	done := make(chan struct{})
	go func() { // ends with the connection, which close ends
		defer close(done)
		for {
			f, err := c.read()
			if err != nil {
				return
			}
			if f.verb == "PING" {
				_ = c.send("PONG\r\n") // the next read says
			}
			if f.verb == "MSG" && f.reply != "" {
				_ = c.send(pub(f.reply, "", nil, `{"yes":true}`)) // as above
			}
		}
	}()
	before := r.close
	r.close = func() {
		_ = c.Close()
		<-done
		before()
	}
	return nil
}
