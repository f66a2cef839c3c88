package attack

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// reportVersion is the version of the layout of a report.
const reportVersion = 1

// ErrReport: a document is no report, or one that contradicts itself.
var ErrReport = errors.New("attack: not a report of attacks")

// Report is what came of a run (docs/spec/attack-report.md).
type Report struct {
	Version int             `json:"version"`
	Signet  string          `json:"signet"`           // version of the command that ran it
	Broker  string          `json:"broker,omitempty"` // cluster, or broker; empty: plain nats-server
	Node    string          `json:"node"`             // that was attacked
	By      string          `json:"by,omitempty"`     // tenant/name, whose key made the throw-away principals
	Begun   time.Time       `json:"begun"`            // whole seconds UTC
	Ended   time.Time       `json:"ended"`
	Policy  string          `json:"policy,omitempty"` // digest of the policy before and after
	Stage   string          `json:"stage,omitempty"`  // digest of the policy with the throw-away principals
	Verdict Verdict         `json:"verdict"`
	Counts  map[Verdict]int `json:"counts"`
	Results []Result        `json:"results"`
}

// Finish enters the results.
func (r *Report) Finish(results []Result) {
	r.Version, r.Results, r.Verdict, r.Counts = reportVersion, results, Worst(results), tally(results)
	r.Begun, r.Ended = r.Begun.UTC().Truncate(time.Second), time.Now().UTC().Truncate(time.Second)
}

func tally(results []Result) map[Verdict]int {
	out := map[Verdict]int{}
	for i := range results {
		out[results[i].Verdict]++
	}
	return out
}

// Sign returns the envelope of r, signed with a key of the role policy.
func (r *Report) Sign(s *signing.Signer) ([]byte, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return s.SignStatement(signing.AttackReportType, payload)
}

// VerifyReport checks a signed report: its signature under ring, that the key is that of the
// principal that it names and was valid when the run ended, and that the verdict is that of
// the results.
//
// Errors: ErrReport and those of signing.VerifyAttackReport.
func VerifyReport(doc []byte, ring *keyring.Ring) (*Report, keyring.Key, error) {
	payload, key, err := signing.VerifyAttackReport(doc, ring)
	if err != nil {
		return nil, key, err
	}
	r, err := decodeReport(payload)
	switch {
	case err != nil:
		return nil, key, err
	case key.Principal != r.By:
		return nil, key, fmt.Errorf("%w: %s is the key of %s, not of %s", signing.ErrKeyNotValid, key.ID, key.Principal, r.By)
	case !key.ValidAt(r.Ended):
		return nil, key, fmt.Errorf("%w: %s at %s", signing.ErrKeyNotValid, key.ID, r.Ended.Format(time.RFC3339))
	}
	return r, key, nil
}

// decodeReport reads a payload. Encoding it again must give the same bytes.
func decodeReport(payload []byte) (*Report, error) {
	r := new(Report)
	if err := json.Unmarshal(payload, r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	again, err := json.Marshal(r)
	switch {
	case err != nil || !bytes.Equal(again, payload):
		return nil, fmt.Errorf("%w: it is not in the layout of docs/spec/attack-report.md", ErrReport)
	case r.Version != reportVersion:
		return nil, fmt.Errorf("%w: version %d", ErrReport, r.Version)
	case r.Verdict != Worst(r.Results) || fmt.Sprint(r.Counts) != fmt.Sprint(tally(r.Results)):
		return nil, fmt.Errorf("%w: verdict and counts are not those of its results", ErrReport)
	}
	seen := map[int]bool{}
	for i := range r.Results {
		n := r.Results[i].Number
		if seen[n] {
			return nil, fmt.Errorf("%w: attack %d twice", ErrReport, n)
		}
		seen[n] = true
	}
	return r, nil
}
