package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// edgeMessage is a message of an edge node as an independent host reads it.
type edgeMessage struct {
	server   int
	topic    string // "" if the server or its host died here
	payload  []byte
	qos      byte
	retained bool
	Seq      int          `json:"seq"` // -1: none
	Packed   bool         `json:"packed"`
	Metrics  []edgeMetric `json:"metrics"`
}

// edgeMetric has the name and type of the birth where the message has none.
type edgeMetric struct {
	Name  string `json:"name"`
	Alias int64  `json:"alias"` // -1: none
	Time  int64  `json:"time"`
	Type  string `json:"type"`
	Value string `json:"value"`
	Flags string `json:"flags"` // n name, t type in the message; h historical, 0 null
	Props string `json:"props"`
}

func (m *edgeMetric) is(flag string) bool { return strings.Contains(m.Flags, flag) }

// edgePoint is what a point has to show. An empty value counts the polls.
type edgePoint struct{ kind, value, props string }

// edgeJudge is a strict host: it takes the messages of an edge node in the order
// in which they came, and what was asked of the meter, and finds what is wrong.
type edgeJudge struct {
	aliases, types bool // the settings
	servers        int
	points         map[string]edgePoint
	polls          []poll // of the only device, as its meter has seen them

	faults   []string
	count    int // of faults
	sessions map[int]*edgeSession
	bdSeq    int
	pollAt   map[int64]int64 // poll by time
	arrived  map[string][]bool
	// What has shown.
	messages, samples, historical, repeats, births, rebirths, wraps, longest, packed int
}

// edgeSession is from an NBIRTH to its NDEATH.
type edgeSession struct {
	bdSeq, next, since int // since: messages since the birth
	born               map[string]bool
	live               bool // a live sample has come since the birth
	last               map[string]int64
	aliasOf            map[string]int64
}

func (j *edgeJudge) fault(format string, args ...any) {
	if j.count++; len(j.faults) < 15 {
		j.faults = append(j.faults, fmt.Sprintf(format, args...))
	}
}

// judge goes through all messages and returns what is wrong.
func (j *edgeJudge) judge(all []edgeMessage) []string {
	j.sessions, j.pollAt, j.arrived, j.bdSeq = map[int]*edgeSession{}, map[int64]int64{}, map[string][]bool{}, -1
	for name := range j.points {
		j.arrived[name] = make([]bool, len(j.polls)+1)
	}
	for i := range all {
		if strings.Contains(all[i].topic, "/DDATA/") {
			j.date(all[i].Metrics)
		}
	}
	for i := range all {
		j.message(&all[i])
	}
	missing, first := 0, int64(0)
	for n, p := range j.polls {
		for name := range j.points {
			if p.at != 0 && !j.arrived[name][n+1] {
				if missing++; first == 0 {
					first = int64(n + 1)
				}
			}
		}
	}
	if missing > 0 {
		j.fault("%d samples are missing, the first of poll %d", missing, first)
	}
	if j.count > len(j.faults) {
		j.faults = append(j.faults, fmt.Sprintf("%d faults in all", j.count))
	}
	return j.faults
}

// date finds the polls of all times by the counters in a message, and checks
// the times by what the meter has seen.
func (j *edgeJudge) date(metrics []edgeMetric) {
	for i := range metrics {
		m := &metrics[i]
		if point, known := j.points[m.Name]; !known || point.value != "" {
			continue
		}
		var n int64
		if _, err := fmt.Sscanf(m.Value, "%d", &n); err != nil || n < 1 || n > int64(len(j.polls)) || j.polls[n-1].at == 0 {
			j.fault("%s shows %q, which the meter never did", m.Name, m.Value)
			continue
		}
		if off := time.Duration(m.Time*int64(time.Millisecond) - j.polls[n-1].at); off.Abs() > tolerance {
			j.fault("poll %d of %s has a time that is %v off", n, m.Name, off)
		}
		if before, known := j.pollAt[m.Time]; known && before != n {
			j.fault("the polls %d and %d have the same time", before, n)
		}
		j.pollAt[m.Time] = n
	}
}

// message takes one message, or the death of a server or its host.
func (j *edgeJudge) message(m *edgeMessage) {
	if m.topic == "" {
		delete(j.sessions, m.server)
		return
	}
	level := strings.Split(m.topic, "/")
	kind, device := level[2], strings.Join(level[4:], "/")
	s := j.sessions[m.server]
	if kind == "NDEATH" {
		if i := slices.IndexFunc(m.Metrics, isBdSeq); i < 0 || m.Seq >= 0 {
			j.fault("NDEATH without bdSeq or with seq %d", m.Seq)
		} else if s != nil && m.Metrics[i].Value == fmt.Sprint(s.bdSeq) {
			delete(j.sessions, m.server)
		} else if s != nil {
			j.fault("NDEATH of bdSeq %s in the session %d", m.Metrics[i].Value, s.bdSeq)
		}
		return
	}
	j.messages++
	if m.qos != 0 || m.retained {
		j.fault("%s has QoS %d, retained %t", kind, m.qos, m.retained)
	}
	if kind == "NBIRTH" {
		s = j.nodeBirth(m, s)
	}
	if s == nil {
		j.fault("%s on server %d outside of a session", kind, m.server)
		return
	}
	if m.Seq != s.next {
		j.fault("%s has seq %d, %d is due", kind, m.Seq, s.next)
	}
	if s.next = (m.Seq + 1) % 256; s.next == 0 {
		j.wraps++
	}
	s.since++
	if m.Packed {
		j.packed++
	}
	j.longest = max(j.longest, s.since)
	switch kind {
	case "DBIRTH":
		j.deviceBirth(m, s, device)
	case "DDATA":
		j.data(m, s, device)
	case "NBIRTH":
	default:
		j.fault("%s was not expected", m.topic)
	}
}

func isBdSeq(m edgeMetric) bool { return m.Name == "bdSeq" && m.Alias < 0 && m.Type == "Int64" }

// nodeBirth begins a session, or begins it anew if it is a rebirth.
func (j *edgeJudge) nodeBirth(m *edgeMessage, s *edgeSession) *edgeSession {
	for server := range j.sessions {
		if server != m.server {
			j.fault("born on server %d while alive on %d", m.server, server)
		}
	}
	var bdSeq int
	controls := map[string]bool{}
	for _, c := range m.Metrics {
		if isBdSeq(c) {
			_, _ = fmt.Sscan(c.Value, &bdSeq) // 0 shows below
		}
		if strings.HasPrefix(c.Name, "Node Control/") {
			controls[c.Name] = c.Type == "Boolean" && c.Value == "false" && c.Alias < 0
		}
	}
	if want := j.servers > 1; !controls["Node Control/Rebirth"] || controls["Node Control/Next Server"] != want {
		j.fault("NBIRTH has the controls %v, Next Server wanted: %t", controls, want)
	}
	step := (bdSeq - j.bdSeq + 256) % 256
	switch {
	case !slices.ContainsFunc(m.Metrics, isBdSeq):
		j.fault("NBIRTH without bdSeq")
	case s != nil && step != 0:
		j.fault("rebirth with bdSeq %d in the session %d", bdSeq, s.bdSeq)
	case s == nil && j.births > 0 && (step == 0 || step > 128):
		j.fault("session %d after session %d", bdSeq, j.bdSeq)
	}
	if j.births++; s != nil {
		j.rebirths++
	}
	j.bdSeq = bdSeq
	j.sessions[m.server] = &edgeSession{bdSeq: bdSeq, born: map[string]bool{}, last: map[string]int64{}, aliasOf: map[string]int64{}}
	return j.sessions[m.server]
}

// deviceBirth wants every point with its type, and an alias of its own.
func (j *edgeJudge) deviceBirth(m *edgeMessage, s *edgeSession, device string) {
	s.born[device] = true
	taken := map[int64]bool{}
	for i := range m.Metrics {
		b := &m.Metrics[i]
		want, known := j.points[b.Name]
		if !known || !b.is("n") || !b.is("t") || b.Type != want.kind || b.Props != want.props || j.aliases != (b.Alias >= 0) || j.aliases && taken[b.Alias] {
			j.fault("DBIRTH has the metric %+v", *b)
		}
		if !b.is("0") && want.value != "" && b.Value != want.value {
			j.fault("DBIRTH: %s is %q, not %q", b.Name, b.Value, want.value)
		}
		taken[b.Alias], s.aliasOf[b.Name] = true, b.Alias
	}
	if len(s.aliasOf) != len(j.points) {
		j.fault("DBIRTH has %d metrics of %d", len(s.aliasOf), len(j.points))
	}
}

// data takes samples: each once, or again as history, in the order of the polls.
func (j *edgeJudge) data(m *edgeMessage, s *edgeSession, device string) {
	if !s.born[device] {
		j.fault("DDATA of %s, which is not born", device)
	}
	for i := range m.Metrics {
		d := &m.Metrics[i]
		want, known := j.points[d.Name]
		n, dated := j.pollAt[d.Time]
		if !known || !dated {
			j.fault("sample of %q of a time that no poll has: %d", d.Name, d.Time)
			continue
		}
		if d.Type != want.kind || want.value != "" && d.Value != want.value || d.is("0") || d.Props != "" {
			j.fault("poll %d: %+v", n, *d)
		}
		if d.is("n") == j.aliases || d.is("t") != j.types || j.aliases && d.Alias != s.aliasOf[d.Name] {
			j.fault("%s has the alias %d, born as %d, and name or type by flags %s", d.Name, d.Alias, s.aliasOf[d.Name], d.Flags)
		}
		if n <= s.last[d.Name] {
			j.fault("%s: poll %d after poll %d", d.Name, n, s.last[d.Name])
		}
		s.last[d.Name] = n
		j.samples++
		again := j.arrived[d.Name][n]
		switch old := d.is("h"); {
		case old && s.live:
			j.fault("%s: history of poll %d behind live samples", d.Name, n)
		case old:
			j.historical++
		case again:
			j.fault("%s: poll %d comes live, and came before", d.Name, n)
		default:
			s.live = true
		}
		if again {
			j.repeats++
		}
		j.arrived[d.Name][n] = true
	}
}

// shown are the figures of a run.
func (j *edgeJudge) shown() string {
	return fmt.Sprintf("%d polls, %d samples in %d messages (%d compressed), %d historical, %d repeated, %d births of them %d rebirths, %d wraps of seq, %d messages after one birth",
		len(j.polls), j.samples, j.messages, j.packed, j.historical, j.repeats, j.births, j.rebirths, j.wraps, j.longest)
}

// edgeRun is what a right edge node sends: live samples, a break, history, live.
func edgeRun() (*edgeJudge, []edgeMessage) {
	began := time.Unix(1_800_000_000, 0)
	j := &edgeJudge{aliases: true, servers: 1, points: map[string]edgePoint{"reads": {kind: "UInt64"}, "volts": {"Float", "230", "engUnit String V"}}}
	for i := range 7 {
		j.polls = append(j.polls, poll{at: began.Add(time.Duration(i) * time.Second).UnixNano()})
	}
	j.polls[3].at = 0 // was never taken
	control := edgeMetric{Name: "Node Control/Rebirth", Alias: -1, Type: "Boolean", Value: "false", Flags: "nt"}
	bdSeq := func(n int) edgeMetric {
		return edgeMetric{Name: "bdSeq", Alias: -1, Type: "Int64", Value: fmt.Sprint(n), Flags: "nt"}
	}
	message := func(kind string, seq int, metrics ...edgeMetric) edgeMessage {
		topic := "spBv1.0/plant/" + kind + "/gw"
		if strings.HasPrefix(kind, "D") {
			topic += "/meter"
		}
		return edgeMessage{topic: topic, Seq: seq, Metrics: metrics}
	}
	birth := func(seq int) edgeMessage {
		return message("DBIRTH", seq, edgeMetric{Name: "reads", Alias: 1, Type: "UInt64", Flags: "nt0"},
			edgeMetric{Name: "volts", Alias: 2, Type: "Float", Value: "230", Flags: "nt", Props: "engUnit String V"})
	}
	data := func(seq int, flags string, polls ...int) edgeMessage {
		m := message("DDATA", seq)
		for _, n := range polls {
			at := time.Unix(0, j.polls[n-1].at).UnixMilli()
			m.Metrics = append(m.Metrics, edgeMetric{Name: "reads", Alias: 1, Type: "UInt64", Value: fmt.Sprint(n), Time: at, Flags: flags},
				edgeMetric{Name: "volts", Alias: 2, Type: "Float", Value: "230", Time: at, Flags: flags})
		}
		return m
	}
	return j, []edgeMessage{
		message("NBIRTH", 0, bdSeq(255), control), birth(1), data(2, "", 1), data(3, "", 2), message("NDEATH", -1, bdSeq(255)),
		message("NBIRTH", 0, bdSeq(1), control), birth(1), data(2, "h", 2, 3, 5), data(3, "", 6), data(4, "", 7), message("NDEATH", -1, bdSeq(1)),
	}
}

// TestEdgeJudge breaks each rule of the strict host once.
func TestEdgeJudge(t *testing.T) {
	if j, all := edgeRun(); len(j.judge(all)) > 0 || j.repeats != 2 || j.historical != 6 || j.births != 2 {
		t.Fatalf("a right run: %v, %s", j.faults, j.shown())
	}
	const nbirth, dbirth, first, second, death, again, history, last = 0, 1, 2, 3, 4, 5, 7, 9
	for want, spoil := range map[string]func([]edgeMessage) []edgeMessage{
		"has QoS 1":                       func(m []edgeMessage) []edgeMessage { m[first].qos = 1; return m },
		"retained true":                   func(m []edgeMessage) []edgeMessage { m[nbirth].retained = true; return m },
		"has seq 7, 3 is due":             func(m []edgeMessage) []edgeMessage { m[second].Seq = 7; return m },
		"NDEATH without bdSeq":            func(m []edgeMessage) []edgeMessage { m[death].Metrics = nil; return m },
		"NDEATH of bdSeq 1 in":            func(m []edgeMessage) []edgeMessage { m[death].Metrics = m[again].Metrics; return m },
		"rebirth with bdSeq 1":            func(m []edgeMessage) []edgeMessage { return append(m[:death:death], m[again:]...) },
		"session 255 after session 255":   func(m []edgeMessage) []edgeMessage { m[again].Metrics = m[nbirth].Metrics; return m },
		"born on server 1 while alive":    func(m []edgeMessage) []edgeMessage { m[again].server = 1; return append(m[:death:death], m[again:]...) },
		"outside of a session":            func(m []edgeMessage) []edgeMessage { return m[1:] },
		"which is not born":               func(m []edgeMessage) []edgeMessage { return append(m[:dbirth:dbirth], m[first:]...) },
		"has the controls":                func(m []edgeMessage) []edgeMessage { m[nbirth].Metrics = m[nbirth].Metrics[:1]; return m },
		"DBIRTH has 1 metrics of 2":       func(m []edgeMessage) []edgeMessage { m[dbirth].Metrics = m[dbirth].Metrics[:1]; return m },
		"DBIRTH has the metric":           func(m []edgeMessage) []edgeMessage { m[dbirth].Metrics[1].Alias = 1; return m },
		"DBIRTH has the metric {Name:vol": func(m []edgeMessage) []edgeMessage { m[dbirth].Metrics[1].Type = "Double"; return m },
		`volts is "1"`:                    func(m []edgeMessage) []edgeMessage { m[dbirth].Metrics[1].Value = "1"; return m },
		"has the alias 9":                 func(m []edgeMessage) []edgeMessage { m[first].Metrics[0].Alias = 9; return m },
		"name or type by flags n":         func(m []edgeMessage) []edgeMessage { m[first].Metrics[0].Flags = "n"; return m },
		"name or type by flags t":         func(m []edgeMessage) []edgeMessage { m[first].Metrics[0].Flags = "t"; return m },
		"Type:Float Value:231":            func(m []edgeMessage) []edgeMessage { m[first].Metrics[1].Value = "231"; return m },
		"which the meter never did":       func(m []edgeMessage) []edgeMessage { m[first].Metrics[0].Value = "4"; return m },
		"have the same time":              func(m []edgeMessage) []edgeMessage { m[first].Metrics[0].Time = m[second].Metrics[0].Time; return m },
		"that is 5s off":                  func(m []edgeMessage) []edgeMessage { m[first].Metrics[0].Time += 5000; return m },
		"of a time that no poll has":      func(m []edgeMessage) []edgeMessage { m[first].Metrics[1].Time++; return m },
		"poll 1 after poll 2": func(m []edgeMessage) []edgeMessage {
			m[first].Metrics, m[second].Metrics = m[second].Metrics, m[first].Metrics
			return m
		},
		"poll 2 comes live, and came":      func(m []edgeMessage) []edgeMessage { m[history].Metrics[0].Flags = ""; return m },
		"history of poll 7 behind live":    func(m []edgeMessage) []edgeMessage { m[last].Metrics[0].Flags = "h"; return m },
		"1 samples are missing, the first": func(m []edgeMessage) []edgeMessage { m[history].Metrics = m[history].Metrics[:5]; return m },
		"was not expected":                 func(m []edgeMessage) []edgeMessage { m[first].topic = "spBv1.0/plant/DDEATH/gw/meter"; return m },
	} {
		j, all := edgeRun()
		found := j.judge(spoil(all))
		if !strings.Contains(strings.Join(found, "\n"), want) {
			t.Errorf("%s: found %q", want, found)
		}
	}
}
