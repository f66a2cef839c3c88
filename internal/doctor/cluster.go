package doctor

import "strings"

// compare judges the nodes together: what must be the same on all of them.
//
// Quorum, leaders and replicas of the streams (CLUSTER_005, CLUSTER_006) are judged by
// replication, which takes its facts from the admin verb of the area cluster.
func (f online) compare(nodes []nodeState, folder *Folder) {
	policies, rings, versions := map[string][]string{}, map[string][]string{}, map[string][]string{}
	// While a node's own admin service is away, for a moment after a reload, another
	// one answers for it: that tells nothing of the node.
	answers := map[string]bool{}
	for _, n := range nodes {
		if n.status == nil || answers[n.status.Server.Name] {
			continue
		}
		answers[n.status.Server.Name] = true
		policies[n.status.Policy.Digest] = append(policies[n.status.Policy.Digest], n.address)
		rings[number(n.ringVersion)] = append(rings[number(n.ringVersion)], n.address)
		versions[n.status.Server.Version] = append(versions[n.status.Server.Version], n.address)
		if folder == nil || folder.PolicyDigest == "" {
			continue
		}
		if v := n.status.Policy.Version; v > 0 {
			f.add(idPolicyInForce, n.address, OK, "", "%.12s, applied as version %d: the files are not read", n.status.Policy.Digest, v)
			continue
		}
		if have := n.status.Policy.Digest; have != folder.PolicyDigest {
			f.add(idPolicyInForce, n.address, Warning, "signet policy check FILE, then kill -HUP of the broker; its log says why it did not take it",
				"%.12s is in force, the files are %.12s", have, folder.PolicyDigest)
		} else {
			f.add(idPolicyInForce, n.address, OK, "", "%.12s", have)
		}
	}
	if len(nodes) < 2 {
		return
	}
	s, answered := OK, len(answers)
	switch {
	case answered*2 <= len(nodes):
		s = Critical
	case answered < len(nodes):
		s = Warning
	}
	f.add(idNodes, "", s, "CONN_001 says which do not; where it is well, ask again: another node answered for it", "%d of %d answer for themselves", answered, len(nodes)).
		measure(float64(len(nodes)-answered), "", Pair{Warning: 1, Critical: float64((len(nodes) + 1) / 2)})
	f.same(idNodesPolicy, policies, Critical, "copy the policy to every node and reload them (SIGHUP), or, if it is applied (signet policy show), wait some seconds and look at their logs", "policy")
	f.same(idNodesRing, rings, Critical, "copy keys/keyring.json to every node", "keyring version")
	f.same(idNodesVersion, versions, Warning, "finish the upgrade", "version")
}

// same judges values that must be one. by has the nodes of each value.
func (f online) same(id string, by map[string][]string, s Severity, fix, what string) {
	if len(by) <= 1 {
		f.add(id, "", OK, "", "one %s", what)
		return
	}
	var parts []string
	for _, v := range sortedKeys(by) {
		parts = append(parts, short(v)+" on "+strings.Join(by[v], " "))
	}
	f.add(id, "", s, fix, "%d of them: %s", len(by), strings.Join(parts, ", "))
}

func short(s string) string { return s[:min(len(s), 12)] }

// Replication is how one replicated stream stands.
type Replication struct {
	Stream  string
	Leader  string // empty: there is none
	Want    int    // replicas that it should have
	Current int    // replicas that are there and up to date, the leader included
}

// replication judges the streams of a cluster.
func (f online) replication(streams []Replication) {
	for _, r := range streams {
		if r.Leader == "" {
			f.add(idLeader, r.Stream, Critical, "start the nodes that are missing; CONN_001 says which", "no leader: it takes and gives nothing")
		} else {
			f.add(idLeader, r.Stream, OK, "", "%s leads", r.Leader)
		}
		s := OK
		switch {
		case r.Current*2 <= r.Want:
			s = Critical
		case r.Current < r.Want:
			s = Warning
		}
		f.add(idReplicas, r.Stream, s, "start the nodes that are missing, or wait until they have caught up", "%d of %d replicas are up to date", r.Current, r.Want).
			measure(float64(r.Want-r.Current), "", Pair{Warning: 1, Critical: float64((r.Want + 1) / 2)})
	}
}
