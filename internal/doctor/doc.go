// Package doctor examines a broker: its configuration folder before a start, and a
// running one through the admin API and the operations port. Each check gives
// findings with an identifier that stays, a severity of Nagios, a figure with its
// thresholds, and the command that repairs.
//
// The judgements are functions of facts and thresholds; what asks a broker or reads
// files is apart from them (Offline, Online, Scrape). It changes nothing, needs no
// right beyond the admin grants status, keys and refusals, and puts no secret into a
// finding: files are named, never quoted.
//
// Errors of what is examined are findings, not errors. All functions are safe for
// concurrent use.
package doctor
