package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrNoLeader: streams have no leader now, or no node answers for them, so that nobody
// knows what they are or hold. Nothing was changed. The text names them.
var ErrNoLeader = errors.New("store: streams without a leader")

func noLeader(tenant string, names ...string) error {
	return fmt.Errorf("%w: tenant %s: %s: start the nodes that have their copies, see signet cluster status", ErrNoLeader, tenant, strings.Join(names, ", "))
}

// listing is what the server tells of the streams of an account.
type listing struct {
	tenant string
	// infos are the streams that a leader has answered for.
	infos map[string]*jetstream.StreamInfo
	// silent are the others. What is known of one is its configuration, or nothing: nil.
	silent map[string]*jetstream.StreamConfig
}

// list asks for all streams of the account. nats-server leaves streams without a leader
// out of its answer and names them beside it; one whose nodes are all away it puts into both
// places, with a state that says that it is empty.
func (a *account) list(ctx context.Context) (*listing, error) {
	out := &listing{tenant: a.tenant, infos: map[string]*jetstream.StreamInfo{}, silent: map[string]*jetstream.StreamConfig{}}
	for seen := 0; ; {
		var page struct {
			Total   int                     `json:"total"`
			Streams []*jetstream.StreamInfo `json:"streams"`
			Missing []string                `json:"missing"`
		}
		if err := a.insist(ctx, "STREAM.LIST", map[string]int{"offset": seen}, &page); err != nil {
			return nil, fmt.Errorf("tenant %s: %w", a.tenant, err)
		}
		for _, info := range page.Streams {
			if c := info.Cluster; c != nil && c.Leader == "" && info.Config.Replicas > 1 {
				out.silent[info.Config.Name] = &info.Config // a follower answered
				continue
			}
			out.infos[info.Config.Name] = info
		}
		for _, name := range page.Missing {
			if info, ok := out.infos[name]; ok {
				out.silent[name] = &info.Config
				delete(out.infos, name)
			} else if _, ok := out.silent[name]; !ok {
				out.silent[name] = nil
			}
		}
		before := seen
		if seen = len(out.infos) + len(out.silent); seen >= page.Total || seen == before {
			return out, nil
		}
	}
}

// fault is the error for those of names that do not answer.
func (l *listing) fault(names []string) error {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, silent := l.silent[name]
		return !silent
	})
	if len(names) == 0 {
		return nil
	}
	return noLeader(l.tenant, names...)
}

// unknown are the streams of which not even the configuration is known.
func (l *listing) unknown() []string {
	var out []string
	for name, cfg := range l.silent {
		if cfg == nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
