package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/client"
)

// Server is a server process.
type Server struct {
	Address
	Kind Kind
	cmd  *exec.Cmd
	in   io.WriteCloser
	read *json.Decoder

	ended sync.Once
	err   error // of the process; of ended
}

// ErrServer wraps what a server process said.
var ErrServer = errors.New("bench: server")

// Start runs a server in a process of its own and returns when clients may
// connect.
func Start(ctx context.Context, cfg ServerConfig) (*Server, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	arg, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	s := &Server{Kind: cfg.Kind, cmd: exec.Command(self, serveFlag, string(arg))}
	s.cmd.Stderr = os.Stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.read = json.NewDecoder(out)
	stop := context.AfterFunc(ctx, func() { _ = s.cmd.Process.Kill() })
	a, err := s.answer()
	if !stop() {
		err = errors.Join(err, ctx.Err())
	}
	if err == nil && a.Address == nil {
		err = fmt.Errorf("%w: no address", ErrServer)
	}
	if err != nil {
		s.Kill()
		return nil, fmt.Errorf("bench: start %s: %w", cfg.Kind, err)
	}
	s.Address = *a.Address
	return s, nil
}

func (s *Server) answer() (*answer, error) {
	a := &answer{}
	if err := s.read.Decode(a); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrServer, err)
	}
	if a.Error != "" {
		return nil, fmt.Errorf("%w: %s", ErrServer, a.Error)
	}
	return a, nil
}

func (s *Server) ask(c command) (*answer, error) {
	if err := json.NewEncoder(s.in).Encode(c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrServer, err)
	}
	return s.answer()
}

// Stats asks the server about itself. settle makes it give back free memory first.
func (s *Server) Stats(settle bool) (Stats, error) {
	do := "stats"
	if settle {
		do = "settle"
	}
	a, err := s.ask(command{Do: do})
	if err != nil || a.Stats == nil {
		return Stats{}, err
	}
	return *a.Stats, nil
}

// Profile makes the server write a CPU profile to file until Profile("").
func (s *Server) Profile(file string) error {
	_, err := s.ask(command{Do: "profile", File: file})
	return err
}

// Stop ends the server in order and waits for its end.
func (s *Server) Stop() error {
	_ = s.in.Close()
	late := time.AfterFunc(2*stopWait, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	return s.wait()
}

// Kill ends the server with SIGKILL and waits until it is gone.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	_ = s.wait()
}

// wait waits for the end of the process; all callers get the same answer.
func (s *Server) wait() error {
	s.ended.Do(func() { s.err = s.cmd.Wait() })
	return s.err
}

// End waits until the process has ended by itself and returns its exit code, -1 for a
// signal. Nothing else may be asked of the server meanwhile; Kill may be called.
func (s *Server) End() int {
	var last answer
	_ = s.read.Decode(&last) // an error: the process has closed its end
	_ = s.wait()
	return s.cmd.ProcessState.ExitCode()
}

// Connect connects with plain nats.go as principal.
func (a *Address) Connect(principal string, opts ...nats.Option) (*nats.Conn, error) {
	auth, err := nats.NkeyOptionFromSeed(a.Creds[principal])
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(a.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bytes.TrimSpace(pem)) {
		return nil, fmt.Errorf("bench: no certificate in %s", a.CA)
	}
	return nats.Connect(a.URL, append([]nats.Option{
		auth, nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}), nats.Timeout(10 * time.Second),
	}, opts...)...)
}

// SDK connects with the SDK as principal; Signet only.
func (a *Address) SDK(ctx context.Context, principal string, opts ...client.Option) (*client.Client, error) {
	return client.Connect(ctx, a.URL, append([]client.Option{
		client.WithNkeySeedFile(a.Creds[principal]), client.WithTLSRoots(a.CA), client.WithRoot(a.Root),
	}, opts...)...)
}
