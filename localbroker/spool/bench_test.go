package spool

import (
	"fmt"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// meterPoll makes n samples as a meter gives them: floats of a few digits.
func meterPoll(points []*mapping.Point, n int) []mapping.Record {
	recs := make([]mapping.Record, n)
	for i := range recs {
		v := sources.Float32(231.4 + float32(i)/7)
		if i%2 == 1 {
			v = sources.Float64(float64(2314+i) / 10)
		}
		recs[i] = mapping.Record{Point: points[i], Value: v, Quality: sources.Good}
	}
	return recs
}

func benchPoints(n int) []*mapping.Point {
	ps := make([]*mapping.Point, n)
	for i := range ps {
		ps[i] = &mapping.Point{
			Site: "north", Device: fmt.Sprintf("meter%d", i/50), Name: fmt.Sprintf("active_power_l%d", i%50), Unit: "W",
			Kind: sources.KindFloat32,
		}
	}
	return ps
}

func stampAll(recs []mapping.Record, st sources.Stamp) {
	for i := range recs {
		recs[i].Stamp = st
	}
}

func benchmarkAppend(b *testing.B, n int) {
	clock, cfg := newClock(), testConfig(Buffered)
	cfg.SegmentSize, cfg.Max = defaultSegmentSize, 32<<20
	s := mustOpen(b, b.TempDir(), cfg, clock)
	recs := meterPoll(benchPoints(n), n)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		clock.pass(time.Second)
		stampAll(recs, clock.Now())
		if err := s.Append(recs); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Sync(); err != nil {
		b.Fatal(err)
	}
	samples := float64(b.N * n)
	st := s.Stats()
	b.ReportMetric(samples/b.Elapsed().Seconds(), "samples/s")
	b.ReportMetric(float64(st.Written)/samples, "B-written/sample")
	closeSpool(b, s)
}

func BenchmarkAppend10(b *testing.B)   { benchmarkAppend(b, 10) }
func BenchmarkAppend100(b *testing.B)  { benchmarkAppend(b, 100) }
func BenchmarkAppend1000(b *testing.B) { benchmarkAppend(b, 1000) }

func BenchmarkDrain(b *testing.B) {
	const n, rounds = 100, 10000
	clock, cfg, dir := newClock(), testConfig(Buffered), b.TempDir()
	cfg.SegmentSize, cfg.Max = defaultSegmentSize, 64<<20
	s := mustOpen(b, dir, cfg, clock)
	c := mustCursor(b, s, "up")
	recs := meterPoll(benchPoints(n), n)
	for range rounds {
		clock.pass(time.Second)
		stampAll(recs, clock.Now())
		mustAppend(b, s, recs)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if err := c.Rewind(false); err != nil {
			b.Fatal(err)
		}
		for got := 0; got < n*rounds; {
			got += len(next(b, c, false, 1000))
		}
	}
	b.ReportMetric(float64(b.N*n*rounds)/b.Elapsed().Seconds(), "samples/s")
	closeSpool(b, s)
}

// BenchmarkDay shows what a day writes to disk at each level, with a healthy
// link that acknowledges within half a second, and with none.
func BenchmarkDay(b *testing.B) {
	for _, level := range allLevels {
		for _, points := range []int{50, 1000} {
			for _, link := range []string{"up", "down"} {
				b.Run(fmt.Sprintf("%s/%d/link-%s", level, points, link), func(b *testing.B) { benchmarkDay(b, level, points, link == "up") })
			}
		}
	}
}

// benchmarkDay records ten minutes in polls of up to 50 points and reports
// bytes a day.
func benchmarkDay(b *testing.B, level Level, points int, up bool) {
	clock, cfg := newClock(), testConfig(level)
	cfg.SegmentSize, cfg.Max, cfg.Backup = defaultSegmentSize, 256<<20, b.TempDir()
	all := benchPoints(points)
	for b.Loop() {
		s := mustOpen(b, b.TempDir(), cfg, clock)
		c := mustCursor(b, s, "up")
		const seconds = 600
		for range seconds {
			for at := 0; at < points; at += 50 {
				recs := meterPoll(all[at:at+50], 50)
				stampAll(recs, clock.Now())
				mustAppend(b, s, recs)
			}
			clock.pass(time.Second)
			if up {
				for {
					recs := next(b, c, false, 1000)
					if len(recs) == 0 {
						break
					}
					if err := c.Ack(recs[0].Seq, recs[len(recs)-1].Seq); err != nil {
						b.Fatal(err)
					}
				}
			}
			s.tick()
		}
		st := s.Stats()
		b.ReportMetric(float64(st.Written)/seconds*86400/1e6, "MB/day")
		b.ReportMetric(float64(st.Written)/float64(seconds*points), "B/sample")
		b.ReportMetric(float64(st.Syncs)/seconds, "syncs/s")
		closeSpool(b, s)
	}
}
