package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/durablefile"
)

const (
	rescueFile       = "rescue.json"        // an order, in the state folder
	rescueResultFile = "rescue-result.json" // what came of it
	rescueOrderAge   = time.Minute          // of an order that is still taken
	rescueLook       = time.Second          // between two looks for one
)

// Errors of OrderRescue.
var (
	ErrNoTaker = errors.New("broker: no node that waits for a quorum took the order: it is withdrawn")
	ErrRescue  = errors.New("broker: the rescue failed")
)

// rescueOrder asks a node that starts and waits for a quorum, so that no client can
// reach it, for a rescue. Who may write into the state folder may do anything to it.
type rescueOrder struct {
	Time   time.Time               `json:"time"`
	Lost   []string                `json:"lost"`
	Error  string                  `json:"error,omitempty"`  // in the result
	Result *adminapi.ClusterRescue `json:"result,omitempty"` // in the result
}

// OrderRescue asks the node that uses the state folder and waits for a quorum to go
// on with the nodes that are left, without those of lost, which are lost for good. It
// waits until ctx ends for the node to take the order, and two minutes for the end.
//
// Errors: ErrNoTaker; ErrRescue with what the node said.
func OrderRescue(ctx context.Context, state string, lost []string) (*adminapi.ClusterRescue, error) {
	order, result := filepath.Join(state, rescueFile), filepath.Join(state, rescueResultFile)
	data, err := json.Marshal(&rescueOrder{Time: time.Now(), Lost: lost})
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if err := os.Remove(result); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if err := durablefile.Replace(order, data, 0o600); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if err := awaitFile(ctx, order, false); err != nil {
		return nil, errors.Join(ErrNoTaker, os.Remove(order))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	if err := awaitFile(ctx, result, true); err != nil {
		return nil, fmt.Errorf("%w: the node took the order and does not say what came of it: see its log", ErrRescue)
	}
	var out rescueOrder
	if data, err = os.ReadFile(result); err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("broker: %s: %w", result, err)
	}
	if out.Error != "" {
		return nil, fmt.Errorf("%w: %s", ErrRescue, out.Error)
	}
	return out.Result, nil
}

// awaitFile waits until file is there, or is gone.
func awaitFile(ctx context.Context, file string, there bool) error {
	poll := time.NewTicker(quorumPoll)
	defer poll.Stop()
	for {
		if _, err := os.Stat(file); (err == nil) == there {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
	}
}

// takeOrder does what an order says, once, if there is one.
func (n *nodes) takeOrder(ctx context.Context) {
	file := filepath.Join(n.b.cfg.State, rescueFile)
	data, err := readSecret(file)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var order rescueOrder
	if err == nil {
		err = json.Unmarshal(data, &order)
	}
	// It is gone before it is done: whatever happens, it is not done twice.
	if err = errors.Join(err, os.Remove(file)); err != nil {
		n.b.log.Error().Err(err).Str("file", file).Msg("order of a rescue not read")
		return
	}
	result := rescueOrder{Time: time.Now(), Lost: order.Lost}
	if age := time.Since(order.Time); age > rescueOrderAge || age < -rescueOrderAge {
		err = fmt.Errorf("the order is of %s: too old", order.Time.Format(time.RFC3339))
	} else {
		n.b.trail.Event("cluster-rescue", "", "", "", fmt.Sprintf("begun, ordered in the state folder: %v are lost", order.Lost))
		result.Result, err = clusterAdmin{n}.Rescue(ctx, order.Lost)
	}
	if err != nil {
		result.Error = err.Error()
	}
	n.b.trail.Event("cluster-rescue", "", "", "", fmt.Sprintf("ended: %+v, error: %v", result.Result, err))
	if data, err = json.Marshal(&result); err == nil {
		err = durablefile.Replace(filepath.Join(n.b.cfg.State, rescueResultFile), data, 0o600)
	}
	if err != nil {
		n.b.log.Error().Err(err).Msg("result of a rescue not written")
	}
}
