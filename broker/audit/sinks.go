package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Limits of the sinks.
const (
	DefaultSinkFileBytes = 64 << 20
	MinSinkFileBytes     = 1 << 20

	syslogPriority = 13*8 + 6 // facility "log audit", severity informational (RFC 5424)
	syslogTimeout  = 2 * time.Second
)

// ErrSink: a sink cannot be what the configuration says.
var ErrSink = errors.New("audit: sink")

// FileSink appends to a file and syncs after each batch. When the file has the given
// size it is renamed to its name, a dot and the time; what was renamed is never deleted.
type FileSink struct {
	path string
	most int64
	now  func() time.Time
	f    *os.File
	size int64
}

// NewFileSink opens or makes the file, with mode 0600. most is in bytes; 0 means
// DefaultSinkFileBytes.
//
// Errors: ErrSink.
func NewFileSink(path string, most int64) (*FileSink, error) {
	if most <= 0 {
		most = DefaultSinkFileBytes
	}
	s := &FileSink{path: path, most: most, now: time.Now}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrSink, path, err)
	}
	return s, nil
}

func (s *FileSink) open() error {
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s.f, s.size = f, info.Size()
	return nil
}

// Name implements Sink.
func (s *FileSink) Name() string { return "file " + s.path }

// Write implements Sink.
func (s *FileSink) Write(batch []byte) error {
	if s.f != nil && s.size > 0 && s.size+int64(len(batch)) > s.most {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	if s.f == nil { // after an error
		if err := s.open(); err != nil {
			return err
		}
	}
	n, err := s.f.Write(batch)
	s.size += int64(n)
	if err = errors.Join(err, s.f.Sync()); err != nil {
		err = errors.Join(err, s.f.Close())
		s.f = nil
	}
	return err
}

func (s *FileSink) rotate() error {
	err := s.f.Close()
	s.f = nil
	old := s.path + "." + s.now().UTC().Format("20060102T150405.000000000Z")
	return errors.Join(err, os.Rename(s.path, old), syncFolder(filepath.Dir(s.path)))
}

// Close implements Sink.
func (s *FileSink) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}

// WriterSink writes to what is open already, such as standard output.
type WriterSink struct {
	name string
	w    io.Writer
}

// NewWriterSink returns a sink that writes to w, and leaves it open.
func NewWriterSink(name string, w io.Writer) *WriterSink { return &WriterSink{name, w} }

// Name implements Sink.
func (s *WriterSink) Name() string { return s.name }

// Write implements Sink.
func (s *WriterSink) Write(batch []byte) error {
	_, err := s.w.Write(batch)
	return err
}

// Close implements Sink.
func (s *WriterSink) Close() error { return nil }

// SyslogSink sends each line as one RFC 5424 message: over a datagram socket, or over
// TCP with the length in front (RFC 6587). It connects again with the next batch after
// an error.
type SyslogSink struct {
	address         string
	network, target string
	host, process   string
	conn            net.Conn
	now             func() time.Time
}

// ParseSyslog reads udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH.
//
// Errors: ErrSink.
func ParseSyslog(address string) (network, target string, err error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
	case (u.Scheme == "udp" || u.Scheme == "tcp") && u.Port() != "" && u.Hostname() != "" && u.Path == "":
		return u.Scheme, u.Host, nil
	case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path):
		return "unixgram", u.Path, nil
	}
	return "", "", fmt.Errorf("%w: syslog %q: want udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH", ErrSink, address)
}

// NewSyslogSink returns a sink that has not connected yet. host is what messages say of
// their origin.
//
// Errors: ErrSink.
func NewSyslogSink(address, host string) (*SyslogSink, error) {
	network, target, err := ParseSyslog(address)
	if err != nil {
		return nil, err
	}
	return &SyslogSink{address: address, network: network, target: target, host: host, process: strconv.Itoa(os.Getpid()), now: time.Now}, nil
}

// Name implements Sink.
func (s *SyslogSink) Name() string { return "syslog " + s.address }

// Write implements Sink.
func (s *SyslogSink) Write(batch []byte) error {
	if s.conn == nil {
		c, err := net.DialTimeout(s.network, s.target, syslogTimeout)
		if err != nil {
			return err
		}
		s.conn = c
	}
	err := s.conn.SetWriteDeadline(s.now().Add(syslogTimeout))
	for line := range bytes.Lines(batch) {
		if err != nil {
			break
		}
		_, err = s.conn.Write(s.message(bytes.TrimSuffix(line, []byte("\n"))))
	}
	if err != nil {
		err = errors.Join(err, s.conn.Close())
		s.conn = nil
	}
	return err
}

func (s *SyslogSink) message(line []byte) []byte {
	m := fmt.Appendf(nil, "<%d>1 %s %s signet %s audit - ", syslogPriority, s.now().UTC().Format("2006-01-02T15:04:05.000000Z"), s.host, s.process)
	m = append(m, line...)
	if s.network == "tcp" {
		return append(fmt.Appendf(nil, "%d ", len(m)), m...)
	}
	return m
}

// Close implements Sink.
func (s *SyslogSink) Close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}
