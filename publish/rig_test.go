package publish

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"sluice/mapping"
)

// rig is an upstream between a fake log and a fake broker.
type rig struct {
	logger     *slog.Logger // nil: none
	t          *testing.T
	broker     *fakeBroker
	log        *fakeLog
	session    *seqSession
	node       Session // in place of session
	points     []*mapping.Point
	inbox      *Inbox
	hold       time.Duration
	inOrderFor time.Duration
	cfg        Config
	up         *Upstream
	cancel     context.CancelFunc
	ended      chan struct{}
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, broker: newFakeBroker(t)}
	r.log = newFakeLog(t, r.broker)
	r.session = &seqSession{qos: 1, broker: r.broker}
	r.cfg.SetDefaults()
	r.cfg.Name, r.cfg.Servers, r.cfg.Drain = "cloud", []string{"mqtt://first"}, "unlimited"
	return r
}

func (r *rig) start() {
	r.t.Helper()
	for _, p := range r.cfg.Validate() {
		if !p.Warning {
			r.t.Fatalf("%s: %s", p.Field, p.Message)
		}
	}
	var err error
	pending := func() (uint64, uint64, time.Time) { return uint64(r.log.pending()), 0, time.Time{} }
	o := Options{Site: "plant", MachineID: "m", Dial: r.broker.dial, Pending: pending, Hold: r.hold, InOrderFor: r.inOrderFor, Inbox: r.inbox, Logger: r.logger}
	session := Session(r.session)
	if r.node != nil {
		session = r.node
	}
	if r.up, err = New(r.cfg, r.log, session, o); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan struct{})
	go func() {
		defer close(r.ended)
		if err := r.up.Run(ctx); err != nil {
			r.t.Error(err)
		}
	}()
}

// stop ends the upstream and waits for it and for the broker.
func (r *rig) stop() {
	r.cancel()
	<-r.ended
	r.broker.cut()
	r.broker.wg.Wait()
}

// eventually waits until ok, for at most limit of the bubble's time.
func (r *rig) eventually(limit time.Duration, what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("after %v: %s; %+v", limit, what, r.up.Stats())
		}
	}
}

func (r *rig) drained(limit time.Duration) {
	r.t.Helper()
	r.eventually(limit, "there are records that are not acknowledged",
		func() bool { return r.log.pending() == 0 })
}

// judge checks that everything arrived, how often anything was repeated, and
// the order within each lane of each connection.
func (r *rig) judge(repeats int) {
	r.t.Helper()
	seen := map[uint64]int{}
	last := map[string]uint64{}
	again := 0
	for _, m := range r.broker.log() {
		if seen[m.seq]++; seen[m.seq] > 1 {
			again++
		}
		lane := fmt.Sprint(m.connection, m.topic)
		if m.seq <= last[lane] {
			r.t.Errorf("record %d after %d in lane %s", m.seq, last[lane], lane)
		}
		last[lane] = m.seq
		if m.topic == "history" && m.retain {
			r.t.Errorf("record %d of the backlog is retained", m.seq)
		}
	}
	for i := range r.log.recs {
		seq := uint64(i) + 1
		if r.log.acked[i] && seen[seq] == 0 && (r.session.skip == nil || !r.session.skip(seq)) {
			r.t.Errorf("record %d is acknowledged and never arrived", seq)
		}
	}
	if again > repeats {
		r.t.Errorf("%d messages came again, at most %d may", again, repeats)
	}
}
