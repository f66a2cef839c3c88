// Package diskguard watches how full the volume of the store is: it decides between
// room, a soft and a hard watermark and full, with hysteresis, so that the broker can
// refuse with a clear error before the store meets "no space left on device", after
// which JetStream takes nothing more until it is started again.
//
// The decision (Marks.Next) is pure. What is known of a volume comes from one
// function, statfs on Linux, macOS and FreeBSD; elsewhere it says ErrUnsupported, and
// there is no guard. A Guard has no goroutine: its owner calls Look, as often as
// Reading.LookAgain asks for, and anybody may read the latest Reading.
package diskguard
