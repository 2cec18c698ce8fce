//go:build peers

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/publish/cutproxy"
)

// window is how many messages the gateways may have under way.
const window = 100

// rig is the program between meters and Mosquitto, with the proxy in front of
// the broker and the ledger at both ends.
type rig struct {
	*testing.T
	ledger  *ledger
	meters  *meters
	proxy   *cutproxy.Proxy
	program string
	site    string
	gateway *gateway
	kills   int
}

// newRig starts everything. extra is added to the upstream's settings.
func newRig(t *testing.T, program, extra string) *rig {
	t.Helper()
	r := &rig{T: t, ledger: &ledger{}, program: program}
	r.ledger.lateness.on = true
	r.meters = newMeters(t, r.ledger, 2)
	broker := mosquitto(t)
	subscribe(t, broker, r.received)
	var err error
	if r.proxy, err = cutproxy.Listen(broker); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	r.site = filepath.Join(t.TempDir(), "site.yaml")
	if err := os.WriteFile(r.site, []byte(r.siteFile(extra)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.gateway = startGateway(t, r.site, program)
	t.Cleanup(r.meters.release) // before the end of the simulator
	return r
}

func (r *rig) siteFile(extra string) string {
	host, port, err := net.SplitHostPort(r.proxy.Addr())
	if err != nil {
		r.Fatal(err)
	}
	text := fmt.Sprintf("site: plant\nclock: { trust: always }\nbuses:\n  hall: { tcp: %q }\ndefaults: { every: 100ms, timeout: 60s }\ndevices:\n", r.meters.address)
	for i, device := range r.meters.devices {
		text += fmt.Sprintf("  - name: %s\n    bus: hall\n    unit: %d\n    points:\n%s", device, i+1, points("      "))
	}
	return text + fmt.Sprintf(`buffer: { dir: data, level: buffered }
broker: { listen: ["127.0.0.1:0"] }
http: { listen: "127.0.0.1:0" }
log: { format: json }
upstreams:
  - { name: cloud, host: %q, port: %s, client_id: e2e, payload: json-device, window: %d, keepalive: 5s,
      connect_timeout: 3s, backoff: { min: 200ms, max: 1s }%s }
`, host, port, window, extra)
}

// received judges a message of the broker.
func (r *rig) received(topic string, payload []byte) {
	device, inside := strings.CutPrefix(topic, "plant/")
	switch {
	case device == "dropped":
		r.ledger.dropped(payload)
		return
	case topic == "plant/status":
		if strings.Contains(string(payload), `"online"`) {
			r.ledger.connected()
		}
		return
	case strings.HasSuffix(topic, "/status"):
		return
	}
	m, err := r.meters.decode(device, payload)
	if err != nil || !inside {
		r.ledger.wrong(topic, payload, err)
		return
	}
	r.ledger.arrived(m)
}

// during lets d pass.
func (r *rig) during(d time.Duration) {
	r.Helper()
	select {
	case <-time.After(d):
	case <-r.gateway.ended:
		r.gateway.fatal("the gateway ended by itself")
	}
}

// until waits until ok, for at most limit, and returns how long it took.
func (r *rig) until(what string, limit time.Duration, ok func() bool) time.Duration {
	r.Helper()
	began := time.Now()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-r.gateway.ended:
			r.gateway.fatal("the gateway ended by itself")
		}
		if time.Since(began) > limit {
			r.gateway.fatal(fmt.Sprintf("not within %v: %s; %v", limit, what, r.ledger.balance()))
		}
	}
	return time.Since(began)
}

// connects waits for a connection beyond the first n.
func (r *rig) connects(n int) {
	r.Helper()
	r.until("a connection", 30*time.Second, func() bool { return r.ledger.balance().connections > n })
}

// fault notes that a fault begins, for the figures of latency.
func (r *rig) fault() {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	r.ledger.lateness.faults, r.ledger.lateness.faulty = true, true
}

// outage cuts the way to the broker for d.
func (r *rig) outage(d time.Duration) {
	r.Helper()
	r.fault()
	n := r.ledger.balance().connections
	r.proxy.Refuse(true)
	r.proxy.Cut()
	r.during(d)
	r.proxy.Refuse(false)
	r.connects(n)
}

// settle keeps further polls back and waits until the gateway has taken the
// last one: it is shown after it is in the log.
func (r *rig) settle() {
	r.Helper()
	last := r.meters.hold()
	r.until(fmt.Sprintf("polls %v in the log", last), 10*time.Second, func() bool {
		var values []shownValue
		if err := r.gateway.get("/api/v1/values", &values); err != nil {
			return false
		}
		for device, n := range last {
			if !slices.Contains(values, shownValue{device, "reads", rawJSON(strconv.FormatUint(n, 10)), "good"}) {
				return false
			}
		}
		return true
	})
}

// restart kills the gateway, which has settled, and starts it again.
func (r *rig) restart() {
	r.Helper()
	r.fault()
	r.kills++
	r.gateway.kill()
	r.meters.release()
	r.gateway = startGateway(r.T, r.site, r.program)
}

func (r *rig) status() *gatewayStatus {
	r.Helper()
	var s gatewayStatus
	if err := r.gateway.get("/api/v1/status", &s); err != nil {
		r.gateway.fatal(err.Error())
	}
	return &s
}

// waiting returns the samples in the log that the broker has not acknowledged
// as far as the gateway knows, and wants none to be dropped.
func (r *rig) waiting() uint64 {
	r.Helper()
	s := r.status()
	cursor := s.Spool.Cursors["cloud"]
	if len(s.Spool.Dropped) > 0 || cursor.Lost > 0 {
		r.Errorf("dropped %v, to be told %d", s.Spool.Dropped, cursor.Lost)
	}
	return cursor.Records
}

// inTheOutage wants the sum to hold while the way to the broker is cut: what
// was taken has been delivered or waits, or both, if its acknowledgement was
// lost. The gateway has settled.
func (r *rig) inTheOutage() {
	r.Helper()
	b, waiting := r.ledger.balance(), r.waiting()
	both := int64(b.delivered+waiting) - int64(b.generated)
	r.Logf("in the outage: %d generated, %d delivered, %d waiting, %d of them both", b.generated, b.delivered, waiting, both)
	if each := int64(len(reading) + 1); both < 0 || both > window*each || both%each != 0 {
		r.Errorf("generated %d, delivered %d, waiting %d", b.generated, b.delivered, waiting)
	}
}

// finish stops the polls after the faults, waits until everything has arrived,
// and judges.
func (r *rig) finish() {
	r.Helper()
	drained := r.until("a fresh sample", time.Minute, r.fresh)
	r.during(2 * time.Second)
	r.settle()
	emptied := r.until("everything acknowledged", 2*time.Minute, func() bool { return r.waiting() == 0 })
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); r.during(10 * time.Millisecond) {
		if b := r.ledger.balance(); b.delivered >= b.generated {
			break // the subscriber is a moment behind the broker
		}
	}
	for _, found := range r.ledger.judge(r.waiting(), 0, window) {
		r.Error(found)
	}
	r.gateway.end()
	r.meters.release()
	b := r.ledger.balance()
	r.Logf("%d polls taken; %v", b.generated/uint64(len(reading)+1), b)
	r.Logf("a fresh sample %v after the faults, the rest of the backlog after another %v", drained.Round(time.Millisecond), emptied.Round(time.Millisecond))
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	r.Logf("live samples from reply to subscriber, before the faults: %s", quantiles(r.ledger.lateness.normal))
	r.Logf("live samples from reply to subscriber, beside a drain:    %s", quantiles(r.ledger.lateness.drain))
}

// fresh reports whether a live sample has come after the faults.
func (r *rig) fresh() bool {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	return !r.ledger.lateness.faulty && r.ledger.lateness.since > 0
}

// quantiles returns the median, the 95th percentile and the largest.
func quantiles(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	s := slices.Sorted(slices.Values(all))
	at := func(q float64) time.Duration { return s[int(q*float64(len(s)-1))].Round(100 * time.Microsecond) }
	return fmt.Sprintf("n %d, median %v, 95 %% %v, longest %v", len(s), at(0.5), at(0.95), at(1))
}
