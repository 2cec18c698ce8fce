package e2e

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"
)

// tolerance is how far the time of a sample may be from the moment of its poll.
const tolerance = time.Second

// ledger is the oracle. Polls are entered when they are taken, by whoever is
// polled; messages when they reach the far end. It asks the gateway nothing.
// The zero ledger is ready for use.
type ledger struct {
	mu       sync.Mutex // guards all below
	accounts map[string]*account
	// connections counts those the far end has accepted; repeats are messages
	// that brought nothing new, by connection.
	connections int
	repeats     []int
	untrusted   uint64 // samples delivered as of a clock that nobody trusts
	historical  uint64 // samples delivered beside the live ones
	notes       []dropNote
	inversions  int
	faults      []string
	faultCount  int
	arrivals    int
	lateness    lateness
}

// account is the ledger of one device.
type account struct {
	all   uint64 // a bit for each point of a poll
	polls []poll // poll n is polls[n-1]
	// first and here are the newest poll of a lane and point: among messages
	// that brought something new, and among all of the present connection.
	first, here [2][64]uint64
	connection  int // that here belongs to
}

// poll is one poll of a device. The zero poll is one that never was, or was
// cut off before the gateway could take it.
type poll struct {
	at      int64 // nanoseconds since 1970; 0: none
	arrived uint64
}

// arrival is a message with samples at the far end.
type arrival struct {
	device     string
	poll       uint64 // from 1
	points     uint64 // bit i: the sample of point i is in it
	at         time.Time
	historical bool
	untrusted  bool
}

// dropNote is what the gateway says about records it had to drop.
type dropNote struct {
	Dropped uint64    `json:"dropped"`
	Cause   string    `json:"cause"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
}

func (l *ledger) account(device string) *account {
	a := l.accounts[device]
	if a == nil {
		if l.accounts == nil {
			l.accounts = map[string]*account{}
		}
		a = &account{}
		l.accounts[device] = a
	}
	return a
}

// taken enters poll n of a device, whose samples are those in points.
func (l *ledger) taken(device string, n, points uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.account(device)
	a.all = points
	for uint64(len(a.polls)) < n {
		a.polls = append(a.polls, poll{})
	}
	a.polls[n-1].at = at.UnixNano()
}

// connected enters a connection that the far end has accepted.
func (l *ledger) connected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connections++
	l.repeats = append(l.repeats, 0)
	l.lateness.faulty, l.lateness.since = false, 0
}

// fault notes a violation. l.mu is held.
func (l *ledger) fault(format string, args ...any) {
	l.faultCount++
	if len(l.faults) < 10 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// wrong notes a message that is neither samples nor a note nor a status.
func (l *ledger) wrong(topic string, payload []byte, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault("message on %s: %v: %.200s", topic, why, payload)
}

// arrived enters a message at the far end.
func (l *ledger) arrived(m arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrivals++
	a := l.accounts[m.device]
	if a == nil || m.poll == 0 || m.poll > uint64(len(a.polls)) || a.polls[m.poll-1].at == 0 || m.points&^a.all != 0 || m.points == 0 {
		l.fault("%s: poll %d with points %x was never taken", m.device, m.poll, m.points)
		return
	}
	p := &a.polls[m.poll-1]
	if d := time.Duration(m.at.UnixNano() - p.at); !m.untrusted && d.Abs() > tolerance {
		l.fault("%s: poll %d has the time %v, which is %v off", m.device, m.poll, m.at, d)
	}
	fresh := m.points &^ p.arrived
	l.order(a, &m, fresh != 0)
	if fresh == 0 && l.connections > 0 {
		l.repeats[l.connections-1]++
	}
	p.arrived |= m.points
	if m.historical {
		l.historical += uint64(bits.OnesCount64(fresh))
	}
	if m.untrusted {
		l.untrusted += uint64(bits.OnesCount64(fresh))
	}
	l.lateness.add(&m, time.Unix(0, p.at))
}

// order checks the order within a lane: of what is new over the whole run, of
// everything within a connection. l.mu is held.
func (l *ledger) order(a *account, m *arrival, fresh bool) {
	if a.connection != l.connections {
		a.connection, a.here = l.connections, [2][64]uint64{}
	}
	lane, topic := 0, bits.TrailingZeros64(m.points)
	if m.historical {
		lane = 1
	}
	if last := &a.here[lane][topic]; m.poll > *last {
		*last = m.poll
	} else {
		l.inversions++
		l.fault("%s: poll %d behind poll %d in one connection, historical %t", m.device, m.poll, *last, m.historical)
	}
	if last := &a.first[lane][topic]; fresh && m.poll < *last {
		l.inversions++
		l.fault("%s: poll %d comes for the first time behind poll %d, historical %t", m.device, m.poll, *last, m.historical)
	} else if fresh {
		*last = m.poll
	}
}

// dropped enters a note about dropped records.
func (l *ledger) dropped(payload []byte) {
	var n dropNote
	err := json.Unmarshal(payload, &n)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || n.Dropped == 0 {
		l.fault("drop note %s: %v", payload, err)
		return
	}
	l.notes = append(l.notes, n)
}

// balance is the state of the ledger, in samples unless it says otherwise.
type balance struct {
	generated, delivered  uint64
	historical, untrusted uint64
	told                  uint64 // dropped, by the notes that arrived
	messages              int    // that arrived
	connections           int
	repeats               int // messages that brought nothing new
	mostRepeats           int // of them, in one connection
	inversions            int
}

func (l *ledger) balance() balance {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := balance{historical: l.historical, untrusted: l.untrusted, messages: l.arrivals,
		connections: l.connections, inversions: l.inversions}
	for _, a := range l.accounts {
		each := uint64(bits.OnesCount64(a.all))
		for i := range a.polls {
			if a.polls[i].at != 0 {
				b.generated += each
				b.delivered += uint64(bits.OnesCount64(a.polls[i].arrived))
			}
		}
	}
	for _, n := range l.notes {
		b.told += n.Dropped
	}
	for _, n := range l.repeats {
		b.repeats += n
		b.mostRepeats = max(b.mostRepeats, n)
	}
	return b
}

// judge returns every violation after the faults have stopped: generated must
// be delivered, waiting or dropped, exactly; what is repeated must have been
// under way at a cut, at most window messages; nothing may be out of order,
// changed, or of a wrong time. waiting and dropped are what the gateway says.
func (l *ledger) judge(waiting, dropped uint64, window int) []string {
	b := l.balance()
	l.mu.Lock()
	defer l.mu.Unlock()
	found := slices.Clone(l.faults)
	if n := l.faultCount - len(found); n > 0 {
		found = append(found, fmt.Sprintf("and %d more", n))
	}
	if sum := b.delivered + waiting + dropped; b.generated != sum {
		found = append(found, fmt.Sprintf("generated %d = delivered %d + waiting %d + dropped %d %+d; the first missing are %s",
			b.generated, b.delivered, waiting, dropped, int64(b.generated-sum), l.missing()))
	}
	if most := window * max(0, b.connections-1); b.repeats > most {
		found = append(found, fmt.Sprintf("%d messages repeated over %d connections, at most %d may", b.repeats, b.connections, most))
	}
	return found
}

// missing names the first polls with a sample that did not arrive. l.mu is
// held.
func (l *ledger) missing() string {
	var all []string
	for device, a := range l.accounts {
		for i := range a.polls {
			if p := &a.polls[i]; p.at != 0 && p.arrived != a.all && len(all) < 5 {
				all = append(all, fmt.Sprintf("%s %d of %s", device, i+1, time.Unix(0, p.at).UTC().Format(time.RFC3339Nano)))
			}
		}
	}
	return strings.Join(all, ", ")
}

func (b balance) String() string {
	return fmt.Sprintf("%d samples generated, %d delivered (%d of them as history, %d untrusted), %d told as dropped; "+
		"%d messages over %d connections, %d repeated, at most %d in one connection, %d inversions",
		b.generated, b.delivered, b.historical, b.untrusted, b.told, b.messages, b.connections, b.repeats, b.mostRepeats, b.inversions)
}

// lateness collects how old live samples are when they arrive, apart for the
// time before the first fault and for times at which a backlog drains beside
// them. What arrives between the beginning of a fault and the next connection
// does not count.
type lateness struct {
	on            bool // figures are wanted
	faults        bool // there has been a fault
	faulty        bool // one is at work
	since         int  // live messages of this connection
	drained       time.Time
	normal, drain []time.Duration
}

// beside is how long after a message of the backlog a drain counts as going on.
const beside = 250 * time.Millisecond

func (l *lateness) add(m *arrival, taken time.Time) {
	if !l.on {
		return
	}
	now := time.Now()
	if m.historical {
		l.drained = now
		return
	}
	l.since++
	switch {
	case l.faulty:
	case !l.drained.IsZero() && now.Sub(l.drained) < beside:
		l.drain = append(l.drain, now.Sub(taken))
	case !l.faults:
		l.normal = append(l.normal, now.Sub(taken))
	}
}
