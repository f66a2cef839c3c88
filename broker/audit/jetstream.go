package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/internal/wire"
)

const (
	// askFor bounds a request whose context has no deadline.
	askFor = 5 * time.Second
	// wrongLast and wrongLastConstant are what nats-server answers where the last
	// sequence is not the expected one.
	wrongLast         jetstream.ErrorCode = 10071
	wrongLastConstant jetstream.ErrorCode = 10164
	// storeFailed, with the reason in its text, and noSpaceAccount are what it answers
	// where the stream or its account is full.
	storeFailed    jetstream.ErrorCode = 10077
	noSpaceAccount jetstream.ErrorCode = 10002
)

// jetStream is a Stream over a connection to the account that has it.
type jetStream struct {
	conn    func() (*nats.Conn, error)
	name    string
	durable func(context.Context) error
}

// NewStream returns the stream of that name as a Stream. conn returns a connection to
// its account that may do everything there; durable waits until what was acknowledged
// is on stable storage.
func NewStream(conn func() (*nats.Conn, error), name string, durable func(context.Context) error) Stream {
	return &jetStream{conn: conn, name: name, durable: durable}
}

// Publish implements Stream.
func (s *jetStream) Publish(ctx context.Context, subject string, expect uint64, data []byte) (uint64, error) {
	m := nats.NewMsg(subject)
	m.Data = data
	m.Header.Set("Nats-Expected-Stream", s.name)
	m.Header.Set("Nats-Expected-Last-Subject-Sequence", strconv.FormatUint(expect, 10))
	var ack struct {
		Seq uint64 `json:"seq"`
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if err := s.ask(ctx, m, &ack); err != nil {
		var api *jetstream.APIError
		if errors.As(err, &api) && (api.ErrorCode == wrongLast || api.ErrorCode == wrongLastConstant) {
			return 0, fmt.Errorf("%w: %w", ErrMoved, err)
		}
		if api != nil && (api.ErrorCode == noSpaceAccount || api.ErrorCode == storeFailed && strings.Contains(api.Description, "maximum bytes")) {
			return 0, fmt.Errorf("%w: %w", ErrNoRoom, err)
		}
		return 0, err
	}
	return ack.Seq, s.durable(ctx)
}

// Durable implements Stream.
func (s *jetStream) Durable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	return s.durable(ctx)
}

// getRequest is the body of STREAM.MSG.GET.
type getRequest struct {
	Seq  uint64 `json:"seq,omitempty"`
	Next string `json:"next_by_subj,omitempty"`
	Last string `json:"last_by_subj,omitempty"`
}

// Next implements Stream.
func (s *jetStream) Next(ctx context.Context, filter string, seq uint64) (*Message, error) {
	return s.get(ctx, getRequest{Seq: max(seq, 1), Next: filter})
}

// Last implements Stream.
func (s *jetStream) Last(ctx context.Context, subject string) (*Message, error) {
	return s.get(ctx, getRequest{Last: subject})
}

func (s *jetStream) get(ctx context.Context, req getRequest) (*Message, error) {
	var answer struct {
		Message struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	err := s.api(ctx, "STREAM.MSG.GET."+s.name, req, &answer)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := &answer.Message
	return &Message{Seq: m.Seq, Time: m.Time, Subject: m.Subject, Data: m.Data}, nil
}

// Subjects implements Stream.
func (s *jetStream) Subjects(ctx context.Context, filter string) ([]string, error) {
	var out []string
	for {
		var info struct {
			Total int `json:"total"`
			State struct {
				Subjects map[string]uint64 `json:"subjects"`
			} `json:"state"`
		}
		if err := s.api(ctx, "STREAM.INFO."+s.name, map[string]any{"subjects_filter": filter, "offset": len(out)}, &info); err != nil {
			return nil, err
		}
		for subject := range info.State.Subjects {
			out = append(out, subject)
		}
		if len(info.State.Subjects) == 0 || len(out) >= info.Total {
			return out, nil
		}
	}
}

// Purge implements Stream.
func (s *jetStream) Purge(ctx context.Context, subject string, upTo uint64) error {
	var done struct{}
	return s.api(ctx, "STREAM.PURGE."+s.name, map[string]any{"filter": subject, "seq": upTo + 1}, &done)
}

// Used implements Stream.
func (s *jetStream) Used(ctx context.Context) (used, limit int64, err error) {
	var info struct {
		Config struct {
			MaxBytes int64 `json:"max_bytes"`
		} `json:"config"`
		State struct {
			Bytes int64 `json:"bytes"`
		} `json:"state"`
	}
	err = s.api(ctx, "STREAM.INFO."+s.name, struct{}{}, &info)
	return info.State.Bytes, info.Config.MaxBytes, err
}

func (s *jetStream) api(ctx context.Context, verb string, request, into any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	m := nats.NewMsg(wire.PrefixJSAPI + verb)
	m.Data = body
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	return s.ask(ctx, m, into)
}

func (s *jetStream) ask(ctx context.Context, m *nats.Msg, into any) error {
	nc, err := s.conn()
	if err != nil {
		return err
	}
	answer, err := nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return fmt.Errorf("audit: stream %s: %w", s.name, err)
	}
	var failed struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &failed); err != nil {
		return fmt.Errorf("audit: stream %s: answer: %w", s.name, err)
	}
	if failed.Error != nil {
		return fmt.Errorf("audit: stream %s: %w", s.name, failed.Error)
	}
	if err := json.Unmarshal(answer.Data, into); err != nil {
		return fmt.Errorf("audit: stream %s: answer: %w", s.name, err)
	}
	return nil
}
