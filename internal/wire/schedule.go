package wire

import "strings"

// Schedules: what publishes an event again and again (docs/spec/policy.md). All of this is
// the broker's: no client can publish to these subjects, nor read the stream.
const (
	// StreamSchedules is the stream of a tenant with its schedules, and with their firings
	// until each is published. The policy's grammar reserves the name.
	StreamSchedules = "SIGNET_SCHEDULES"
	// PrefixSchedule is before <principal>.<name>: one schedule.
	PrefixSchedule = "$SIGNET.SCHEDULE."
	// PrefixFiring is before <principal>.<name>: that the moment of a schedule has come.
	PrefixFiring = "$SIGNET.FIRING."
)

// ScheduleSubject is where a schedule is stored. An empty principal or name is the wildcard
// of all.
func ScheduleSubject(principal, name string) string { return PrefixSchedule + owned(principal, name) }

// FiringSubject is where the firings of a schedule are stored. Empty names are as in
// ScheduleSubject.
func FiringSubject(principal, name string) string { return PrefixFiring + owned(principal, name) }

func owned(principal, name string) string {
	if principal == "" {
		principal = "*"
	}
	if name == "" {
		name = "*"
	}
	return principal + "." + name
}

// ScheduleOf takes the subject of a schedule or of a firing apart.
func ScheduleOf(subject string) (principal, name string, ok bool) {
	rest, found := strings.CutPrefix(subject, PrefixSchedule)
	if !found {
		rest, found = strings.CutPrefix(subject, PrefixFiring)
	}
	principal, name, ok = strings.Cut(rest, ".")
	return principal, name, found && ok && principal != "" && name != "" && !strings.Contains(name, ".")
}
