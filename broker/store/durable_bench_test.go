package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/internal/embed"
)

// BenchmarkDurablePublish is 64 publishers that each wait until one event of 256
// bytes is on stable storage: by the barrier, and by the server's own SyncAlways.
func BenchmarkDurablePublish(b *testing.B) {
	for _, always := range []bool{false, true} {
		name := "barrier"
		if always {
			name = "sync-always"
		}
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			server, err := embed.Start(b.Context(), embed.Config{
				StoreDir: dir, ServerName: "bench", SyncAlways: always,
				Tenants: []embed.TenantAccount{{Name: "shop", MaxBytes: 2 << 30}},
			})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if err := server.Shutdown(ctx); err != nil {
					b.Error(err)
				}
			}()
			wait := func(context.Context) error { return nil }
			if !always {
				barrier, err := NewBarrier(dir)
				if errors.Is(err, ErrUnsupported) {
					b.Log(err)
					return
				}
				if err != nil {
					b.Fatal(err)
				}
				defer barrier.Close()
				wait = barrier.Wait
			}
			nc, err := Internal(server)("shop")
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			js, err := jetstream.New(nc)
			if err != nil {
				b.Fatal(err)
			}
			ctx := b.Context()
			if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, MaxBytes: 1 << 30}); err != nil {
				b.Fatal(err)
			}
			payload := make([]byte, 256)
			b.SetParallelism(32)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := js.Publish(ctx, "s", payload); err != nil {
						b.Error(err)
						return
					}
					if err := wait(ctx); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
