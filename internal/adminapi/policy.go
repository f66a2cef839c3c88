package adminapi

import (
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// The subjects of the policy as a whole.
const (
	SubjectPolicyShow    = wire.PrefixAdmin + AreaPolicy + ".show"
	SubjectPolicyPlan    = wire.PrefixAdmin + AreaPolicy + ".plan"
	SubjectPolicyPut     = wire.PrefixAdmin + AreaPolicy + ".put"
	SubjectPolicyHistory = wire.PrefixAdmin + AreaPolicy + ".history"
	SubjectPolicyGet     = wire.PrefixAdmin + AreaPolicy + ".get"
	SubjectPolicyUsage   = wire.PrefixAdmin + AreaPolicy + ".usage"
)

// Limits of a plan.
const (
	MaxPlanHours     = 24 * 31
	MaxPlanEvents    = 200_000 // stored events that are replayed
	MaxPlanSeconds   = 25      // and how long that may take
	MaxPlanRefusals  = 200     // groups in an answer
	MaxPlanChanges   = 2000
	MaxUsageRows     = 2000
	MaxPolicyBytes   = 512 << 10 // of a signed version, or of packed files
	MaxPolicyHistory = 64
)

// PolicyVersion is one version of the policy that was applied.
type PolicyVersion struct {
	Version uint64    `json:"version"`
	Digest  string    `json:"digest,omitempty"` // empty: the files of the nodes hold
	Before  string    `json:"before,omitempty"`
	By      string    `json:"by,omitempty"` // tenant/name
	Time    time.Time `json:"time,omitzero"`
	Note    string    `json:"note,omitempty"`
	Bytes   int       `json:"bytes,omitempty"`
}

// PolicyShow is the result of policy.show.
type PolicyShow struct {
	Broker  string        `json:"broker"`            // name that a version is signed for
	Digest  string        `json:"digest"`            // of the policy in force
	Applied PolicyVersion `json:"applied,omitzero"`  // the last version that came into force; Version 0: none was ever applied
	Next    uint64        `json:"next"`              // version that may be applied now
	Files   bool          `json:"files,omitempty"`   // the policy comes from the files of the node
	Lapses  time.Time     `json:"lapses,omitzero"`   // when the next grant ends
	Tenants []string      `json:"tenants,omitempty"` // that the caller may see
}

// PolicyPlanRequest asks what a policy would change. Nothing is applied.
type PolicyPlanRequest struct {
	Files []byte `json:"files,omitempty"` // as policy.Pack makes them
	// Version takes the files of a version that is kept, in place of Files.
	Version uint64 `json:"version,omitempty"`
	Hours   int    `json:"hours,omitempty"` // replay the events stored in the last hours; 0: none
}

// PolicyPlan is the result of policy.plan.
type PolicyPlan struct {
	Faults  []PolicyFault   `json:"faults,omitempty"` // it is no valid policy: the rest is empty
	Digest  string          `json:"digest,omitempty"`
	InForce string          `json:"inForce,omitempty"` // digest of what it was compared with
	Changes []PolicyChange  `json:"changes,omitempty"`
	More    int             `json:"more,omitempty"` // changes that are not in the list
	Partial bool            `json:"partial,omitempty"`
	Replay  *PolicyReplayed `json:"replay,omitempty"`
	// Ungiven are names under its identities that the policy in force has, too, and that a
	// node gives to nobody who could vouch for them: nobody comes in by them there.
	Ungiven []PolicyFault `json:"ungiven,omitempty"`
	// Unasked are nodes that did not say which names they give.
	Unasked []string `json:"unasked,omitempty"`
}

// PolicyChange is one difference.
type PolicyChange struct {
	Tenant    string `json:"tenant"`
	Principal string `json:"principal,omitempty"` // tenant/name
	What      string `json:"what"`                // gains, loses, adds, removes, changes
	Of        string `json:"of"`
	Name      string `json:"name,omitempty"`
	Detail    string `json:"detail,omitempty"`
	Rule      string `json:"rule,omitempty"`
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitempty"`
	Text      string `json:"text"`
}

// PolicyReplayed is what the policy would have made of stored events.
type PolicyReplayed struct {
	Since    time.Time        `json:"since"`
	Events   int              `json:"events"`
	Refused  int              `json:"refused"`
	Cut      string           `json:"cut,omitempty"` // why not all events were replayed
	Refusals []PolicyRefusals `json:"refusals,omitempty"`
}

// PolicyRefusals are events that the policy would refuse for the same reason.
type PolicyRefusals struct {
	Tenant    string    `json:"tenant"`
	Principal string    `json:"principal"` // tenant/name
	Type      string    `json:"type,omitempty"`
	Code      wire.Code `json:"code"`
	Rule      string    `json:"rule,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	Count     int       `json:"count"`
	Subject   string    `json:"subject"` // of the first of them
	Stream    string    `json:"stream"`
	Sequence  uint64    `json:"sequence"`
}

// PolicyPutRequest applies a version of the policy.
type PolicyPutRequest struct {
	Document []byte `json:"document"` // signed with a key of the role policy of the caller
	// LockOut says that the caller is meant to lose the right to apply policies.
	LockOut bool `json:"lockOut,omitempty"`
}

// PolicyPut is the result of policy.put.
type PolicyPut struct {
	Version uint64            `json:"version"`
	Digest  string            `json:"digest,omitempty"`
	Kept    bool              `json:"kept"`    // in the stream; otherwise as soon as that answers
	InForce []string          `json:"inForce"` // nodes, sorted
	Waiting map[string]string `json:"waiting,omitempty"`
}

// PolicyHistory is the result of policy.history, newest first.
type PolicyHistory struct {
	Versions []PolicyVersion `json:"versions"`
}

// PolicyGetRequest asks for a version that is kept.
type PolicyGetRequest struct {
	Version uint64 `json:"version"`
}

// PolicyGet is the result of policy.get.
type PolicyGet struct {
	Document []byte `json:"document"`
}

// PolicyUsage is the result of policy.usage: how often the grants of the caller's tenant
// were used, at all nodes that answer, and what modes have let through.
type PolicyUsage struct {
	Since   time.Time         `json:"since"` // the node that began last; counts before it are not complete
	Grants  []GrantUse        `json:"grants"`
	Modes   []ModeUse         `json:"modes,omitempty"`
	Idle    []IdleLimit       `json:"idle,omitempty"`
	Without map[string]string `json:"without,omitempty"` // nodes that are not counted, and why
	More    int               `json:"more,omitempty"`
}

// GrantUse is one line of the policy.
type GrantUse struct {
	Verb    string    `json:"verb"`
	Pattern string    `json:"pattern,omitempty"`
	Rule    string    `json:"rule"`
	File    string    `json:"file,omitempty"`
	Line    int       `json:"line,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	Count   uint64    `json:"count"`
	Holders int       `json:"holders"` // principals that have it
}

// IdleLimit is a limit that bounds nobody: no principal has it.
type IdleLimit struct {
	Rule string `json:"rule"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// ModeUse is one rule that is not enforced.
type ModeUse struct {
	Rule  string `json:"rule"`
	Mode  string `json:"mode"`
	Count uint64 `json:"count"` // of what it would have refused
	File  string `json:"file,omitempty"`
	Line  int    `json:"line,omitempty"`
}
