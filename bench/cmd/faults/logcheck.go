package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/bench"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

// unlogged is a policy without the log, for volumes that have no room for it and nodes
// whose clocks are so far off that a log stands still.
func unlogged(policy string) string { return strings.Replace(policy, ", log: true", "", 1) }

// judgeLog waits until a checkpoint covers the stream, on which nobody publishes any more,
// and has all of it compared with its log: whatever has happened, the log goes on by
// itself, and nothing was dropped, altered, added or put in another order.
func judgeLog(ctx context.Context, a bench.Address, what string, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	c, err := a.SDK(ctx, "auditor", client.WithReconnectWait(50*time.Millisecond))
	if err != nil {
		return err
	}
	defer c.Close()
	api := admin.New(c).Log()
	began := time.Now()
	for {
		logs, err := api.List(ctx)
		if err == nil && len(logs) == 1 && logs[0].Size > 0 && logs[0].Lag == 0 {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: the log does not come to the end: %+v: %w", errBroken, logs, err)
		}
	}
	behind := time.Since(began)
	var sum admin.LogVerified
	for sum.Next == 0 || sum.Next < sum.End {
		r, err := api.Verify(ctx, stream, sum.Checkpoint, max(sum.Next, 1))
		if err != nil {
			return fmt.Errorf("comparing the stream with its log: %w", err)
		}
		if r.Finding != nil {
			return fmt.Errorf("%w: the log says of sequence %d: %s (%s)", errBroken, r.Finding.Sequence, r.Finding.What, r.Finding.Detail)
		}
		sum.Compared, sum.Absent, sum.Unproven = sum.Compared+r.Compared, sum.Absent+r.Absent, sum.Unproven+r.Unproven
		sum.Checkpoint, sum.Next, sum.End = r.Checkpoint, r.Next, r.End
	}
	fmt.Printf("%s: the log had all after %s; %d events compared with it, %d sequences absent, %d not verified\n",
		what, behind.Round(time.Millisecond), sum.Compared, sum.Absent, sum.Unproven)
	if sum.Unproven > 0 || sum.Compared == 0 {
		return fmt.Errorf("%w: not all is verified", errBroken)
	}
	return nil
}
