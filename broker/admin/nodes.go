package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// Bounds of what is asked of other nodes.
const (
	nodeTimeout = 2 * time.Second // of one question
	nodePoll    = time.Second     // of one wait for refusals at all nodes; a waiter that went away costs no more
)

// Nodes is the cluster that the broker is a node of.
type Nodes interface {
	// Self is the name of this node, Others those of the other nodes.
	Self() string
	Others() []string
	// Leader is the node that leads the cluster's log, as far as this one knows.
	Leader() string
	// Forward sends a request to another node's Forwarded and returns its answer.
	Forward(ctx context.Context, node string, request []byte) ([]byte, error)

	// The rest are the verbs of the area cluster. What they refuse is a *wire.Refusal.
	Status(ctx context.Context, tenant string) adminapi.ClusterStatus
	Evacuate(ctx context.Context, node string) error
	Remove(ctx context.Context, node string) error
	Rescue(ctx context.Context, lost []string) (*adminapi.ClusterRescue, error)
	Rebalance(ctx context.Context, tenant string) (*adminapi.ClusterRebalance, error)
	StepDown(ctx context.Context, to string) error
}

// call is a request as it came, and as nodes forward it.
type call struct {
	Tenant    string          `json:"tenant"`
	Subject   string          `json:"subject"`
	Principal string          `json:"principal"` // tenant/name
	Body      json.RawMessage `json:"body,omitempty"`

	forwarded bool      // by another node: answer for this node only
	msg       *nats.Msg // that it came in; nil if it was forwarded
}

// Forwarded answers what another node has forwarded, in a goroutine that counts as
// the others do. The principal's grants are judged again, by the policy here.
func (s *Service) Forwarded(data []byte, respond func(answer []byte)) {
	var c call
	if err := json.Unmarshal(data, &c); err != nil {
		respond(s.encode("", "", nil, wire.Refuse(wire.CodeRequestMalformed, "admin", err.Error())))
		return
	}
	c.forwarded = true
	release := s.enter(&c)
	if release == nil {
		respond(s.encode(c.Subject, c.Principal, nil, wire.Refuse(wire.CodeUnavailable, "admin", "too many admin requests at work")))
		return
	}
	if !begin(s) {
		release()
		respond(s.encode(c.Subject, c.Principal, nil, wire.Refuse(wire.CodeUnavailable, "admin", "the node stops")))
		return
	}
	go func() {
		defer s.work.Done()
		defer release()
		result, err := s.handle(&c)
		respond(s.encode(c.Subject, c.Principal, result, err))
	}()
}

// forward asks one node, within ctx, and reads its result into into.
func (s *Service) forward(ctx context.Context, node string, c call, into any) error {
	data, err := json.Marshal(&c)
	if err != nil {
		return err
	}
	answer, err := s.cfg.Nodes.Forward(ctx, node, data)
	if err != nil {
		return wire.Refuse(wire.CodeUnavailable, "admin", fmt.Sprintf("node %s: %v", node, err))
	}
	return adminapi.DecodeAnswer(answer, into)
}

// askOthers gives a request to all other nodes at once, merges their answers one after the
// other, in any order, and says by node why one has not answered; nil if all have.
func askOthers[T any](s *Service, ctx context.Context, r *request, merge func(*T)) (without map[string]string) {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	type said struct {
		node   string
		answer T
		err    error
	}
	others := s.cfg.Nodes.Others()
	heard := make(chan *said, len(others))
	for _, node := range others {
		s.work.Go(func() {
			h := &said{node: node}
			h.err = s.forward(ctx, node, r.call, &h.answer)
			heard <- h
		})
	}
	for range others {
		h := <-heard
		if h.err == nil {
			merge(&h.answer)
			continue
		}
		if without == nil {
			without = map[string]string{}
		}
		without[h.node] = unaskedFor(h.err)
	}
	return without
}

// explainElsewhere finds the node that made a refusal: refs are unique.
func (s *Service) explainElsewhere(ctx context.Context, r *request) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	others := s.cfg.Nodes.Others()
	found := make(chan *adminapi.Refusal, len(others))
	unasked := make(chan string, len(others))
	for _, node := range others {
		s.work.Go(func() {
			var out adminapi.Refusal
			err := s.forward(ctx, node, r.call, &out)
			switch {
			case err == nil:
				found <- &out
				return
			case wire.AsRefusal(err).Code != wire.CodeNotFound:
				unasked <- node + " (" + unaskedFor(err) + ")"
			}
			found <- nil
		})
	}
	for range others {
		if out := <-found; out != nil {
			return out, nil
		}
	}
	close(unasked)
	detail := "no refusal with this ref is kept"
	var names []string
	for name := range unasked {
		names = append(names, name)
	}
	if slices.Sort(names); len(names) > 0 {
		detail += "; these nodes could not be asked: " + strings.Join(names, ", ")
	}
	return nil, wire.Refuse(wire.CodeNotFound, "admin", detail)
}

// unaskedFor says why another node gave no answer that counts.
func unaskedFor(err error) string {
	r := wire.AsRefusal(err)
	return strings.TrimSuffix(r.Code.Entry().Title+": "+r.Detail, ": ")
}

// refusalsOfAll lists the refusals of all nodes by time. Each node has a cursor of its
// own, and a node that does not answer keeps the one it had.
func (s *Service) refusalsOfAll(ctx context.Context, r *request, req *adminapi.RefusalsLsRequest) (any, error) {
	end := time.Now().Add(time.Duration(min(req.WaitMs, adminapi.MaxWaitMs)) * time.Millisecond)
	cursors := req.Cursors
	for {
		wait := min(time.Until(end), nodePoll)
		out := s.askAll(ctx, r, req, cursors, max(0, wait))
		if len(out.Entries) > 0 || time.Until(end) <= 0 {
			return out, nil
		}
		select {
		case <-ctx.Done(): // of Shutdown too: a long poll ends with what there is
			return out, nil
		default:
		}
		cursors = out.Cursors
	}
}

func (s *Service) askAll(ctx context.Context, r *request, req *adminapi.RefusalsLsRequest, cursors map[string]uint64, wait time.Duration) *adminapi.RefusalList {
	ctx, cancel := context.WithTimeout(ctx, wait+nodeTimeout)
	defer cancel()
	self, others := s.cfg.Nodes.Self(), s.cfg.Nodes.Others()
	one := *req
	one.Cursors, one.WaitMs = nil, wait.Milliseconds()
	one.Limit = max(1, limit(req.Limit)/(len(others)+1))
	out := &adminapi.RefusalList{Entries: []adminapi.Refusal{}, Cursors: map[string]uint64{}, Without: map[string]string{}}
	var mu sync.Mutex // guards out
	var asked sync.WaitGroup
	merge := func(node string, list *adminapi.RefusalList) {
		mu.Lock()
		defer mu.Unlock()
		out.Entries = append(out.Entries, list.Entries...)
		out.Cursors[node] = list.Cursor
		out.Missed = out.Missed || list.Missed
	}
	for _, node := range others {
		q := one
		q.After = cursors[node]
		asked.Go(func() {
			var list adminapi.RefusalList
			c := r.call
			var err error
			if c.Body, err = adminapi.EncodeRequest(&q); err == nil {
				err = s.forward(ctx, node, c, &list)
			}
			if err == nil {
				merge(node, &list)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out.Without[node] = unaskedFor(err)
			if after, ok := cursors[node]; ok {
				out.Cursors[node] = after
			}
		})
	}
	one.After = cursors[self]
	merge(self, s.refusalsHere(ctx, r, &one))
	asked.Wait()
	out.Cursor = out.Cursors[self]
	slices.SortStableFunc(out.Entries, func(a, b adminapi.Refusal) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Cursor, b.Cursor))
	})
	return out
}
