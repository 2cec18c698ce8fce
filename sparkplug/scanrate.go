package sparkplug

import (
	"fmt"
	"time"

	"sluice/configs"
	"sluice/mapping"
	"sluice/sources"
)

// ScanRate are the bounds within which hosts may set how often the devices of an
// edge node are polled.
type ScanRate struct {
	// Min and Max are the shortest and the longest interval, 100ms to 24h.
	Min time.Duration `yaml:"min"`
	Max time.Duration `yaml:"max"`
}

var (
	_ configs.Defaulter = (*ScanRate)(nil)
	_ configs.Validator = (*ScanRate)(nil)
)

// SetDefaults sets what a site file need not say.
func (c *ScanRate) SetDefaults() { c.Min, c.Max = time.Second, time.Hour }

// Validate returns every problem that shows without connecting.
func (c *ScanRate) Validate() []configs.FieldError {
	const low, high = 100 * time.Millisecond, 24 * time.Hour
	for field, d := range map[string]time.Duration{"min": c.Min, "max": c.Max} {
		if d < low || d > high {
			return []configs.FieldError{{Field: field, Message: fmt.Sprintf("%v is out of range", d), Fix: "choose from 100ms to 24h"}}
		}
	}
	if c.Min > c.Max {
		return []configs.FieldError{{Field: "min", Message: "min is above max", Fix: "swap them"}}
	}
	return nil
}

// Allows reports whether d may hold; 0, the intervals of the site file, always may.
// A nil ScanRate allows nothing else.
func (c *ScanRate) Allows(d time.Duration) bool {
	return d == 0 || c != nil && d >= c.Min && d <= c.Max
}

// scanPause is the least time between two changes of the scan rate: each is a line
// of the audit log, which they must not push out.
const scanPause = 10 * time.Second

// scanRateMetric says how often the devices are polled, in milliseconds as hosts
// expect; 0: as the site file says.
func (n *Node) scanRateMetric(at uint64, inBirth bool) Metric {
	return Metric{Name: metricScanRate, Timestamp: at, Datatype: Int64, WithType: inBirth || n.cfg.DatatypeInData,
		Value: sources.Int64(n.scanRate.Milliseconds())}
}

// askScanRate hands the interval that a host wants to who sets it. A host that asks for
// what cannot be is told the one that holds.
func (n *Node) askScanRate(topic string, p *Payload, m *Metric, now time.Time) {
	limits := n.cfg.ScanRate
	if limits == nil || n.o.ScanRate == nil {
		n.refuse(topic, m.Name, "hosts may not set how often is polled: sparkplug.scan_rate in the site file")
		return
	}
	v, err := m.Typed(Int64)
	ms := v.AsInt64()
	switch why := n.tooOld(sent(p, m)); {
	case err != nil:
		n.refuse(topic, m.Name, err.Error())
	case why != "":
		n.refuse(topic, m.Name, why)
	case ms < 0 || ms > limits.Max.Milliseconds() || !limits.Allows(time.Duration(ms)*time.Millisecond):
		n.refuse(topic, m.Name, fmt.Sprintf("the interval has to be from %d to %d ms, or 0: sparkplug.scan_rate in the site file",
			limits.Min.Milliseconds(), limits.Max.Milliseconds()))
	case !n.scanAsked.IsZero() && now.Sub(n.scanAsked) < scanPause:
		n.refuse(topic, m.Name, fmt.Sprintf("the interval may be changed once in %v", scanPause))
	default:
		n.scanAsked = now
		n.o.ScanRate(topic, time.Duration(ms)*time.Millisecond)
		return
	}
	n.SetScanRate(n.scanRate)
}

// SetScanRate notes how often the devices are polled, 0 for as the site file says,
// and has it published. Who calls it sees to it that Demand is asked.
func (n *Node) SetScanRate(every time.Duration) {
	n.scanRate = every
	if n.state == born && n.cfg.ScanRate != nil {
		n.due, n.scanNews = true, true
	}
}

// scanRateNews returns the NDATA with the scan rate, if there is news of it.
func (n *Node) scanRateNews() []mapping.Message {
	if !n.scanNews {
		return nil
	}
	n.scanNews = false
	at := n.now()
	return []mapping.Message{{Topic: n.ndata, Payload: AppendPayload(nil, &Payload{Timestamp: at, Metrics: []Metric{n.scanRateMetric(at, false)}})}}
}
