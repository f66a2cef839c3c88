package doctor

import "time"

// Pair is where a figure becomes a warning and where it becomes critical. 0 means
// never.
type Pair struct{ Warning, Critical float64 }

// Thresholds of the checks.
type Thresholds struct {
	DiskFree    Pair // percent of the volume that is free; below is worse. Default 20, 10
	Expiry      Pair // seconds until a certificate, keyring or key expires; below is worse. Default 30 days, 7 days
	Full        Pair // percent of a stream's, tenant's or dead-letter stream's bytes; default 80, 95
	Unread      Pair // percent of its age limit that an event has which a consumer has not read; default 80, 95
	Stuck       Pair // seconds in which a consumer with events to do has finished none; default 15 min, 1 h
	Redelivered Pair // events of one consumer that are delivered again and again; default 10, 1000
	DeadLetters Pair // dead letters of the tenant; default 1, never
	Refusals    Pair // refusals of one code within RefusalWindow; default 100, 10000
	RoundTrip   Pair // seconds of one admin request; default 0.25, 2
	Clock       Pair // seconds between the clocks of this machine and of the broker; default 2, 30
	OpenFiles   Pair // percent of the file descriptors that the broker may have; default 80, 95
	LogBehind   Pair // seconds that something stored waits for a checkpoint of its log; default 10, 60
	// RefusalWindow is how far back refusals count. Default 10 min.
	RefusalWindow time.Duration
}

// DefaultThresholds returns the defaults.
func DefaultThresholds() Thresholds {
	const day = 24 * 3600
	return Thresholds{
		DiskFree: Pair{20, 10}, Expiry: Pair{30 * day, 7 * day}, Full: Pair{80, 95}, Unread: Pair{80, 95},
		Stuck: Pair{15 * 60, 3600}, Redelivered: Pair{10, 1000}, DeadLetters: Pair{1, 0}, Refusals: Pair{100, 10_000},
		RoundTrip: Pair{0.25, 2}, Clock: Pair{2, 30}, OpenFiles: Pair{80, 95}, LogBehind: Pair{10, 60}, RefusalWindow: 10 * time.Minute,
	}
}
