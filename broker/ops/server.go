package ops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is a probe: nil means well, an error says in one line what is not.
type Check func() error

// Config of the operations port.
type Config struct {
	// Listen is host:port. Required.
	Listen string
	// Sources are the metrics beside those of the Go runtime and the process.
	Sources []Source
	// Live is false only when a restart would help. Nil means always live.
	Live Check
	// Ready says whether clients should be sent here. Required.
	Ready Check
	// Started says whether start-up is over. Required.
	Started Check
}

// Server is the operations port.
type Server struct {
	http     *http.Server
	listener net.Listener
	done     chan struct{}
}

// New checks cfg and binds the port, so that a port in use stops the start.
func New(cfg Config) (*Server, error) {
	if cfg.Ready == nil || cfg.Started == nil {
		return nil, errors.New("ops: ready and started checks are required")
	}
	reg := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("ops: register: %w", err)
		}
	}
	for i := range cfg.Sources {
		if err := reg.Register(newCollector(&cfg.Sources[i])); err != nil {
			return nil, fmt.Errorf("ops: register %s: %w", cfg.Sources[i].Name, err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /livez", probe(cfg.Live))
	mux.HandleFunc("GET /readyz", probe(cfg.Ready))
	mux.HandleFunc("GET /startupz", probe(cfg.Started))
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("ops: listen on %s: %w", cfg.Listen, err)
	}
	return &Server{
		http: &http.Server{
			Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
			WriteTimeout: 15 * time.Second, IdleTimeout: 60 * time.Second, MaxHeaderBytes: 16 << 10,
		},
		listener: l, done: make(chan struct{}),
	}, nil
}

// Start serves until Shutdown.
func (s *Server) Start() {
	go func() {
		defer close(s.done)
		// Serve only returns when the listener is closed; Shutdown did that.
		_ = s.http.Serve(s.listener)
	}()
}

// Addr returns the bound address.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close frees the port of a server that was never started.
func (s *Server) Close() error { return s.listener.Close() }

// Shutdown stops serving, waits for running requests within ctx, then for the
// goroutine.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}

func probe(check Check) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if check != nil {
			if err := check(); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = fmt.Fprintln(w, err)
				return
			}
		}
		_, _ = fmt.Fprintln(w, "ok")
	}
}
