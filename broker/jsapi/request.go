package jsapi

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// The structs below mirror the request types of nats-server v2.15.2
// (server/jetstream_api.go, server/consumer.go) member by member. A member that
// is missing here is refused, which is what we want from a server update: somebody
// looks at what the new member can reach before it passes.

type consumerCreate struct {
	Stream   string         `json:"stream_name"`
	Config   consumerConfig `json:"config"`
	Action   string         `json:"action"`
	Pedantic bool           `json:"pedantic,omitempty"`
}

// consumerConfig is one flat object on the wire; the parts are ours.
type consumerConfig struct {
	consumerName
	consumerStart
	consumerLimits
	consumerPull
	consumerPush

	Replicas      int               `json:"num_replicas"`
	MemoryStorage bool              `json:"mem_storage,omitempty"`
	Direct        bool              `json:"direct,omitempty"`   // decoded to be refused: hides the consumer
	Sourcing      bool              `json:"sourcing,omitempty"` // decoded to be refused: the server renames the consumer
	Metadata      map[string]string `json:"metadata,omitempty"`
	PauseUntil    *time.Time        `json:"pause_until,omitempty"`
}

type consumerName struct {
	Durable        string   `json:"durable_name,omitempty"`
	Name           string   `json:"name,omitempty"`
	Description    string   `json:"description,omitempty"`
	FilterSubject  string   `json:"filter_subject,omitempty"`
	FilterSubjects []string `json:"filter_subjects,omitempty"`
}

type consumerStart struct {
	DeliverPolicy string     `json:"deliver_policy,omitempty"`
	OptStartSeq   uint64     `json:"opt_start_seq,omitempty"`
	OptStartTime  *time.Time `json:"opt_start_time,omitempty"`
	ReplayPolicy  string     `json:"replay_policy,omitempty"`
	HeadersOnly   bool       `json:"headers_only,omitempty"`
}

// All durations are nanoseconds.
type consumerLimits struct {
	AckPolicy         string  `json:"ack_policy,omitempty"`
	AckWait           int64   `json:"ack_wait,omitempty"`
	MaxDeliver        int     `json:"max_deliver,omitempty"`
	BackOff           []int64 `json:"backoff,omitempty"`
	MaxAckPending     int     `json:"max_ack_pending,omitempty"`
	SampleFrequency   string  `json:"sample_freq,omitempty"`
	InactiveThreshold int64   `json:"inactive_threshold,omitempty"`
}

type consumerPull struct {
	MaxWaiting         int      `json:"max_waiting,omitempty"`
	MaxRequestBatch    int      `json:"max_batch,omitempty"`
	MaxRequestExpires  int64    `json:"max_expires,omitempty"`
	MaxRequestMaxBytes int      `json:"max_bytes,omitempty"`
	PriorityGroups     []string `json:"priority_groups,omitempty"`
	PriorityPolicy     string   `json:"priority_policy,omitempty"`
	PinnedTTL          int64    `json:"priority_timeout,omitempty"`
}

type consumerPush struct {
	DeliverSubject string `json:"deliver_subject,omitempty"`
	DeliverGroup   string `json:"deliver_group,omitempty"`
	Heartbeat      int64  `json:"idle_heartbeat,omitempty"`
	FlowControl    bool   `json:"flow_control,omitempty"`
	RateLimit      uint64 `json:"rate_limit_bps,omitempty"`
}

type msgGet struct {
	Seq          uint64     `json:"seq,omitempty"`
	LastFor      string     `json:"last_by_subj,omitempty"`
	NextFor      string     `json:"next_by_subj,omitempty"`
	Batch        int        `json:"batch,omitempty"`
	MaxBytes     int        `json:"max_bytes,omitempty"`
	StartTime    *time.Time `json:"start_time,omitempty"`
	MultiLastFor []string   `json:"multi_last,omitempty"`
	UpToSeq      uint64     `json:"up_to_seq,omitempty"`
	UpToTime     *time.Time `json:"up_to_time,omitempty"`
	NoHeaders    bool       `json:"no_hdr,omitempty"`
}

type getNext struct {
	Expires       int64  `json:"expires,omitempty"`
	Batch         int    `json:"batch,omitempty"`
	MaxBytes      int    `json:"max_bytes,omitempty"`
	NoWait        bool   `json:"no_wait,omitempty"`
	Heartbeat     int64  `json:"idle_heartbeat,omitempty"`
	Group         string `json:"group,omitempty"`
	MinPending    int64  `json:"min_pending,omitempty"`
	MinAckPending int64  `json:"min_ack_pending,omitempty"`
	ID            string `json:"id,omitempty"`
	Priority      int    `json:"priority,omitempty"`
}

type streamInfo struct {
	Offset         int    `json:"offset,omitempty"`
	DeletedDetails bool   `json:"deleted_details,omitempty"`
	SubjectsFilter string `json:"subjects_filter,omitempty"`
}

type paged struct {
	Offset  int    `json:"offset,omitempty"`
	Subject string `json:"subject,omitempty"`
}

type purge struct {
	Sequence uint64 `json:"seq,omitempty"`
	Filter   string `json:"filter,omitempty"`
	Keep     uint64 `json:"keep,omitempty"`
}

type msgDelete struct {
	Seq     uint64 `json:"seq"`
	NoErase bool   `json:"no_erase,omitempty"`
}

type unpin struct {
	Group string `json:"group"`
}

type reset struct {
	Seq uint64 `json:"seq,omitempty"`
}

type pause struct {
	PauseUntil *time.Time `json:"pause_until,omitempty"`
}

type nak struct {
	Delay int64 `json:"delay"`
}

// check refuses values that the server would misread or that no client sends. A
// number below the wire's own "no limit" (-1) has only ever found server bugs.
func (c *consumerConfig) check() error {
	for _, e := range []struct {
		member, value string
		allowed       []string
	}{
		{"deliver_policy", c.DeliverPolicy, []string{"", "all", "last", "new", "by_start_sequence", "by_start_time", "last_per_subject"}},
		{"ack_policy", c.AckPolicy, []string{"", "none", "all", "explicit"}},
		{"replay_policy", c.ReplayPolicy, []string{"", "instant", "original"}},
		{"priority_policy", c.PriorityPolicy, []string{"", "none", "overflow", "pinned_client", "prioritized"}},
	} {
		if !slices.Contains(e.allowed, e.value) {
			return fmt.Errorf("%s has an unknown value", e.member)
		}
	}
	for _, n := range []int{c.MaxDeliver, c.MaxWaiting, c.MaxAckPending, c.MaxRequestBatch, c.MaxRequestMaxBytes} {
		if n < -1 {
			return errors.New("a limit is below -1")
		}
	}
	for _, n := range append([]int64{c.AckWait, c.MaxRequestExpires, c.Heartbeat, c.InactiveThreshold, c.PinnedTTL, int64(c.Replicas)}, c.BackOff...) {
		if n < 0 {
			return errors.New("a duration or num_replicas is negative")
		}
	}
	switch {
	case c.Direct || c.Sourcing:
		return errors.New("direct and sourcing are for servers only")
	case c.FilterSubject != "" && len(c.FilterSubjects) > 0:
		return errors.New("filter_subject and filter_subjects exclude each other")
	case slices.Contains(c.FilterSubjects, ""):
		return errors.New("filter_subjects has an empty filter")
	case c.DeliverGroup != "" && !validToken(c.DeliverGroup):
		return errors.New("deliver_group is malformed")
	}
	return nil
}

func (n *getNext) check() error {
	if n.Expires < 0 || n.Batch < 0 || n.MaxBytes < 0 || n.Heartbeat < 0 ||
		n.MinPending < 0 || n.MinAckPending < 0 || n.Priority < 0 {
		return errors.New("a number is negative")
	}
	return nil
}

// check refuses combinations whose meaning depends on the order in which a server
// looks at the members, so that each request reads by exactly one selector.
func (m *msgGet) check() error {
	selectors := 0
	for _, set := range []bool{m.LastFor != "", m.NextFor != "", len(m.MultiLastFor) > 0} {
		if set {
			selectors++
		}
	}
	switch {
	case selectors > 1:
		return errors.New("last_by_subj, next_by_subj and multi_last exclude each other")
	case m.LastFor != "" && (m.Seq > 0 || m.StartTime != nil || m.Batch != 0 || m.UpToSeq > 0 || m.UpToTime != nil):
		return errors.New("last_by_subj stands alone")
	case m.Seq > 0 && m.StartTime != nil, m.UpToSeq > 0 && m.UpToTime != nil:
		return errors.New("a sequence and a time exclude each other")
	case m.Batch < 0 || m.MaxBytes < 0:
		return errors.New("a number is negative")
	case slices.Contains(m.MultiLastFor, ""):
		return errors.New("multi_last has an empty subject")
	case selectors == 0 && m.Seq == 0 && m.StartTime == nil:
		return errors.New("nothing selects a message")
	}
	return nil
}
