package translog

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Record is one stored message as a Follower reads it. Subject, Headers and Payload are
// views that the next call of Next overwrites; Time is in nanoseconds since 1970.
type Record struct {
	Seq                       uint64
	Time                      int64
	Subject, Headers, Payload []byte
}

// Follower reads the files of a stream while the server appends to them:
// integrity.Follower.
type Follower interface {
	// Next returns the next message; ok false: there is none yet.
	Next(m *Record) (ok bool, err error)
	// Buffered says whether Next returns without reading the disk.
	Buffered() bool
	Close()
}

// reader is where a writer gets the messages of its stream from: a feed, or files.
type reader interface {
	// next returns the next message, or ok false when none came within wait.
	//
	// After an error it is at its end; nothing is lost, open another.
	next(wait time.Duration, m *message) (ok bool, err error)
	// buffered says whether next returns without waiting.
	buffered() bool
	close()
}

// How often files are looked at: what comes between two looks is read at once, which
// costs a small part of what reading each event as it comes does.
const (
	lookFiles     = 20 * time.Millisecond
	lookIdleFiles = pollLeader
	// retryFiles is how long the server is asked where files could not be read.
	retryFiles = 10 * time.Minute
)

// files reads a stream from the files of this node's copy. A consumer of the server costs
// as much for each event as everything else that is done for one, and a log has to read
// every event; the node that leads a stream has exactly those that the server serves.
type files struct {
	Follower
	rec     Record
	subject string // of the last message: most have the same
	idle    time.Duration
}

// input is what a writer reads its stream by.
type input struct {
	reader
	l      *log
	tenant *nats.Conn
	// created is when the stream was made that the log has been compared with.
	created time.Time
	// follows: the files of the stream are to be read; filed: reader reads them.
	follows, filed bool
	due            uint64    // sequence that did not come within idleCheck, though it is stored
	ahead          time.Time // since when the files have what the server has not; zero: they have not
}

// openInput starts reading at the sequence from. What is compared with the log comes from
// the server, and so does what a stream has from which others than age may take messages:
// its files still have those.
//
// Errors: errFeed, or the connection's.
func (w *writer) openInput(ctx context.Context, from uint64) error {
	l, c := w.l, &w.state.Config
	w.in = input{l: l, tenant: w.tenant, created: w.state.Created}
	w.in.follows = l.s.cfg.Follow != nil && l.src.Filter == "" && c.DenyDelete && c.DenyPurge
	if len(w.check) == 0 {
		if err := w.in.follow(ctx, from); err != nil || w.in.filed {
			return err
		}
	}
	f, err := openFeed(ctx, l.s.cfg.Upstream, l.src.Account, l.src.Stream, l.src.Filter, from)
	if err != nil {
		return err
	}
	w.in.reader = f
	l.update(func(s *State) { s.ByServer = w.in.follows && time.Now().Before(l.filesAgain) }) // also where this node leads again
	return nil
}

// follow goes on in the files of the stream, if they are to be read and can be.
//
// Errors: errFeed, or the connection's.
func (in *input) follow(ctx context.Context, from uint64) error {
	l := in.l
	if !in.follows || in.filed || time.Now().Before(l.filesAgain) {
		return nil
	}
	f, err := l.s.cfg.Follow(l.src.Account, l.src.Stream, from)
	if err != nil {
		in.unreadable(err)
		return nil
	}
	// If the stream is now still the one that the log was compared with, so are its files.
	state, err := in.state(ctx)
	if err != nil {
		f.Close()
		return err
	}
	if state.State.Deleted > 0 {
		f.Close()
		in.unreadable(holesError(state))
		return nil
	}
	in.end()
	in.reader, in.filed, in.due = &files{Follower: f, idle: lookFiles}, true, 0
	l.update(func(s *State) { s.ByServer = false })
	return nil
}

// state asks the server about the stream.
//
// Errors: errFeed where it is another than the log has been compared with, or the connection's.
func (in *input) state(ctx context.Context) (*streamState, error) {
	state, err := stateOf(ctx, in.tenant, in.l.src.Stream)
	if err == nil && !state.Created.Equal(in.created) {
		err = remade(state)
	}
	return state, err
}

func remade(state *streamState) error {
	return fmt.Errorf("%w: the stream was deleted and made anew at %s", errFeed, state.Created.Format(time.RFC3339))
}

// holesError: what the server has no message at may still be in its files.
func holesError(state *streamState) error {
	return fmt.Errorf("the server has no message at %d sequences within the stream", state.State.Deleted)
}

// unreadable notes why files cannot be read.
func (in *input) unreadable(err error) {
	in.l.filesAgain = time.Now().Add(in.l.s.cfg.retryFiles)
	in.l.update(func(s *State) { s.ByServer = true })
	in.l.s.cfg.Log.Warn().Err(err).Str("tenant", in.l.src.Tenant).Str("stream", in.l.src.Stream).
		Msg("the files of the stream cannot be read; for a while its log is read from the server")
}

// ended is how a writer ends whose reader has: the next one reads from the server where
// it was of files. All is compared again, since the stream may be another one.
//
// Errors: always one; errFeed where it was of files.
func (in *input) ended(err error) error {
	if !in.filed {
		return err
	}
	in.unreadable(err)
	return fmt.Errorf("%w: %w", errFeed, err)
}

// overdue is called when the server has a message of a sequence that the reader was to
// bring, and nothing has come for idleCheck. Twice is once too often for files.
func (in *input) overdue(seq uint64) error {
	if in.due != seq || !in.filed {
		in.due = seq
		return nil
	}
	return in.ended(fmt.Errorf("sequence %d is stored and not in them", seq))
}

// confirmed says whether the server has what came from files, up to, not including, next:
// only then it may be in a checkpoint. A record is in its file before the server has synced
// it, and may never come to be in the stream: where the sync fails, where the publish was
// refused after the write, or where another hand than the server's has written it.
//
// Errors: errFeed, or the connection's.
func (in *input) confirmed(ctx context.Context, next uint64) (bool, error) {
	if !in.filed {
		return true, nil
	}
	state, err := in.state(ctx)
	switch {
	case err != nil:
		return false, err
	case state.State.Deleted > 0:
		return false, in.ended(holesError(state))
	case state.State.LastSeq+1 >= next:
		in.ahead = time.Time{}
		return true, nil
	case in.ahead.IsZero():
		in.ahead = time.Now()
	case time.Since(in.ahead) > idleCheck: // a new leader may have to catch up first
		return false, in.ended(fmt.Errorf("they have sequence %d, and the stream ends at %d", next-1, state.State.LastSeq))
	}
	return false, nil
}

func (in *input) end() {
	if in.reader != nil {
		in.close()
	}
}

func (f *files) next(wait time.Duration, m *message) (ok bool, err error) {
	for {
		ok, err := f.Next(&f.rec)
		switch {
		case err != nil:
			return false, err
		case ok:
			f.idle = lookFiles
			if f.subject != string(f.rec.Subject) {
				f.subject = string(f.rec.Subject)
			}
			*m = message{seq: f.rec.Seq, stored: f.rec.Time, subject: f.subject, block: f.rec.Headers, data: f.rec.Payload}
			if f.Buffered() {
				m.pending = 1 // or more
			}
			return true, nil
		case wait <= 0:
			return false, nil
		}
		nap := min(f.idle, wait)
		<-time.After(nap)
		wait -= nap
		f.idle = min(2*f.idle, lookIdleFiles)
	}
}

func (f *files) buffered() bool { return f.Buffered() }

func (f *files) close() { f.Close() }
