package integrity

import (
	"fmt"
	"strconv"
	"strings"
)

// Action is what becomes of a damaged replica before the server starts.
type Action string

// The actions, from mild to hard.
const (
	ActionServe    Action = "serve"     // nothing is wrong, or the operator serves it as it is
	ActionSetAside Action = "set-aside" // its peers have it: move it away and fetch it again
	ActionRefuse   Action = "refuse"    // nobody else has it: do not start
)

// Situation is what Decide must know beside the report.
type Situation struct {
	// Clustered: this node has peers that hold the other replicas, none of which has
	// been set aside or lost. If that is not so, say false: two replicas of three that
	// fetch from the third may lose what only they had.
	Clustered bool
	// Consent holds account/stream of the streams that the operator serves as they are.
	Consent map[string]bool
}

// Ruling is the action for one damaged replica.
type Ruling struct {
	Replica *Replica
	Action  Action
	Reason  string
}

// Verdict is what Decide returns.
type Verdict struct {
	Action  Action   // the hardest of the rulings
	Rulings []Ruling // one for each damaged replica
}

// Decide judges a report. It is pure.
func Decide(report *Report, s Situation) Verdict {
	v := Verdict{Action: ActionServe}
	for i := range report.Replicas {
		r := &report.Replicas[i]
		if !r.Damaged() {
			continue
		}
		ruling := rule(r, s)
		v.Rulings = append(v.Rulings, ruling)
		if ruling.Action == ActionRefuse || v.Action == ActionServe {
			v.Action = ruling.Action
		}
	}
	return v
}

func rule(r *Replica, s Situation) Ruling {
	replicas := r.Replicas
	if r.Group != "" {
		replicas = groupSize(r.Group)
	}
	switch {
	case r.Group == metaGroup:
		return Ruling{r, ActionRefuse, "the meta group knows which streams this node has: replace the node"}
	case s.Clustered && replicas-1 >= replicas/2+1:
		return Ruling{r, ActionSetAside, fmt.Sprintf("%d other replicas have it", replicas-1)}
	case replicas > 1 && lacksTail(r):
		// As after a crash while it caught up: its log says what is missing, and it
		// fetches that before it may lead.
		return Ruling{r, ActionServe, "it fetches the rest from its peers"}
	case s.Consent[r.Owner()]:
		return Ruling{r, ActionServe, "the operator serves it as it is"}
	case s.Clustered && replicas > 1:
		return Ruling{r, ActionRefuse, fmt.Sprintf("the other %d replicas are no majority without this one", replicas-1)}
	}
	if replicas > 1 {
		return Ruling{r, ActionRefuse, "the other replicas are not in touch or not whole now: start again when they are"}
	}
	return Ruling{r, ActionRefuse, "this is the only replica"}
}

// lacksTail reports whether the end is all that r lacks.
func lacksTail(r *Replica) bool {
	for _, d := range r.Damage {
		if d.Kind != KindTail {
			return false
		}
	}
	return len(r.Damage) > 0 && r.More == 0
}

// groupSize reads the number of replicas from the name of a Raft group, as in S-R3F-x.
func groupSize(group string) int {
	parts := strings.SplitN(group, "-", 3)
	if len(parts) < 3 || len(parts[1]) < 3 || parts[1][0] != 'R' {
		return 1
	}
	n, err := strconv.Atoi(parts[1][1 : len(parts[1])-1])
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// Err says, for a verdict that refuses, what is damaged and which ways on there are; it
// wraps ErrDamaged. It is nil for any other verdict.
func (v Verdict) Err() error {
	if v.Action != ActionRefuse {
		return nil
	}
	var b strings.Builder
	for _, r := range v.Rulings {
		if r.Action != ActionRefuse {
			continue
		}
		fmt.Fprintf(&b, "\n  %s: %s", r.Replica.ID(), r.Reason)
		for i, d := range r.Replica.Damage {
			if i == 4 {
				fmt.Fprintf(&b, "\n    and %d more", len(r.Replica.Damage)-i+r.Replica.More)
				break
			}
			fmt.Fprintf(&b, "\n    %s", d)
		}
	}
	var flags []string
	seen := map[string]bool{}
	for _, r := range v.Rulings {
		if o := r.Replica.Owner(); r.Action == ActionRefuse && o != "" && !seen[o] {
			seen[o] = true
			flags = append(flags, "--accept-damage "+o)
		}
	}
	b.WriteString("\nTwo ways on: restore a backup of the store; or")
	if len(flags) > 0 {
		b.WriteString(" start signet serve with " + strings.Join(flags, " ") + ": then what cannot be read is lost for good, and health says so")
	} else {
		b.WriteString(" replace this node")
	}
	return fmt.Errorf("%w:%s", ErrDamaged, b.String())
}

// sizeFromGroups: a stream whose configuration cannot be read does not say how many
// replicas it has; the name of its Raft group does.
func sizeFromGroups(replicas []Replica) {
	for i := range replicas {
		s := &replicas[i]
		if s.Group != "" || !s.unsure {
			continue
		}
		for k := range replicas {
			if g := &replicas[k]; g.Group != "" && g.Consumer == "" && g.Owner() == s.Owner() {
				s.Replicas = groupSize(g.Group)
			}
		}
	}
}
