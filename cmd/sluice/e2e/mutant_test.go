package e2e

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/mapping"
	"sluice/publish"
)

// eager is a mutant that takes every record as delivered when it is read, long
// before its PUBACK.
type eager struct{ publish.Log }

func (m eager) Next(ctx context.Context, live bool, max int) ([]mapping.Record, error) {
	recs, err := m.Log.Next(ctx, live, max)
	if err == nil {
		err = m.Ack(recs[0].Seq, recs[len(recs)-1].Seq)
	}
	return recs, err
}

// forgetful is a mutant whose acknowledgements are not kept.
type forgetful struct{ publish.Log }

func (forgetful) Ack(uint64, uint64) error { return nil }

// shuffler is a mutant that exchanges the first and the last poll it reads.
type shuffler struct {
	publish.Log
	points int
}

func (m shuffler) Next(ctx context.Context, live bool, max int) ([]mapping.Record, error) {
	recs, err := m.Log.Next(ctx, live, max)
	for i := 0; i < m.points && len(recs) >= 2*m.points; i++ {
		a, b := &recs[i], &recs[len(recs)-m.points+i]
		a.Value, b.Value, a.Stamp, b.Stamp = b.Value, a.Value, b.Stamp, a.Stamp
	}
	return recs, err
}

// late is a mutant that stamps samples when they are sent.
type late struct{ publish.Log }

func (m late) Next(ctx context.Context, live bool, max int) ([]mapping.Record, error) {
	recs, err := m.Log.Next(ctx, live, max)
	for i := range recs {
		recs[i].Stamp.Wall = time.Now().UnixNano()
	}
	return recs, err
}

// careless is a mutant that loses a value now and then and acknowledges it.
type careless struct {
	publish.Log
	reads *atomic.Int64
}

func (m careless) Next(ctx context.Context, live bool, max int) ([]mapping.Record, error) {
	recs, err := m.Log.Next(ctx, live, max)
	if m.reads.Add(1)%100 == 0 && len(recs) > 1 {
		recs[0].Point = recs[1].Point
	}
	return recs, err
}

// TestMutantsAreCaught proves that the ledger sees what it is there for: it
// has nothing to say about the gateway, and the right thing about each mutant.
func TestMutantsAreCaught(t *testing.T) {
	const points = 10
	tests := map[string]struct {
		wrap func(publish.Log) publish.Log
		want string // in a violation; empty: there must be none
	}{
		"none":                       {func(l publish.Log) publish.Log { return l }, ""},
		"acknowledges before PUBACK": {func(l publish.Log) publish.Log { return eager{l} }, "the first missing are meter"},
		"forgets acknowledgements":   {func(l publish.Log) publish.Log { return forgetful{l} }, "messages repeated over"},
		"changes the order":          {func(l publish.Log) publish.Log { return shuffler{l, points} }, "behind poll"},
		"stamps at sending":          {func(l publish.Log) publish.Log { return late{l} }, "off"},
		"loses single values":        {func(l publish.Log) publish.Log { return careless{l, new(atomic.Int64)} }, "the first missing are meter"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlant(t, points, "json-device")
				p.wrap, p.up.Drain, p.up.Window = test.wrap, "60/s", 20
				p.far.rtt = 400 * time.Millisecond
				p.start()
				time.Sleep(time.Minute)
				p.far.cutAll(true)
				time.Sleep(20 * time.Minute)
				p.far.cutAll(false)
				p.flap(10)
				time.Sleep(time.Minute)
				p.giveUp()
				found := strings.Join(p.ledger.judge(0, p.dropped, p.up.Window), "\n")
				t.Log(found)
				if test.want == "" && found != "" || !strings.Contains(found, test.want) {
					t.Errorf("want %q", test.want)
				}
			})
		})
	}
}
