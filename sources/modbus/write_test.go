package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/link"
	"sluice/sources/register"
)

// writableLine is a fakeLine whose registers can be written with FC 6.
type writableLine struct {
	*fakeLine
	held    map[uint16]uint16
	writes  []time.Time
	longest time.Duration // of a write request
	fail    error         // of the next writes
	late    int           // so many reads still show the old value
	taken   bool          // a write that fails is taken all the same

	unreadable bool // reads of one register are refused
}

func (l *writableLine) Do(ctx context.Context, unit uint8, request []byte, timeout time.Duration) ([]byte, error) {
	if !l.concurrent.TryLock() {
		panic("two requests at once")
	}
	defer l.concurrent.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	begun := time.Now()
	l.writes = append(l.writes, begun)
	l.sleep(16*l.char + 2*l.silent + l.units[unit].think)
	l.longest = max(l.longest, time.Since(begun))
	if l.fail == nil || l.taken {
		l.held[binary.BigEndian.Uint16(request[1:])] = binary.BigEndian.Uint16(request[3:])
	}
	return request, l.fail
}

func (l *writableLine) Read(ctx context.Context, unit uint8, t register.Table, addr, quantity uint16,
	timeout time.Duration) ([]byte, error) {
	data, err := l.fakeLine.Read(ctx, unit, t, addr, quantity, timeout)
	if err != nil {
		return nil, err
	}
	if l.unreadable && quantity == 1 {
		return nil, &link.Exception{Function: 3, Code: 2}
	}
	if l.late > 0 && quantity == 1 {
		l.late--
		return data, nil
	}
	for i := range quantity {
		if v, ok := l.held[addr+i]; ok {
			binary.BigEndian.PutUint16(data[2*i:], v)
		}
	}
	return data, nil
}

// writeBench runs a bus of units with 10 points each for d, the first point of
// each writable, while during runs.
func writeBench(t *testing.T, units int, d time.Duration, prepare func(*writableLine, []Device), during func(*Bus)) (*writableLine, *counter) {
	t.Helper()
	devices, fakes := tenUnits(10, 2*time.Second, 0)
	devices = devices[:units]
	for i := range devices {
		devices[i].Points[0].Write = &Writing{ReadBack: time.Second}
	}
	line := &writableLine{fakeLine: serial9600(fakes), held: map[uint16]uint16{}}
	if prepare != nil {
		prepare(line, devices)
	}
	count := newCounter(t)
	bus, err := New(Config{Name: "bus", Link: line, Line: SerialLine(9600, 10, "8N1"), Devices: devices, Clock: fakeClock{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextFor(t, d)
	defer cancel()
	done := make(chan error)
	go func() { done <- bus.Run(ctx, count.deliver) }()
	if during != nil {
		during(bus)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return line, count
}

// polls returns when the reads of quantity registers of a unit began.
func (u *fakeUnit) polls(quantity uint16) (all []time.Duration) {
	for _, s := range u.seen {
		if s.quantity == quantity {
			all = append(all, s.at.Sub(u.seen[0].at))
		}
	}
	return all
}

// TestWritesDelayNoPollByMoreThanOneRequest: with 10,000 writes, one behind the
// other, every poll begins at most one request later than without any, and no
// value is sent twice.
func TestWritesDelayNoPollByMoreThanOneRequest(t *testing.T) {
	t.Run("one request a poll", func(t *testing.T) { delays(t, 10000, 10, nil) })
	// Four requests a poll, pauses between them, and polls that wait for each other.
	t.Run("four requests with pauses", func(t *testing.T) {
		delays(t, 2000, 2, func(_ *writableLine, devices []Device) {
			for i := range devices {
				devices[i].Points = devices[i].Points[:4]
				devices[i].Pause, devices[i].Quirks.OneByOne = 30*time.Millisecond, true
				for k := range devices[i].Points[1:] {
					devices[i].Points[k+1].Type = register.Uint32
				}
			}
		})
	})
}

// delays compares when the reads of polls, of quantity registers each, begin with
// and without writes.
func delays(t *testing.T, count int, quantity uint16, prepare func(*writableLine, []Device)) {
	const units = 6
	synctest.Test(t, func(t *testing.T) {
		d := 20 * time.Minute
		quiet, _ := writeBench(t, units, d, prepare, nil)
		written := 0
		busy, _ := writeBench(t, units, d, prepare, func(b *Bus) {
			time.Sleep(5 * time.Second) // after the first round, which comes in a bunch
			for i := range count {
				w := sources.Write{Point: uint32(1000 * (i % units)), Value: sources.Uint64(uint64(i))}
				back, err := b.Write(t.Context(), w)
				if err != nil || back.AsUint64() != uint64(i) {
					t.Fatalf("write %d: %v, %v", i, back, err)
				}
				written++
			}
		})
		if written != count || len(busy.writes) != count {
			t.Errorf("%d writes done, %d requests, want %d", written, len(busy.writes), count)
		}
		worst, total := time.Duration(0), 0
		for id := range uint8(units) {
			want, got := quiet.units[id+1].polls(quantity), busy.units[id+1].polls(quantity)
			if len(want)-len(got) > 9 { // the last may be under way at the end
				t.Errorf("unit %d: %d polls, %d without writes", id+1, len(got), len(want))
			}
			for k := range min(len(got), len(want)) {
				worst = max(worst, got[k]-want[k])
				total++
			}
		}
		t.Logf("worst delay of %d polls %v, longest request of a write %v", total, worst, busy.longest)
		if worst > busy.longest+time.Millisecond {
			t.Errorf("a poll was %v late, a request takes %v", worst, busy.longest)
		}
		if worst == 0 {
			t.Error("no poll was ever delayed: the test shows nothing")
		}
	})
}

// TestWriteOnAnOverloadedBus: writes get through where a poll is always due.
func TestWriteOnAnOverloadedBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		prepare := func(_ *writableLine, devices []Device) {
			for i := range devices {
				devices[i].Quirks.OneByOne = true
			}
		}
		writeBench(t, 6, time.Minute, prepare, func(b *Bus) {
			time.Sleep(20 * time.Second)
			for i := range 10 {
				begun := time.Now()
				if _, err := b.Write(t.Context(), sources.Write{Point: 0, Value: sources.Uint64(uint64(i))}); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begun); took > 2*writePatience+200*time.Millisecond {
					t.Errorf("a write took %v", took)
				}
			}
			if b.Stats().Devices[0].Groups[0].Missed == 0 {
				t.Error("the bus is not overloaded: the test shows nothing")
			}
		})
	})
}

// TestWriteOutcomes: what is told to the caller, and how often the value was
// sent.
func TestWriteOutcomes(t *testing.T) {
	failure := func(r sources.Reason, sent bool) error { return &sources.WriteError{Reason: r, Sent: sent} }
	cases := map[string]struct {
		prepare func(*writableLine, []Device)
		point   uint32
		want    error
		back    uint64
		sends   int
	}{
		"done":           {nil, 0, nil, 7, 1},
		"shown late":     {func(l *writableLine, _ []Device) { l.late = 3 }, 0, nil, 7, 1},
		"unreadable":     {func(l *writableLine, _ []Device) { l.unreadable = true }, 0, sources.ErrReadback, 0, 1},
		"never shown":    {func(l *writableLine, _ []Device) { l.late = 1000 }, 0, sources.ErrReadback, 0, 1},
		"no read-back":   {func(l *writableLine, d []Device) { d[0].Points[0].Write.ReadBack = 0; l.late = 1000 }, 0, nil, 0, 1},
		"read only":      {nil, 1, sources.ErrNotWritable, 0, 0},
		"no such point":  {nil, 99999, sources.ErrNotWritable, 0, 0},
		"exception":      {func(l *writableLine, _ []Device) { l.fail = &link.Exception{Function: 6, Code: 3} }, 0, failure(sources.ReasonException(3), true), 0, 1},
		"busy":           {func(l *writableLine, _ []Device) { l.fail = &link.Exception{Function: 6, Code: 6} }, 0, failure(sources.ReasonException(6), true), 0, 1},
		"lost reply":     {func(l *writableLine, _ []Device) { l.fail, l.taken = link.ErrTimeout, true }, 0, nil, 7, 1},
		"lost request":   {func(l *writableLine, _ []Device) { l.fail = link.ErrTimeout }, 0, failure(sources.ReasonTimeout, true), 0, 1},
		"device offline": {func(l *writableLine, _ []Device) { l.units[1].dead = true }, 0, failure(sources.ReasonTimeout, false), 0, 0},
		"line away":      {func(l *writableLine, _ []Device) { l.broken = true }, 0, failure(sources.ReasonNotConnected, false), 0, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var back sources.Value
				var err error
				line, _ := writeBench(t, 2, time.Minute, c.prepare, func(b *Bus) {
					time.Sleep(20 * time.Second)
					back, err = b.Write(t.Context(), sources.Write{Point: c.point, Value: sources.Uint64(7)})
				})
				var wrong, want *sources.WriteError
				same := errors.Is(err, c.want)
				if errors.As(c.want, &want) {
					same = errors.As(err, &wrong) && *wrong == *want
				}
				if !same {
					t.Errorf("error %v, want %v", err, c.want)
				}
				if back.AsUint64() != c.back {
					t.Errorf("value %v read back, want %d", back, c.back)
				}
				if len(line.writes) != c.sends {
					t.Errorf("sent %d times, want %d", len(line.writes), c.sends)
				}
			})
		})
	}
}

// TestWrittenValueIsDelivered: what was read back is a sample at once.
func TestWrittenValueIsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var before int
		_, count := writeBench(t, 1, 3*time.Second, nil, func(b *Bus) {
			time.Sleep(2500 * time.Millisecond)
			b.mu.Lock()
			deliver := b.deliver
			b.deliver = func(s []sources.Sample) error {
				if len(s) == 1 && s[0].Value.AsUint64() == 42 && s[0].Quality == sources.Good {
					before++
				}
				return deliver(s)
			}
			b.mu.Unlock()
			if _, err := b.Write(t.Context(), sources.Write{Point: 0, Value: sources.Uint64(42)}); err != nil {
				t.Error(err)
			}
		})
		if before != 1 || count.calls == 0 {
			t.Errorf("the value was delivered %d times, want once", before)
		}
	})
}

// TestWriteWithdrawn: a write whose context ends before its turn is never sent,
// too many that wait are refused, and those that wait at the end are told.
func TestWriteWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line, _ := writeBench(t, 1, 10*time.Second, func(l *writableLine, d []Device) { d[0].Pause = time.Hour }, func(b *Bus) {
			time.Sleep(5 * time.Second) // the device pauses: nothing goes out
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			go func() { _, _ = b.Write(t.Context(), sources.Write{Point: 0, Value: sources.Uint64(1)}) }()
			synctest.Wait()
			if _, err := b.Write(ctx, sources.Write{Point: 0, Value: sources.Uint64(1)}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("withdrawn: %v", err)
			}
			errs := make(chan error, mostWrites+1)
			for range mostWrites + 1 {
				go func() {
					_, err := b.Write(t.Context(), sources.Write{Point: 0, Value: sources.Uint64(1)})
					errs <- err
				}()
			}
			synctest.Wait()
			if err := <-errs; !errors.Is(err, sources.ErrBusy) {
				t.Errorf("one too many: %v", err)
			}
			for range mostWrites {
				var failed *sources.WriteError
				if err := <-errs; !errors.As(err, &failed) || failed.Reason != sources.ReasonShutdown || failed.Sent {
					t.Errorf("at the end: %v", err)
				}
			}
			if _, err := b.Write(t.Context(), sources.Write{Point: 0, Value: sources.Uint64(1)}); err == nil {
				t.Error("a write after the end was taken")
			}
		})
		if len(line.writes) != 0 {
			t.Errorf("%d writes were sent", len(line.writes))
		}
	})
}
