package translog

import (
	"syscall"
	"testing"
	"time"
)

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLog reads a stored stream and logs it, the server's work included: CPU time
// of the whole process per event.
func BenchmarkLog(b *testing.B) {
	r := newRig(b)
	n := max(b.N, 1000)
	r.publish(0, n)
	s, err := New(r.config())
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	before := cpu(b)
	s.Set([]Source{orders})
	awaitSize(b, s, int64(n))
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(n), "cpu-ns/event")
	if err := s.Shutdown(b.Context()); err != nil {
		b.Fatal(err)
	}
}
