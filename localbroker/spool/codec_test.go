package spool

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

func randomRecord(rng *rand.Rand) mapping.Record {
	r := mapping.Record{Stamp: sources.Stamp{
		Wall: rng.Int64() >> rng.IntN(60), Mono: rng.Int64() >> rng.IntN(60), Trusted: rng.IntN(2) == 0,
	}}
	switch rng.IntN(8) {
	case 0:
		r.Message = &mapping.Message{
			Topic: "lan/x", Payload: bytes.Repeat([]byte{sync0, sync1}, rng.IntN(50)), QoS: byte(rng.IntN(3)), Retain: rng.IntN(2) == 0,
		}
		return r
	case 1:
		r.Drop = &mapping.Drop{Count: rng.Uint64(), Cause: mapping.DropCause(rng.IntN(7)), Points: rng.Uint32()}
		if rng.IntN(2) == 0 {
			r.Drop.From, r.Drop.To = time.Unix(0, rng.Int64()).UTC(), time.Unix(0, 5).UTC()
		}
		return r
	}
	values := []sources.Value{
		{}, sources.Bool(true), sources.Int64(-rng.Int64()), sources.Uint64(rng.Uint64()),
		sources.Float32(rng.Float32()), sources.Float64(rng.NormFloat64()), sources.String("ABB\x00é"),
		sources.Float64(float64(rng.IntN(1e6)) / 100), sources.Float64(math.NaN()), sources.Float64(math.Inf(-1)),
		sources.Float64(math.Copysign(0, -1)), sources.Float64(-12.5), sources.Float64(1e300), sources.Float64(0.1),
	}
	r.Point, r.Value = testPoints[rng.IntN(len(testPoints))], values[rng.IntN(len(values))]
	r.Quality, r.Reason = sources.Quality(rng.IntN(4)), sources.Reason(rng.IntN(256))
	return r
}

func TestBatchReadsBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var dec batchDecoder
	for range 5000 {
		recs := make([]mapping.Record, 1+rng.IntN(20))
		first := 1 + rng.Uint64N(1<<60)
		for i := range recs {
			recs[i] = randomRecord(rng)
			recs[i].Seq, recs[i].Scan = first+uint64(i), first
		}
		dict := newDictionary()
		b := appendBatch(nil, recs, first, 3, dict, 99)
		f, size, status := parseFrame(b, 99)
		if status != frameOK || size != len(b) {
			t.Fatal(status)
		}
		points, err := decodeDictionary(firstBody(appendDictionary(nil, dict.points, 0, 99)), nil, &interner{})
		if len(dict.points) > 0 && len(dict.points) <= pointsPerFrame && err != nil {
			t.Fatal(err)
		}
		if len(dict.points) > pointsPerFrame || len(points) == 0 {
			points = dict.points
		}
		dec.reset()
		if err := dec.decode(f.body, points); err != nil {
			t.Fatal(err)
		}
		for i := range recs {
			got, want := dec.recs[i], recs[i]
			if want.Message != nil && len(want.Message.Payload) == 0 {
				want.Message.Payload, got.Message.Payload = nil, nil
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v\nwant %+v", got, want)
			}
		}
	}
}

func firstBody(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b[frameHeaderSize:frameSize(b)]
}

func TestBytesOfATypicalSample(t *testing.T) {
	recs := meterPoll(benchPoints(50), 50)
	stampAll(recs, newClock().Now())
	b := appendBatch(nil, recs, 1<<30, 0, newDictionary(), 1)
	if per := float64(len(b)) / 50; per > 10 {
		t.Errorf("%.1f bytes a sample", per)
	}
}

func TestAppendAndReadAllocateNothingForASample(t *testing.T) {
	clock := newClock()
	s := mustOpen(t, t.TempDir(), testConfig(Memory), clock)
	c := mustCursor(t, s, "up")
	recs := meterPoll(benchPoints(1000), 1000)
	stampAll(recs, clock.Now())
	n := testing.AllocsPerRun(200, func() {
		mustAppend(t, s, recs)
		got := next(t, c, false, 1000)
		if err := c.Ack(got[0].Seq, got[len(got)-1].Seq); err != nil {
			t.Fatal(err)
		}
		s.evict()
	})
	if n > 10 {
		t.Errorf("%v allocations for 1,000 samples", n)
	}
	closeSpool(t, s)
}

func TestAckedSetEqualsAPlainSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	same := func(seq uint64) uint64 { return seq }
	for range 300 {
		a, plain := ackedSet{base: 1}, map[uint64]bool{}
		for range 60 {
			r := seqRange{first: 1 + rng.Uint64N(300)}
			r.last = r.first + rng.Uint64N(8)
			a.add(r, same)
			for s := r.first; s <= r.last; s++ {
				plain[s] = true
			}
			var b ackedSet
			if err := b.decode(a.append(nil)); err != nil || b.base != a.base || len(b.ranges) != len(a.ranges) {
				t.Fatalf("%+v read back as %+v, %v", a, b, err)
			}
			unacked := uint64(0)
			for s := uint64(1); s < 320; s++ {
				if (a.nextUnacked(s) == s) == plain[s] {
					t.Fatalf("seq %d: set says %v", s, !plain[s])
				}
				if !plain[s] {
					unacked++
				}
			}
			if got := a.unacked(seqRange{1, 319}); got != unacked {
				t.Fatalf("%d unacked, want %d", got, unacked)
			}
		}
	}
}

func TestAckedSetForgetsRatherThanLoses(t *testing.T) {
	a := ackedSet{base: 1}
	same := func(seq uint64) uint64 { return seq }
	for i := uint64(0); i < 1000; i++ {
		a.add(seqRange{10 + i*10, 12 + i*10}, same)
	}
	if len(a.ranges) != maxRanges || a.base != 1 {
		t.Errorf("%d ranges, base %d", len(a.ranges), a.base)
	}
	if b := a.append(nil); len(b) > maxPayload {
		t.Errorf("%d bytes do not fit a slot", len(b))
	}
}

func TestNewerVersionIsRefusedByName(t *testing.T) {
	dir, clock := t.TempDir(), newClock()
	s := mustOpen(t, dir, testConfig(Buffered), clock)
	mustAppend(t, s, poll(clock, 0, 5))
	closeSpool(t, s)
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	b[4] = formatVersion + 1
	end := frameHeaderSize + headerSize
	h := append([]byte(nil), b[:end]...)
	sealAs(h, formatVersion+1)
	copy(b, h)
	if err := os.WriteFile(names[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, testConfig(Buffered), clock, quiet)
	var newer *VersionError
	if !errors.As(err, &newer) || newer.Version != formatVersion+1 {
		t.Errorf("got %v", err)
	}
}

// sealAs is closeFrame for a version that this program does not write.
func sealAs(b []byte, version byte) {
	b[4] = version
	closeFrame(b, 0, 0)
}

func TestCursorNames(t *testing.T) {
	s := mustOpen(t, t.TempDir(), testConfig(Memory), newClock())
	for _, name := range []string{"", ".", "..", "a/b", ".x", "ü", strings.Repeat("a", 65)} {
		if _, err := s.Cursor(name); !errors.Is(err, ErrCursorName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	c := mustCursor(t, s, "up-1.a_B")
	if err := c.Ack(1, 1); !errors.Is(err, ErrAckRange) {
		t.Errorf("ack of nothing: %v", err)
	}
	closeSpool(t, s)
}

func TestDropCursorLetsSegmentsGo(t *testing.T) {
	clock, cfg, dir := newClock(), testConfig(Buffered), t.TempDir()
	s := mustOpen(t, dir, cfg, clock)
	c, _ := mustCursor(t, s, "up"), mustCursor(t, s, "gone")
	for i := range 3000 {
		mustAppend(t, s, poll(clock, i*20, 20))
	}
	drain(t, c)
	s.tick()
	before := s.Stats().Segments
	if err := s.DropCursor("gone"); err != nil {
		t.Fatal(err)
	}
	s.tick()
	if after := s.Stats().Segments; before < 3 || after > 1 {
		t.Errorf("%d segments before, %d after", before, after)
	}
	closeSpool(t, s)
	s = mustOpen(t, dir, cfg, clock)
	if got := s.Cursors(); len(got) != 1 {
		t.Errorf("cursors %v", got)
	}
	closeSpool(t, s)
}

func TestBackupMendsTheLog(t *testing.T) {
	for _, what := range []string{"bit", "gone", "cut", "gone while open"} {
		t.Run(what, func(t *testing.T) {
			clock, cfg, dir := newClock(), testConfig(SyncBackup), t.TempDir()
			cfg.Backup = t.TempDir()
			s := mustOpen(t, dir, cfg, clock)
			mustCursor(t, s, "up")
			for i := range 1000 {
				mustAppend(t, s, poll(clock, i*20, 20))
			}
			closeSpool(t, s)
			names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
			if err != nil || len(names) < 2 {
				t.Fatal(names, err)
			}
			b, err := os.ReadFile(names[0])
			if err != nil {
				t.Fatal(err)
			}
			hurt := func() {
				switch what {
				case "bit":
					b[len(b)/2] ^= 4
					err = os.WriteFile(names[0], b, 0o600)
				case "cut":
					err = os.Truncate(names[0], int64(len(b)/2))
				default:
					err = os.Remove(names[0])
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if what != "gone while open" {
				hurt()
			}
			s = mustOpen(t, dir, cfg, clock)
			if what == "gone while open" {
				hurt()
			}
			values, drops := drain(t, mustCursor(t, s, "up"))
			wantValues(t, values, upTo(0, 20000))
			if len(drops) > 0 || s.Stats().Restored != 1 {
				t.Errorf("drops %v, restored %d", drops, s.Stats().Restored)
			}
			closeSpool(t, s)
		})
	}
}

func TestForecastWords(t *testing.T) {
	for want, in := range map[string]struct {
		left time.Duration
		rate float64
	}{
		"9 d 4 h left, 310 MB/day":           {220 * time.Hour, 310e6},
		"5 h 30 min left, 2.2 GB/day":        {330 * time.Minute, 2.2e9},
		"nothing recorded yet":               {0, 0},
		"more than 100 years left, 20 B/day": {36500 * 24 * time.Hour, 20},
		"0 min left, 1.0 kB/day":             {0, 999.6},
	} {
		if got := forecast(in.left, in.rate); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzFrame(f *testing.F) {
	b := appendBatch(nil, poll(newClock(), 0, 3), 1, 0, newDictionary(), 5)
	f.Add(b)
	f.Add(appendDictionary(nil, testPoints, 0, 5))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, size, status := parseFrame(b, 5); status == frameOK && size > len(b) {
			t.Fatal("a frame beyond its bytes")
		}
		h := header{number: 1, salt: 5, first: 1}
		r := newSegmentReader(memFile(b), &segment{header: h}, int64(len(b)), &interner{})
		for range len(b) + 2 {
			if ev, err := r.step(); err != nil || ev == eventEnd {
				return
			}
		}
		t.Fatal("the reader does not come to an end")
	})
}

func FuzzBodies(f *testing.F) {
	dict := newDictionary()
	f.Add(firstBody(appendBatch(nil, poll(newClock(), 0, 3), 1, 0, dict, 5)))
	f.Add(firstBody(appendDictionary(nil, testPoints, 0, 5)))
	head := header{number: 1, salt: 5, first: 1}
	f.Add((&footer{header: head, last: 2}).append(nil)[frameHeaderSize:])
	f.Add((&state{reserved: 5, lost: []lost{{seqs: seqRange{1, 2}, count: 2}}}).append(nil))
	f.Add((&ackedSet{base: 3, ranges: []seqRange{{5, 6}}}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var dec batchDecoder
		if dec.decode(b, testPoints) == nil {
			first, count, ok := peekBatch(b)
			if !ok || uint64(len(dec.recs)) != count || dec.recs[0].Seq != first {
				t.Fatal("a batch that does not hold what it says")
			}
		}
		_, _ = decodeDictionary(b, nil, &interner{}) // must only not panic
		var foot footer
		_ = foot.decode(b)
		var st state
		if st.decode(b) == nil && len(st.append(nil)) != len(b) {
			t.Fatal("state does not read back")
		}
		a := ackedSet{}
		if a.decode(b) == nil {
			a.add(seqRange{a.base + 1, a.base + 2}, func(s uint64) uint64 { return s })
		}
	})
}

func FuzzCursorFile(f *testing.F) {
	f.Add(appendSlot(nil, cursorMagic, 3, (&ackedSet{base: 9}).append(nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
		fsys.now["/log/cursors/up.cursor"] = &inode{data: b}
		s, err := open("/log", testConfig(Buffered), newClock(), quiet, fsys)
		if err != nil {
			t.Fatal(err)
		}
		closeSpool(t, s)
	})
}
