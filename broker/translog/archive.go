package translog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/tlog"
)

// Where the log is kept, in the broker's own account.
const (
	StreamAudit       = store.StreamAudit
	StreamLog         = store.StreamLog
	prefixHistory     = "audit.checkpoint."
	prefixLog         = "log."
	headerExpected    = "Nats-Expected-Last-Subject-Sequence"
	wrongLastSequence = jetstream.ErrorCode(10071)
	wrongLastBusy     = jetstream.ErrorCode(10164) // the same, while one is under way
	noMessage         = jetstream.ErrorCode(10037)
)

// SubjectCheckpoint is where the checkpoints of a log are published, in LOG; the last one
// is kept.
func SubjectCheckpoint(tenant, stream string) string {
	return prefixLog + tenant + "." + stream + ".checkpoint"
}

// SubjectHistory is where one checkpoint a minute is kept for good, in AUDIT.
func SubjectHistory(tenant, stream string) string { return prefixHistory + tenant + "." + stream }

// SubjectTile is where a tile is published; one message is kept on each.
func SubjectTile(o *tlog.Origin, level int, index int64) string {
	return prefixLog + o.Tenant + "." + o.Stream + "." + o.ID() + "." + strconv.Itoa(level) + "." + strconv.FormatInt(index, 10)
}

// Errors of a log.
var (
	// errFenced: somebody else has written to the log meanwhile.
	errFenced = errors.New("translog: another writer has the log")
	// ErrDisagrees: the stream is not as the log has it, or the log is not whole.
	ErrDisagrees = errors.New("translog: the stream and its log disagree")
	// ErrNotLogged: there is no such log.
	ErrNotLogged = errors.New("translog: the stream has no log")
)

const requestTimeout = 5 * time.Second

// archive is what is stored of logs. All requests go to the leader of their stream.
type archive struct {
	conn    func() (*nats.Conn, error)      // of the broker's own account
	durable func(ctx context.Context) error // nil where every write is synced
	// letGo is ErrLetGo for a tile that has made way.
	letGo func(ctx context.Context, o *tlog.Origin, level int, index int64) error
}

func (a *archive) settle(ctx context.Context) error {
	if a.durable == nil {
		return nil
	}
	return a.durable(ctx)
}

// stored is a message that was read back.
type storedMessage struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Headers []byte    `json:"hdrs"`
	Data    []byte    `json:"data"`
}

// apiError is what the server answered.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

// ask makes a JetStream API request.
func ask(ctx context.Context, nc *nats.Conn, api string, in, out any) error {
	body := []byte{}
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, wire.PrefixJSAPI+api, body)
	if err != nil {
		return fmt.Errorf("translog: %s: %w", api, err)
	}
	var failed struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &failed); err != nil {
		return fmt.Errorf("translog: answer to %s: %w", api, err)
	}
	if failed.Error != nil {
		return fmt.Errorf("translog: %s: %w", api, failed.Error)
	}
	return json.Unmarshal(m.Data, out)
}

// get reads one message; nil if there is none.
func get(ctx context.Context, nc *nats.Conn, stream string, query map[string]any) (*storedMessage, error) {
	var answer struct {
		Message storedMessage `json:"message"`
	}
	err := ask(ctx, nc, "STREAM.MSG.GET."+stream, query, &answer)
	var api *apiError
	if errors.As(err, &api) && api.ErrCode == int(noMessage) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &answer.Message, nil
}

// last returns the last checkpoint of a log and its sequence; nil and 0 if it has none.
func (a *archive) last(ctx context.Context, tenant, stream string) (*tlog.Note, uint64, error) {
	nc, err := a.conn()
	if err != nil {
		return nil, 0, err
	}
	m, err := get(ctx, nc, StreamLog, map[string]any{"last_by_subj": SubjectCheckpoint(tenant, stream)})
	if err != nil || m == nil {
		return nil, 0, err
	}
	n, err := tlog.ParseNote(m.Data)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: the last checkpoint (sequence %d of %s): %w", ErrDisagrees, m.Seq, StreamLog, err)
	}
	if n.Origin.Tenant != tenant || n.Origin.Stream != stream {
		return nil, 0, fmt.Errorf("%w: the last checkpoint (sequence %d of %s) is of another log, %s", ErrDisagrees, m.Seq, StreamLog, n.Origin)
	}
	return n, m.Seq, nil
}

// tile returns the stored bytes of a tile and their sequence.
func (a *archive) tile(ctx context.Context, o *tlog.Origin, level int, index int64) ([]byte, uint64, error) {
	nc, err := a.conn()
	if err != nil {
		return nil, 0, err
	}
	m, err := get(ctx, nc, StreamLog, map[string]any{"last_by_subj": SubjectTile(o, level, index)})
	if err != nil || m == nil {
		return nil, 0, err
	}
	return m.Data, m.Seq, nil
}

// reader reads the tiles of one log, each once.
func (a *archive) reader(ctx context.Context, o *tlog.Origin) tlog.ReadTile {
	type key struct {
		level int
		index int64
	}
	seen := map[key][]byte{}
	return func(level int, index int64) ([]byte, error) {
		if data, ok := seen[key{level, index}]; ok {
			return data, nil
		}
		data, _, err := a.tile(ctx, o, level, index)
		if err == nil && len(data) == 0 && a.letGo != nil {
			err = a.letGo(ctx, o, level, index)
		}
		if err == nil {
			seen[key{level, index}] = data
		}
		return data, err
	}
}

// put publishes data if the last message on subject is still the one with the sequence
// after, and returns its own.
//
// Errors: errFenced if it is another one; else the outcome is unknown.
func put(ctx context.Context, nc *nats.Conn, subject string, data []byte, after uint64) (uint64, error) {
	m := nats.NewMsg(subject)
	m.Data = data
	m.Header[headerExpected] = []string{strconv.FormatUint(after, 10)}
	return publish(ctx, nc, m)
}

// publish waits for the acknowledgement of m and returns its sequence.
func publish(ctx context.Context, nc *nats.Conn, m *nats.Msg) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return 0, fmt.Errorf("translog: publish %s: %w", m.Subject, err)
	}
	return acknowledged(answer.Data, m.Subject)
}

func acknowledged(data []byte, subject string) (uint64, error) {
	var ack struct {
		Error *apiError `json:"error"`
		Seq   uint64    `json:"seq"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return 0, fmt.Errorf("translog: publish %s: %w", subject, err)
	}
	switch {
	case ack.Error == nil && ack.Seq > 0:
		return ack.Seq, nil
	case ack.Error != nil && (ack.Error.ErrCode == int(wrongLastSequence) || ack.Error.ErrCode == int(wrongLastBusy)):
		return 0, fmt.Errorf("%w: %s: %w", errFenced, subject, ack.Error)
	case ack.Error != nil:
		return 0, fmt.Errorf("translog: publish %s: %w", subject, ack.Error)
	}
	return 0, fmt.Errorf("translog: publish %s: no sequence in the answer", subject)
}

// streamState is what a log needs to know of its stream.
type streamState struct {
	Config struct {
		MaxAge     time.Duration `json:"max_age"`
		Replicas   int           `json:"num_replicas"`
		DenyDelete bool          `json:"deny_delete"`
		DenyPurge  bool          `json:"deny_purge"`
	} `json:"config"`
	Created time.Time `json:"created"`
	State   struct {
		FirstSeq uint64 `json:"first_seq"`
		LastSeq  uint64 `json:"last_seq"`
		Deleted  uint64 `json:"num_deleted"` // between the two
	} `json:"state"`
}

func stateOf(ctx context.Context, nc *nats.Conn, stream string) (*streamState, error) {
	var s streamState
	if err := ask(ctx, nc, "STREAM.INFO."+stream, nil, &s); err != nil {
		return nil, err
	}
	s.Created = s.Created.UTC()
	return &s, nil
}

// nextAfter returns the first sequence from seq on that the leader has a message of the
// log at, 0 for none.
func nextAfter(ctx context.Context, nc *nats.Conn, stream, filter string, seq uint64) (uint64, error) {
	if filter == "" {
		filter = ">"
	}
	m, err := get(ctx, nc, stream, map[string]any{"seq": seq, "next_by_subj": filter})
	if err != nil || m == nil {
		return 0, err
	}
	return m.Seq, nil
}
