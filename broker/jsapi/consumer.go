package jsapi

import (
	"errors"
	"fmt"
	"strings"

	"github.com/signetbus/signet/internal/wire"
)

const (
	actionAny    = ""
	actionCreate = "create"
	actionUpdate = "update"
)

// judgeConsumerCreate takes `CREATE.<stream>`, `CREATE.<stream>.<name>` and
// `CREATE.<stream>.<name>.<filter>`.
func judgeConsumerCreate(c *call) Verdict {
	c.effect = EffectCreated
	name, filter, _ := strings.Cut(c.args, ".")
	if name != "" && !validToken(name) {
		return c.refuse(wire.CodeSubjectMalformed, "the consumer name is malformed")
	}
	c.name = name
	var req consumerCreate
	if err := decodeStrict(c.Body, &req); err != nil {
		return c.malformed(err)
	}
	cfg := &req.Config
	switch {
	case name == "" && cfg.Durable != "":
		return c.malformed(errors.New("durable_name without a name in the subject"))
	case name == "":
		if c.name = cfg.Name; cfg.Name != "" && !validToken(cfg.Name) {
			return c.malformed(errors.New("name is malformed"))
		}
	case cfg.Name != "" && cfg.Name != name || cfg.Durable != "" && cfg.Durable != name:
		return c.malformed(errors.New("name or durable_name is not the name in the subject"))
	case filter != "" && (cfg.FilterSubject != filter || len(cfg.FilterSubjects) > 0):
		return c.malformed(errors.New("filter_subject is not the filter in the subject"))
	}
	return c.create(&req)
}

// judgeDurableCreate takes `DURABLE.CREATE.<stream>.<name>`.
func judgeDurableCreate(c *call) Verdict {
	c.effect = EffectCreated
	var req consumerCreate
	if err := decodeStrict(c.Body, &req); err != nil {
		return c.malformed(err)
	}
	if req.Config.Durable != c.name || req.Config.Name != "" && req.Config.Name != c.name {
		return c.malformed(errors.New("durable_name is not the name in the subject"))
	}
	return c.create(&req)
}

// create checks everything that the two forms have in common. Reading rights come
// before ownership, so that a refused filter never costs a look-up.
// maxMetadata bounds the metadata of one consumer in bytes: the server keeps it in
// memory and repeats it in every listing.
const maxMetadata = 4 << 10

func (c *call) create(req *consumerCreate) Verdict {
	cfg := &req.Config
	if req.Stream != c.stream.name {
		return c.malformed(errors.New("stream_name is not the stream in the subject"))
	}
	if err := cfg.check(); err != nil {
		return c.malformed(err)
	}
	if v, ok := c.checkFilters(cfg); !ok {
		return v
	}
	if cfg.DeliverSubject != "" {
		inbox, ok := c.inbox(cfg.DeliverSubject)
		if !ok {
			return c.refuse(wire.CodeReplyDenied, "deliver_subject is not a literal inbox of this connection")
		}
		cfg.DeliverSubject = inbox
	}
	owner, v, ok := c.createOwner(req)
	if !ok {
		return v
	}
	c.countHere(cfg)
	size := 0
	for k, v := range cfg.Metadata {
		size += len(k) + len(v)
	}
	if size > maxMetadata {
		return c.refuse(wire.CodeRequestMalformed, fmt.Sprintf("metadata is over %d bytes", maxMetadata))
	}
	if set := cfg.Metadata[wire.MetaOwner]; set != "" && set != owner {
		return c.refuse(wire.CodeConsumerNotOwned, "metadata names another owner")
	}
	if cfg.Metadata == nil {
		cfg.Metadata = map[string]string{}
	}
	cfg.Metadata[wire.MetaOwner] = owner
	return c.forward(encode(req))
}

func (c *call) checkFilters(cfg *consumerConfig) (Verdict, bool) {
	filters := cfg.FilterSubjects
	if cfg.FilterSubject != "" {
		filters = []string{cfg.FilterSubject}
	}
	if len(filters) == 0 && !canReadAll(c.Principal, &c.stream) {
		return c.refuseFilter("", "a consumer without a filter needs grants for every subject of the stream"), false
	}
	for _, f := range filters {
		if !canReadFilter(c.Principal, &c.stream, f) {
			return c.refuseFilter(f, "no subscribe grant or readable bucket covers a filter of the consumer"), false
		}
	}
	using(c.Principal, &c.stream, filters...)
	return Verdict{}, true
}

// createOwner settles who will own the consumer and fixes the action so that the
// server itself loses every race for us:
//
//	no such consumer     create, so that one made meanwhile by somebody else stays as it is
//	own consumer         as the client asks
//	shared consumer      create with the present owner: the server accepts it only if nothing
//	                     differs (libraries "create or update" what they merely want to use).
//	                     Never one that pushes: made again, it would send to the caller for
//	                     as long as its owner may read
//	another's consumer   refused
func (c *call) createOwner(req *consumerCreate) (owner string, v Verdict, ok bool) {
	self := c.Principal.FullName()
	switch req.Action {
	case actionAny, actionCreate, actionUpdate:
	default:
		return "", c.malformed(errors.New("action has an unknown value")), false
	}
	if c.name == "" { // the server will draw a random name
		req.Action = actionCreate
		return self, v, true
	}
	owner, found, known := c.owner(c.stream.name, c.name)
	switch {
	case !known:
		return "", c.needOwner(), false
	case !found && req.Action == actionUpdate:
		return "", c.refuse(wire.CodeNotFound, "no such consumer to update"), false
	case !found:
		req.Action = actionCreate
		return self, v, true
	case owner == self:
		return self, v, true
	case sharable(owner) && req.Action != actionUpdate && c.within(owner, &req.Config) && shared(c.Principal, c.stream.name, c.name):
		if req.Config.DeliverSubject != "" {
			return "", c.refuse(wire.CodeConsumerNotOwned, "a shared consumer is pulled from: ask without deliver_subject"), false
		}
		req.Action = actionCreate
		return owner, v, true
	}
	return "", c.refuse(wire.CodeConsumerNotOwned, "a consumer of this name belongs to another principal"), false
}

// within reports whether owner may read what a consumer of this configuration reads. The
// shared consumer may be gone by now, and then the request makes it again in its owner's
// name: with the filters of the caller it would read for the owner what only the caller may.
func (c *call) within(owner string, cfg *consumerConfig) bool {
	tenant, name, _ := strings.Cut(owner, "/")
	p := c.Principal.Tenant.Principal(name)
	if tenant != c.Principal.Tenant.Name || p == nil || p.Disabled {
		return false
	}
	filters := cfg.FilterSubjects
	if cfg.FilterSubject != "" {
		filters = []string{cfg.FilterSubject}
	}
	return ReadsWithin(p, c.stream.name, filters)
}

func judgeNext(c *call) Verdict {
	body, ok := nextBody(c.Body)
	if !ok {
		return c.refuse(wire.CodeRequestMalformed, "the body is not a batch size or a pull request")
	}
	if c.Reply == "" {
		return c.refuse(wire.CodeReplyDenied, "a pull request needs a reply subject")
	}
	if v, ok := c.owned(true, ""); !ok {
		return v
	}
	if !c.stillReads() {
		return c.refuseFilter("", stillReadsNothing)
	}
	return c.forward(body)
}

// judgeConsumerInfo lets the server answer for a consumer that does not exist:
// client libraries look for its error code to decide whether to create one.
func judgeConsumerInfo(c *call) Verdict {
	if len(c.Body) > 0 && string(c.Body) != "{}" {
		return c.malformed(errors.New("this request has no body"))
	}
	v, ok := c.owned(true, areaConsumers)
	if !ok && (v.Action == NeedOwner || v.Refusal.Code != wire.CodeNotFound || !canSee(c.Principal, &c.stream) && !retryReads(c)) {
		return v
	}
	return c.forward(nil)
}

func judgeConsumerDelete(c *call) Verdict {
	c.effect = EffectDeleted
	if len(c.Body) > 0 && string(c.Body) != "{}" {
		return c.malformed(errors.New("this request has no body"))
	}
	if v, ok := c.owned(false, areaConsumers); !ok {
		return v
	}
	return c.forward(nil)
}

func judgeUnpin(c *call) Verdict {
	var req unpin
	if err := decodeStrict(c.Body, &req); err != nil {
		return c.malformed(err)
	}
	if v, ok := c.owned(false, areaConsumers); !ok {
		return v
	}
	return c.forward(encode(&req))
}

// judgeReset is refused on a shared consumer without ownership: it replays for
// everybody.
func judgeReset(c *call) Verdict {
	var req reset
	if len(c.Body) > 0 {
		if err := decodeStrict(c.Body, &req); err != nil {
			return c.malformed(err)
		}
	}
	if v, ok := c.owned(false, areaConsumers); !ok {
		return v
	}
	return c.forward(encode(&req))
}
