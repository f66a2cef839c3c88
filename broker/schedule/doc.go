// Package schedule publishes events again and again, by cron expressions and intervals.
//
// A schedule is one message of the stream wire.StreamSchedules, and nats-server keeps its
// time: at each moment it copies the message to a subject of the same stream, a firing, which
// no client can write or read. All nodes share one consumer of the firings. Who gets one reads
// the schedule anew and publishes its event as the principal that put it, through the whole
// admission of that moment: the firing itself says nothing but which schedule, and when. The
// id of the event follows from the schedule and the moment, so a firing that comes twice is
// stored once.
//
// A Book puts and takes away schedules; a Runner works the firings. Both are safe for
// concurrent use, also on several nodes at once. Format: docs/spec/policy.md, "Schedules".
package schedule
