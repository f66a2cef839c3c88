package admin

import (
	"context"

	"github.com/signetbus/signet/internal/adminapi"
)

// The results of the calls about the policy as a whole.
type (
	// PolicyShow says which policy is in force, and where it comes from.
	PolicyShow = adminapi.PolicyShow
	// PolicyVersion is a version that was applied: Version, Digest, Before, By, Time, Note.
	PolicyVersion = adminapi.PolicyVersion
	// PolicyPlan is what a policy would change: Changes, and Replay if that was asked for.
	PolicyPlan = adminapi.PolicyPlan
	// PolicyPlanRequest asks for it: Files or Version, Hours.
	PolicyPlanRequest = adminapi.PolicyPlanRequest
	// PolicyChange is one difference: who gains or loses what.
	PolicyChange = adminapi.PolicyChange
	// PolicyReplayed is what a policy would have made of stored events.
	PolicyReplayed = adminapi.PolicyReplayed
	// PolicyRefusals are events that it would have refused for one reason.
	PolicyRefusals = adminapi.PolicyRefusals
	// PolicyPut says where a version is in force: InForce, Waiting.
	PolicyPut = adminapi.PolicyPut
	// PolicyUsage is how often each grant was used, and what modes have let through.
	PolicyUsage = adminapi.PolicyUsage
	// GrantUse is one line of the policy, with its Count.
	GrantUse = adminapi.GrantUse
)

// Policy asks about the policy as a whole. Grant: admin policy, and cluster where there are
// several tenants.
type Policy struct{ a *API }

// PolicyOf returns the calls about the policy as a whole.
func PolicyOf(a *API) Policy { return Policy{a} }

// Show says which policy is in force, and where it comes from.
func (p Policy) Show(ctx context.Context) (*PolicyShow, error) {
	return call[PolicyShow](ctx, p.a, adminapi.SubjectPolicyShow, nil)
}

// Plan says what a policy would change. Nothing is applied. Faults in the answer
// say that it is no valid policy. A replay may take half a minute.
func (p Policy) Plan(ctx context.Context, q PolicyPlanRequest) (*PolicyPlan, error) {
	return call[PolicyPlan](ctx, p.a, adminapi.SubjectPolicyPlan, q)
}

// Put applies a signed version of the policy (signing.SignPolicy) at all nodes.
// lockOut says that the caller is meant to lose the right to apply policies.
//
// Errors: client.ErrConflict says why it may not be applied: another one was applied
// meanwhile, it was signed for another policy or broker, too long ago, by another key.
func (p Policy) Put(ctx context.Context, document []byte, lockOut bool) (*PolicyPut, error) {
	return call[PolicyPut](ctx, p.a, adminapi.SubjectPolicyPut, adminapi.PolicyPutRequest{Document: document, LockOut: lockOut})
}

// History returns the versions that the broker keeps, newest first.
func (p Policy) History(ctx context.Context) ([]PolicyVersion, error) {
	h, err := call[adminapi.PolicyHistory](ctx, p.a, adminapi.SubjectPolicyHistory, nil)
	if err != nil {
		return nil, err
	}
	return h.Versions, nil
}

// Get returns the signed document of a version that is kept.
//
// Errors: client.ErrNotFound.
func (p Policy) Get(ctx context.Context, version uint64) ([]byte, error) {
	g, err := call[adminapi.PolicyGet](ctx, p.a, adminapi.SubjectPolicyGet, adminapi.PolicyGetRequest{Version: version})
	if err != nil {
		return nil, err
	}
	return g.Document, nil
}

// Usage returns how often the grants of the caller's tenant were used since the
// nodes began.
func (p Policy) Usage(ctx context.Context) (*PolicyUsage, error) {
	return call[PolicyUsage](ctx, p.a, adminapi.SubjectPolicyUsage, nil)
}
