package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/localbroker/spool"
)

// dirtied is how many bytes this process has sent towards the disk.
func dirtied(b *testing.B) (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip("no /proc/self/io")
	}
	_, rest, _ := strings.Cut(string(text), "\nwrite_bytes: ")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkApply is one change of a small record, with 1,000 subscriptions and
// 1,000 retained messages in the state, alone and from 64 goroutines.
func BenchmarkApply(b *testing.B) {
	for _, level := range durable {
		for _, parallel := range []int{1, 64} {
			b.Run(fmt.Sprint(level, "/", parallel), func(b *testing.B) {
				s := mustOpen(b, b.TempDir(), config(b, level))
				for i := range 1000 {
					mustApply(b, s, PutSubscription(Subscription{ClientID: fmt.Sprint("c", i%50), Filter: fmt.Sprint("site/meter/", i)}),
						PutRetained(Retained{Topic: fmt.Sprint("site/meter/", i), Payload: make([]byte, 40)}))
				}
				before, commits := dirtied(b), s.Stats().Commits
				b.SetParallelism(parallel / 2)
				if parallel == 1 {
					for i := range b.N {
						mustApply(b, s, PutReceived("c1", uint16(i)), DeleteReceived("c1", uint16(i-10)))
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for i := 0; pb.Next(); i++ {
							mustApply(b, s, PutReceived("c1", uint16(i)), DeleteReceived("c1", uint16(i-10)))
						}
					})
				}
				b.ReportMetric(float64(dirtied(b)-before)/float64(b.N), "written-B/op")
				b.ReportMetric(float64(s.Stats().Commits-commits), "commits")
				closeStore(b, s)
			})
		}
	}
}

// BenchmarkOpen is a start with 10,000 retained messages of 100 bytes.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := mustOpen(b, dir, Config{Level: spool.Buffered})
	for i := range 10_000 {
		mustApply(b, s, PutRetained(Retained{Topic: fmt.Sprint("site/meter/", i), Payload: make([]byte, 100)}))
	}
	closeStore(b, s)
	for b.Loop() {
		s := mustOpen(b, dir, Config{Level: spool.Buffered})
		if err := s.LoadRetained(func(Retained) error { return nil }); err != nil {
			b.Fatal(err)
		}
		closeStore(b, s)
	}
	b.SetBytes(int64(len(readFile(b, filepath.Join(dir, fileName)))))
}
