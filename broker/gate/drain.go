package gate

import (
	"context"
	"fmt"
	"time"
)

// stopListening closes the listener; nobody new comes in.
func (g *Gate) stopListening() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener == nil {
		return ErrStopped
	}
	if !g.draining {
		g.draining = true
		_ = g.listener.Close()
	}
	return nil
}

// Drain stops listening and tells every client that the gate goes away (INFO with
// ldm). It waits until all have left, at most Timeouts.Drain or until ctx ends,
// then ends those that are left: what they sent is still processed and answered.
// Call Shutdown after it.
//
// Errors: ErrStopped; the context's, with the number of connections left.
func (g *Gate) Drain(ctx context.Context) error {
	if err := g.stopListening(); err != nil {
		return err
	}
	for _, c := range g.snapshot() {
		g.spawn(c, c.sayLameDuck)
	}
	patience := time.NewTimer(g.cfg.Timeouts.Drain)
	defer patience.Stop()
	asked := false
	for {
		left := g.snapshot()
		if len(left) == 0 {
			return nil
		}
		select {
		case <-g.gone:
		case <-patience.C:
			asked = true
		case <-ctx.Done():
			wakeAll(left)
			return fmt.Errorf("gate: drain: %d connections left: %w", len(left), ctx.Err())
		}
		if asked {
			wakeAll(g.snapshot())
		}
	}
}

// sayLameDuck tells a client that is connected and can be told.
func (c *conn) sayLameDuck() {
	if c.ready.Load() && c.session.opts.Protocol >= 1 {
		_ = c.session.down.write(c.greeting.info(infoLameDuck))
	}
}

func wakeAll(list []*conn) {
	for _, c := range list {
		c.life.wake(nil)
	}
}

// Shutdown stops listening, ends every connection after what it sent was processed,
// and waits until every goroutine is gone. When ctx ends first, connections are cut
// where they stand; Shutdown still waits for the goroutines, which is then short.
// It may be called more than once.
//
// Errors: ErrStopped if the gate was never started; the context's if it had to cut.
func (g *Gate) Shutdown(ctx context.Context) error {
	if err := g.stopListening(); err != nil {
		return err
	}
	g.mu.Lock()
	g.stopping = true
	g.mu.Unlock()
	for _, c := range g.snapshot() {
		if !c.ready.Load() {
			c.life.abort() // nothing of it was processed
		}
		c.life.wake(nil)
	}
	done := make(chan struct{})
	go func() {
		g.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("gate: shutdown: %w", ctx.Err())
		g.kill()
		for _, c := range g.snapshot() {
			c.life.abort()
		}
		<-done
	}
	g.kill()
	return err
}
