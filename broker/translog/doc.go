// Package translog keeps the log of streams (signing/tlog): it reads what a stream has
// stored, grows the tree, and publishes tiles and signed checkpoints.
//
// One node writes a log at a time: the one that leads the stream. That alone would not
// do, since a node that was paused does not know that it leads no more. So every tile and
// every checkpoint is published with the sequence of the one before it on its subject
// (Nats-Expected-Last-Subject-Sequence), and a writer whose condition fails has lost the
// log: it forgets what it knows and begins again from what is stored, if it still leads.
// A checkpoint counts, and is shown to anybody, only once it was acknowledged; its subject
// has one next checkpoint only, so a log never forks. LOG keeps the last checkpoint of each
// log; once a minute it also goes to AUDIT, where it stays, and to the sink.
//
// Tiles come first, then the checkpoint that names them. A writer that takes a log over
// reads the last checkpoint and its tiles, and goes on only if they are those of the
// root, and the last events before it are in the stream as the log has them. Otherwise
// the log stands still and says so: Service.States, until somebody has looked.
//
// Goroutines: one for each log, from Service.Set to Service.Shutdown, and one for
// the sink. Service.mu guards the set of logs, log.mu what is known about one; neither is
// held over a request.
package translog
