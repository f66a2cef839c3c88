package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/memguard"
)

// newLog makes the process log. level is one that Config.Validate has accepted.
func newLog(w io.Writer, cfg broker.LogConfig) zerolog.Logger {
	level, err := zerolog.ParseLevel(cfg.Level)
	if err != nil {
		level = zerolog.InfoLevel
	}
	if cfg.Format == "console" {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !terminal(w)}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

// runBroker starts b, calls ready, and serves until a signal or a failure:
// SIGINT and SIGTERM drain within drain, a second one ends at once; SIGHUP
// reloads. This is the only place where a broker meets signals.
func runBroker(ctx context.Context, a *app, b *broker.Broker, drain time.Duration, ready func() error) error {
	sig := make(chan os.Signal, 4)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(sig)
	memguard.SetLimit(memguard.ReadLimits("/"), a.getenv) // the broker logs what is in force
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- b.Start(ctx) }()
	for running := false; !running; {
		select {
		case err := <-started:
			if err != nil {
				return startFault(ctx, a, b, err)
			}
			running = true
		case s := <-sig:
			if s != syscall.SIGHUP {
				return &exitError{code: exitInterrupted, err: errInterrupted} // nothing serves yet
			}
		}
	}
	if err := ready(); err != nil {
		return shutdown(b, drain, sig, err)
	}
	for {
		select {
		case s := <-sig:
			if s == syscall.SIGHUP {
				// The broker logs the outcome; a reload that fails changes nothing.
				_ = b.Reload(ctx)
				continue
			}
			return shutdown(b, drain, sig, nil)
		case <-b.Done():
			if err := b.Err(); errors.Is(err, broker.ErrSpaceBack) {
				return err
			}
			return &exitError{code: exitFailed, err: errStopped}
		}
	}
}

// startFault tells faults in files, which are of usage, from a start that failed.
func startFault(ctx context.Context, a *app, b *broker.Broker, err error) error {
	if faults := b.Check(ctx); faults != nil {
		return a.faulty(faults)
	}
	return err
}

// sameSignal is how close a second signal may follow the first and still be taken
// for it: timeout(1), shells and supervisors often deliver one twice.
const sameSignal = 500 * time.Millisecond

// shutdown drains b and returns cause, or the error of the shutdown, or
// errInterrupted when another signal cuts it short.
func shutdown(b interface{ Shutdown(context.Context) error }, drain time.Duration, sig <-chan os.Signal, cause error) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- b.Shutdown(ctx) }()
	for {
		select {
		case err := <-done:
			if cause != nil {
				return cause
			}
			return err
		case s := <-sig:
			if s != syscall.SIGHUP && time.Since(began) >= sameSignal {
				return errInterrupted
			}
		}
	}
}
