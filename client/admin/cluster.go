package admin

import (
	"context"
	"time"

	"github.com/signetbus/signet/internal/adminapi"
)

// changeTimeout bounds a change of the cluster, which takes some answers of other
// nodes; a context with a deadline goes before it.
const changeTimeout = 70 * time.Second

// What the calls about a cluster take and answer.
type (
	// ClusterStatus is the cluster: Nodes, Streams of the caller's tenant, Problems.
	ClusterStatus = adminapi.ClusterStatus
	// ClusterNode is one node of it.
	ClusterNode = adminapi.ClusterNode
	// ClusterStream is the replication of one stream.
	ClusterStream = adminapi.ClusterStream
	// ClusterReplica is one copy of a stream.
	ClusterReplica = adminapi.ClusterReplica
	// ClusterProblem is what has to be mended: Node or Stream, What, Fix.
	ClusterProblem = adminapi.ClusterProblem
	// ClusterRescue is what a rescue did: Leader, Quorum, Removed.
	ClusterRescue = adminapi.ClusterRescue
	// ClusterRebalance is which leaders were moved: Moves, Others, Leads.
	ClusterRebalance = adminapi.ClusterRebalance
)

// ClusterStatus returns the state of all nodes, and of the replication of the streams
// of the caller's tenant.
//
// Errors: client.ErrNotFound when the broker is by itself.
func (a *API) ClusterStatus(ctx context.Context) (*ClusterStatus, error) {
	return call[ClusterStatus](ctx, a, adminapi.SubjectClusterStatus, nil)
}

// ClusterEvacuate starts to move all copies away from a node, and returns before they
// have moved: ask for ClusterStatus until its Copies and Consumers are 0 and every
// stream is whole. It may be asked again.
//
// Errors: client.ErrConflict when too few nodes would be left, or another change is
// under way; client.ErrUnavailable without a quorum; client.ErrNotFound.
func (a *API) ClusterEvacuate(ctx context.Context, node string) error {
	return a.change(ctx, adminapi.SubjectClusterEvacuate, adminapi.ClusterNodeRequest{Node: node})
}

// ClusterRemove takes a node that is evacuated and stopped out of the cluster. Only
// then may its volume be deleted.
//
// Errors: as ClusterEvacuate.
func (a *API) ClusterRemove(ctx context.Context, node string) error {
	return a.change(ctx, adminapi.SubjectClusterRemove, adminapi.ClusterNodeRequest{Node: node})
}

// ClusterStepDown lets another node lead the cluster's log: the named one, or any.
//
// Errors: as ClusterEvacuate.
func (a *API) ClusterStepDown(ctx context.Context, node string) error {
	return a.change(ctx, adminapi.SubjectClusterStepDown, adminapi.ClusterNodeRequest{Node: node})
}

// ClusterRescue gives a cluster that has lost its majority for good a new one out of
// the nodes that are left. lost are all the others. Events that only they had are gone.
//
// Errors: client.ErrConflict while a node knows a leader, when a lost node answers, or
// when one that does not answer is not named; client.ErrNotFound.
func (a *API) ClusterRescue(ctx context.Context, lost ...string) (*ClusterRescue, error) {
	ctx, cancel := changeContext(ctx)
	defer cancel()
	return call[ClusterRescue](ctx, a, adminapi.SubjectClusterRescue, adminapi.ClusterRescueRequest{Lost: lost, Confirm: true})
}

// ClusterRebalance spreads the leaders of all streams over the nodes.
//
// Errors: client.ErrConflict while a stream lacks a copy.
func (a *API) ClusterRebalance(ctx context.Context) (*ClusterRebalance, error) {
	ctx, cancel := changeContext(ctx)
	defer cancel()
	return call[ClusterRebalance](ctx, a, adminapi.SubjectClusterRebalance, nil)
}

func (a *API) change(ctx context.Context, subject string, request any) error {
	ctx, cancel := changeContext(ctx)
	defer cancel()
	_, err := call[struct{}](ctx, a, subject, request)
	return err
}

func changeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, changeTimeout)
}
