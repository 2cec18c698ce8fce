package mqtt

import (
	"encoding/json"
	"strconv"
	"time"

	"sluice/sources"
)

// take turns the message that waits in f into samples.
func (s *Source) take(d *device, f *feed, now time.Time) {
	a := f.pending
	f.pending = nil
	if d.availability == absent {
		if a.retained || a.number <= d.offlineFrom {
			return // it says nothing about now
		}
		d.availability = unsaid // who sends is there; the will of an old connection may come late
	}
	if !a.retained {
		f.next = now.Add(f.every)
		d.counts.last = a.stamp
	}
	var doc any
	var broken string
	if f.json || !d.TimePath.IsZero() {
		var err error
		if doc, err = parseJSON(a.payload); err != nil {
			broken = err.Error()
		}
	}
	stamp, age, timed, wrong := d.stamp(a, doc, broken)
	s.note(d, &d.trouble, wrong, d.Name, f.topic)
	if broken != "" && f.json {
		d.counts.bad++
	}
	s.batch = s.batch[:0]
	for _, p := range f.points {
		r, there := p.extract(a.payload, doc, broken)
		s.note(d, &p.trouble, r.trouble, p.Name, f.topic)
		if !there {
			continue
		}
		p.heard, p.stale = now.Add(-age), false
		p.live = p.live || !a.retained || timed
		if !r.good() {
			p.fail(r.reason, stamp, now)
		} else {
			p.had = true
			p.sample = sources.Sample{Point: p.ID, Value: r.value, Quality: sources.Good, Stamp: stamp}
			if a.retained && !timed {
				p.sample.Quality, p.sample.Reason = sources.Stale, sources.ReasonRetained
			}
		}
		s.batch = append(s.batch, p.sample)
	}
	s.emit(s.batch)
}

// extract returns what a message says about p, and false if it says nothing:
// many devices send only what has changed. A value that has never been there is
// rather misnamed.
func (p *point) extract(payload []byte, doc any, broken string) (reading, bool) {
	if p.Path.IsZero() {
		return p.readText(string(payload)), true
	}
	if broken != "" {
		return reading{reason: sources.ReasonPayload, trouble: broken}, true
	}
	v, err := p.Path.Find(doc)
	if err != nil {
		return reading{reason: sources.ReasonPayload, trouble: err.Error()}, !p.had
	}
	return p.read(v), true
}

// stamp returns the moment of a message: that in which it arrived, or what it
// says itself, then with its age and true. A time that cannot be is reported,
// and the time of arrival taken.
//
// The stamp of a message with a time keeps the difference between our two
// clocks, by which the log corrects others.
func (d *device) stamp(a *arrival, doc any, broken string) (stamp sources.Stamp, age time.Duration, timed bool, wrong string) {
	if d.TimePath.IsZero() || broken != "" {
		return a.stamp, 0, false, ""
	}
	v, err := d.TimePath.Find(doc)
	if err != nil {
		return a.stamp, 0, false, err.Error()
	}
	at, err := readTime(v)
	if err != nil {
		return a.stamp, 0, false, err.Error()
	}
	if !a.stamp.Trusted {
		return a.stamp, 0, false, "" // nothing to judge it by
	}
	age = time.Duration(a.stamp.Wall - at.UnixNano())
	switch {
	case age < -tolerance:
		return a.stamp, 0, false, "the time " + at.UTC().Format(time.RFC3339) + " is " + (-age).Round(time.Second).String() + " ahead of our clock"
	case age < 0:
		age = 0
	}
	return sources.Stamp{Wall: a.stamp.Wall - int64(age), Mono: a.stamp.Mono - int64(age), Trusted: true}, age, true, ""
}

// plain returns a JSON value as the text it would be in a payload of its own.
func plain(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case nil:
		return "null"
	}
	return "an object or a list"
}

// trouble is what is wrong with the messages for a point or a device.
type trouble struct {
	now   bool // with the last one
	count uint64
	text  string // of the last that was wrong
	at    time.Time
}

// note counts what is wrong with a message, "" for nothing, and logs a change
// from right to wrong and back. The text may quote the message, so the log has
// it at level Debug only.
func (s *Source) note(d *device, t *trouble, text, name, topic string) {
	if text == "" {
		if t.now {
			s.cfg.Log.Info("messages usable again", "bus", s.cfg.Name, "device", d.Name, "point", name, "topic", topic)
		}
		t.now = false
		return
	}
	if !t.now {
		s.cfg.Log.Warn("message not usable; the status shows why", "bus", s.cfg.Name, "device", d.Name, "point", name, "topic", topic)
		s.cfg.Log.Debug("message not usable", "bus", s.cfg.Name, "device", d.Name, "point", name, "topic", topic, "cause", text)
	}
	t.now, t.text, t.at = true, text, s.cfg.Clock.Now().Time()
	t.count++
}
