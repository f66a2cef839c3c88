package jsapi

import (
	"errors"

	"github.com/signetbus/signet/internal/wire"
)

func judgeAccountInfo(c *call) Verdict {
	if len(c.Body) > 0 && string(c.Body) != "{}" {
		return c.malformed(errors.New("this request has no body"))
	}
	return c.forward(nil)
}

// judgeStreamNames passes the look-up "which stream holds this subject" that
// client libraries make; without a subject it would list the tenant's streams.
func judgeStreamNames(c *call) Verdict {
	var req paged
	if len(c.Body) > 0 {
		if err := decodeStrict(c.Body, &req); err != nil {
			return c.malformed(err)
		}
	}
	switch {
	case req.Offset < 0:
		return c.malformed(errors.New("offset is negative"))
	case isAdmin(c.Principal, areaStreams):
	case req.Subject == "":
		return c.refuse(wire.CodeAdminDenied, "listing all streams needs an admin grant for streams; ask with a granted subject")
	case !canName(c.Principal, req.Subject):
		return c.refuseFilter(req.Subject, "no publish or subscribe grant covers the subject")
	}
	return c.forward(encode(&req))
}

// judgeStreamInfo drops subjects_filter and deleted_details: both list what is
// stored, beyond the caller's grants.
func judgeStreamInfo(c *call) Verdict {
	if !canSee(c.Principal, &c.stream) && !isAdmin(c.Principal, areaStreams) {
		return c.refuse(wire.CodeAPIDenied, "no grant reaches a subject of this stream")
	}
	if len(c.Body) == 0 {
		return c.forward(nil)
	}
	var req streamInfo
	if err := decodeStrict(c.Body, &req); err != nil {
		return c.malformed(err)
	}
	if req.Offset < 0 {
		return c.malformed(errors.New("offset is negative"))
	}
	return c.forward(encode(&streamInfo{Offset: req.Offset}))
}

// judgePurge passes what KV PurgeDeletes and an object delete need: a filter
// inside a bucket that the principal may write.
func judgePurge(c *call) Verdict {
	var req purge
	if len(c.Body) > 0 {
		if err := decodeStrict(c.Body, &req); err != nil {
			return c.malformed(err)
		}
	}
	admin := isAdmin(c.Principal, areaStreams)
	switch {
	case req.Sequence > 0 && req.Keep > 0:
		return c.malformed(errors.New("seq and keep exclude each other"))
	case admin && brokersOwn(&c.stream):
		return c.refuse(wire.CodeAPIDenied, "dead letters and what is redriven go by signet dlq only")
	case admin && c.stream.kind != streamUnknown && (req.Filter == "" || wire.CheckRawSubject(req.Filter, true) == nil):
	case req.Filter == "":
		return c.refuse(wire.CodeAdminDenied, "a purge without a filter needs an admin grant for streams")
	case !canPurge(c.Principal, &c.stream, req.Filter):
		return c.refuse(wire.CodeFilterDenied, "the filter is not inside a bucket that this principal may write")
	}
	return c.forward(encode(&req))
}

func judgeMsgGet(c *call) Verdict {
	var req msgGet
	if err := decodeStrict(c.Body, &req); err != nil {
		return c.malformed(err)
	}
	// This form looks at seq, last_by_subj, next_by_subj and start_time only and
	// ignores the rest: {"seq":7,"multi_last":["granted"]} would read sequence 7.
	if len(req.MultiLastFor) > 0 || req.Batch != 0 || req.MaxBytes != 0 || req.UpToSeq != 0 || req.UpToTime != nil {
		return c.malformed(errors.New("batch, max_bytes, multi_last and up_to belong to DIRECT.GET"))
	}
	return c.get(&req)
}

// judgeDirectGet takes both forms: selectors in the body, or the last message of
// the subject that follows the stream name.
func judgeDirectGet(c *call) Verdict {
	var req msgGet
	if c.args == "" {
		if err := decodeStrict(c.Body, &req); err != nil {
			return c.malformed(err)
		}
		return c.get(&req)
	}
	if !canReadFilter(c.Principal, &c.stream, c.args) {
		return c.refuseFilter(c.args, "no subscribe grant or readable bucket covers the subject")
	}
	using(c.Principal, &c.stream, c.args)
	if len(c.Body) == 0 {
		return c.forward(nil)
	}
	if err := decodeStrict(c.Body, &req); err != nil {
		return c.malformed(err)
	}
	if req.MaxBytes < 0 {
		return c.malformed(errors.New("max_bytes is negative"))
	}
	// Every selector besides the subject is an error to the server.
	return c.forward(encode(&msgGet{MaxBytes: req.MaxBytes, NoHeaders: req.NoHeaders}))
}

// get checks the one selector of a request; sequences and times without a
// subject reach any message of the stream.
func (c *call) get(req *msgGet) Verdict {
	if err := req.check(); err != nil {
		return c.malformed(err)
	}
	var filters []string
	switch {
	case req.LastFor != "":
		filters = []string{req.LastFor}
	case req.NextFor != "":
		filters = []string{req.NextFor}
	default:
		filters = req.MultiLastFor
	}
	if len(filters) == 0 && !canReadAll(c.Principal, &c.stream) {
		return c.refuseFilter("", "reading by sequence or time needs grants for every subject of the stream")
	}
	for _, f := range filters {
		if !canReadFilter(c.Principal, &c.stream, f) {
			return c.refuseFilter(f, "no subscribe grant or readable bucket covers a subject of the request")
		}
	}
	using(c.Principal, &c.stream, filters...)
	return c.forward(encode(req))
}
