package sparkplug

import (
	"math"
	"testing"
	"time"

	"sluice/sources"
)

// scanRig is an edge node whose hosts may set the scan rate, with somebody who
// sets what is asked for.
func scanRig(t *testing.T, change func(*Config)) (r *rig, asked *[]time.Duration) {
	asked = new([]time.Duration)
	r = newRig(t, func(c *Config) {
		c.ScanRate = &ScanRate{Min: time.Second, Max: time.Minute}
		if change != nil {
			change(c)
		}
	})
	r.node.o.ScanRate = func(_ string, every time.Duration) { *asked = append(*asked, every) }
	return r, asked
}

// rates returns what the messages of a kind say of the scan rate, in ms.
func (r *rig) rates(kind string) (all []int64) {
	for _, p := range r.wireOf(kind) {
		if m := metricOf(p, metricScanRate); m.Name != "" {
			v, err := m.Typed(Int64)
			if err != nil {
				r.t.Error(err)
			}
			all = append(all, v.AsInt64())
		}
	}
	return all
}

// TestNodeScanRate: what is within the bounds is asked for, everything else is
// refused, and the host is told at once what holds. Types and fields are as hosts
// are known to send them.
func TestNodeScanRate(t *testing.T) {
	at := func(d time.Duration) uint64 { return uint64(start.Add(d).UnixMilli()) }
	for name, c := range map[string]struct {
		m    Metric
		want []time.Duration
	}{
		"least":     {Metric{Datatype: Int64, Value: sources.Int64(1000)}, []time.Duration{time.Second}},
		"most":      {Metric{Datatype: Int64, Value: sources.Int64(60_000)}, []time.Duration{time.Minute}},
		"back":      {Metric{Datatype: Int64, Value: sources.Int64(0)}, []time.Duration{0}},
		"Int32":     {Metric{Datatype: Int32, Value: sources.Int64(5000)}, []time.Duration{5 * time.Second}},
		"UInt32":    {Metric{Datatype: UInt32, Value: sources.Uint64(5000)}, []time.Duration{5 * time.Second}},
		"Double":    {Metric{Datatype: Double, Value: sources.Float64(5000)}, []time.Duration{5 * time.Second}},
		"too short": {Metric{Datatype: Int64, Value: sources.Int64(999)}, nil},
		"too long":  {Metric{Datatype: Int64, Value: sources.Int64(60_001)}, nil},
		"negative":  {Metric{Datatype: Int64, Value: sources.Int64(-1000)}, nil},
		"huge":      {Metric{Datatype: Int64, Value: sources.Int64(math.MaxInt64/1_000_000 + 2)}, nil},
		"most huge": {Metric{Datatype: Int64, Value: sources.Int64(math.MaxInt64)}, nil},
		"fraction":  {Metric{Datatype: Double, Value: sources.Float64(5000.5)}, nil},
		"text":      {Metric{Datatype: String, Value: sources.String("5s")}, nil},
		"null":      {Metric{Datatype: Int64, Null: true}, nil},
		"old":       {Metric{Datatype: Int64, Timestamp: at(6 * time.Minute), Value: sources.Int64(5000)}, nil},
	} {
		r, asked := scanRig(t, nil)
		r.connect("a", "")
		c.m.Name, c.m.WithType = metricScanRate, true
		r.command("NCMD", "", c.m)
		if len(*asked) != len(c.want) || len(c.want) > 0 && (*asked)[0] != c.want[0] {
			t.Errorf("%s: %v was asked for", name, *asked)
		}
		answer := r.rates("NDATA")
		if refused := r.node.Stats().Refused == 1; refused == (c.want != nil) || refused != (len(answer) == 1 && answer[0] == 0) {
			t.Errorf("%s: refused %v, answered %v", name, refused, answer)
		}
		r.fit()
	}
}

// TestNodeScanRateHolds: the birth and the answer say what holds, after a rebirth
// and a new connection too; without leave there is no metric and no change.
func TestNodeScanRateHolds(t *testing.T) {
	r, asked := scanRig(t, nil)
	ask := func(ms int64) {
		r.command("NCMD", "", Metric{Name: metricScanRate, Datatype: Int64, Value: sources.Int64(ms)})
	}
	r.connect("a", "")
	ask(5000)
	r.node.SetScanRate(5 * time.Second)
	r.pump()
	ask(6000) // too soon
	r.now = r.now.Add(scanPause)
	ask(6000)
	r.askRebirth()
	r.node.SetScanRate(5 * time.Second)
	r.node.Anew() // births say it, too
	r.pump()
	r.node.SetScanRate(5 * time.Second)
	r.cut() // before it is said
	r.node.SetScanRate(7 * time.Second)
	r.connect("a", "")
	if got := r.rates("NBIRTH"); len(got) != 4 || got[0] != 0 || got[1] != 5000 || got[2] != 5000 || got[3] != 7000 {
		t.Errorf("the births say %v", got)
	}
	if got := r.rates("NDATA"); len(got) != 2 || got[0] != 5000 || got[1] != 5000 {
		t.Errorf("the answers are %v", got)
	}
	if len(*asked) != 2 || r.node.Stats().ScanRate != 7*time.Second {
		t.Errorf("asked for %v, the status says %v", *asked, r.node.Stats().ScanRate)
	}
	r.fit()

	r, asked = scanRig(t, func(c *Config) { c.ScanRate = nil })
	r.connect("a", "")
	ask(5000)
	if len(*asked) != 0 || len(r.rates("NBIRTH")) != 0 || len(r.rates("NDATA")) != 0 || r.node.Stats().Refused != 1 {
		t.Errorf("without leave: %v, births %v", *asked, r.rates("NBIRTH"))
	}
	r.fit()
}

// TestScanRateConfig: bounds that cannot be are named.
func TestScanRateConfig(t *testing.T) {
	for text, c := range map[string]ScanRate{
		"":      {time.Second, time.Hour},
		"min":   {time.Millisecond, time.Hour},
		"max":   {time.Second, 25 * time.Hour},
		"above": {time.Hour, time.Second},
	} {
		if problems := c.Validate(); len(problems) > 0 != (text != "") {
			t.Errorf("%+v: %v", c, problems)
		}
	}
}
