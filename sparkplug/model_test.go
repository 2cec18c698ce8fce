package sparkplug

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

// world is a site that goes through everything that happens to one, at random.
// Every sample has a value of its own, by which the host finds it.
type world struct {
	*rig
	r       *rand.Rand
	arrived map[string]int // value to how often it came
	ends    map[string]uint64
	last    map[string][2]uint64 // newest timestamp of a metric by lane, on this connection
	away    map[string]bool
	host2   map[string]bool // servers on which the primary host is online
	stateAt int64
	next    int
}

var servers = []string{"a", "b"}

// TestNodeModel takes an edge node through random connects, cuts, silent
// lines, rebirths, deaths of devices, changed points lists, kills and news of the
// primary host. The host notes every breach, and in the end every sample has
// arrived.
func TestNodeModel(t *testing.T) {
	runs := 150
	if os.Getenv("SLUICE_TORTURE") != "" {
		runs = 10_000
	}
	for seed := range runs {
		w := newWorld(t, uint64(seed))
		for range 300 {
			w.step()
			if len(w.host.breaches) > 0 {
				break
			}
		}
		w.settle()
		w.fit()
		if t.Failed() {
			t.Fatalf("seed %d, %+v", seed, w.cfg)
		}
	}
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 77)), arrived: make(map[string]int), ends: make(map[string]uint64),
		last: make(map[string][2]uint64), away: make(map[string]bool), host2: make(map[string]bool)}
	w.rig = newRig(t, func(c *Config) {
		c.Aliases = w.r.IntN(2) == 0
		c.MaxMetrics = 1 + w.r.IntN(20)
		c.Templates = w.r.IntN(2) == 0
		if w.r.IntN(2) == 0 {
			c.ScanRate = &ScanRate{Min: time.Second, Max: time.Minute}
		}
		c.Compress = w.r.IntN(2) == 0
		if w.r.IntN(2) == 0 {
			c.PrimaryHost = "scada"
		}
	})
	w.servers, w.async = 1+w.r.IntN(2), w.r.IntN(2) == 0
	w.profile = func(p *mapping.Point) string { // of all points of a device, of some, and of none
		if p.Device == "dev0" || p.Device == "dev1" && len(p.Name)%2 == 0 {
			return "profile"
		}
		return ""
	}
	w.points = nil
	for d := range 3 {
		for p := range 4 {
			w.points = append(w.points, &mapping.Point{Device: fmt.Sprintf("dev%d", d), Name: fmt.Sprintf("p%d", p), Kind: sources.KindFloat64})
		}
	}
	w.start()
	w.host.sample, w.host.birth = w.sample, func(device string) { w.ends[device] = uint64(len(w.log)) + 1 }
	return w
}

// sample is what the host sees of one sample.
func (w *world) sample(device string, s *seen, m *Metric) {
	if device == "" || m.Null {
		return
	}
	value := m.Value.String()
	seq := uint64(m.Value.AsFloat64()) // the value of a sample is its Seq
	if seq == 0 || seq > uint64(len(w.log)) {
		w.host.breach("values", "%s %v was never taken", s.name, m.Value)
		return
	}
	rec := &w.log[seq-1]
	w.arrived[value]++
	w.host.check("values", rec.Point.Device == device && rec.Point.Name == s.name, "%s/%s has a value of %s/%s", device, s.name, rec.Point.Device, rec.Point.Name)
	raw := milliseconds(rec.Stamp)
	w.host.check("timestamps", m.Timestamp >= raw && m.Timestamp <= raw+20, "%s: sent as %d, taken at %d", s.name, m.Timestamp, raw)
	w.host.check("is_historical", m.Historical == (seq < w.ends[device]), "%s %d, birth at %d: %v", device, seq, w.ends[device], m.Historical)
	lane := 0
	if m.Historical {
		lane = 1
	}
	key := device + "/" + s.name
	last := w.last[key]
	if !w.async || lane == 0 {
		w.host.check("order", m.Timestamp > last[lane], "%s historical %v: %d after %d", key, m.Historical, m.Timestamp, last[lane])
	}
	last[lane] = m.Timestamp
	w.last[key] = last
}

func (w *world) step() {
	w.now = w.now.Add(time.Duration(w.r.IntN(3000)) * time.Millisecond)
	switch k := w.r.IntN(100); {
	case k < 30:
		w.poll()
	case k < 55:
		if w.send(w.r.IntN(2), 1+w.r.IntN(8)); w.r.IntN(3) == 0 {
			w.prove()
		}
	case k < 60 && w.connected:
		w.drain()
		w.prove()
	case k < 70 && !w.connected:
		w.open()
	case k < 73 && w.connected:
		w.lose()
	case k < 75:
		w.broken = w.broken || w.connected
	case k < 79 && w.connected:
		w.askRebirth()
	case k < 84:
		w.toggle()
	case k < 88:
		w.state()
	case k < 90:
		w.kill()
	case k < 92:
		w.reload()
	case k < 93 && w.connected:
		w.node.SetScanRate(time.Duration(w.r.IntN(3)) * time.Second)
		w.pump()
	case k < 95 && w.connected && !w.broken: // somebody else's death, or an old will of ours
		bd := w.host.lastBd - int64(w.r.IntN(2))
		w.node.Receive("spBv1.0/plant/NDEATH/gw1", AppendPayload(nil, &Payload{Metrics: []Metric{{Name: metricBdSeq,
			Datatype: Int64, Value: sources.Int64(bd)}}}), false, w.now)
		w.pump()
	default:
		w.pump()
		w.drained()
	}
}

// poll takes a sample of every point of a device.
func (w *world) poll() {
	device := fmt.Sprintf("dev%d", w.r.IntN(3))
	for _, p := range w.points {
		switch {
		case p.Device != device || w.r.IntN(4) == 0:
		case w.away[device]:
			w.record(p, sources.Value{}, sources.Bad)
		default:
			w.record(p, sources.Float64(float64(len(w.log)+1)), sources.Good)
		}
	}
}

// open tries to connect; now and then the server does not answer.
func (w *world) open() {
	server := servers[w.next%w.servers]
	w.next++
	clear(w.last)
	if w.r.IntN(5) == 0 {
		will, err := w.node.Will()
		if err != nil {
			w.t.Fatal(err)
		}
		w.host.connect(will)
		return
	}
	w.host.die() // the will of the connection before, at the latest
	w.connect(server, w.stateOf(server))
	if w.cfg.PrimaryHost != "" && !w.host2[server] && w.host.online {
		w.host.breach("message-flow-edge-node-birth-publish-phid-wait", "born without the primary host")
	}
}

func (w *world) stateOf(server string) string {
	if w.cfg.PrimaryHost == "" || w.stateAt == 0 {
		return ""
	}
	return fmt.Sprintf(`{"online":%v,"timestamp":%d}`, w.host2[server], w.stateAt)
}

// lose ends a connection the hard way.
func (w *world) lose() {
	w.cut()
	w.host.die()
}

// toggle changes the state of a device.
func (w *world) toggle() {
	device := fmt.Sprintf("dev%d", w.r.IntN(3))
	w.away[device] = !w.away[device]
	w.device(device, !w.away[device])
}

// state has the primary host come or go on a server.
func (w *world) state() {
	server := servers[w.r.IntN(len(servers))]
	w.host2[server] = !w.host2[server]
	w.stateAt += int64(1 + w.r.IntN(100))
	if w.cfg.PrimaryHost == "" || !w.connected || w.broken || w.node.server != server {
		return
	}
	w.node.Receive("spBv1.0/STATE/scada", []byte(w.stateOf(server)), false, w.now)
	w.pump()
	if !w.host2[server] && w.host.online {
		w.host.breach("operational-behavior-edge-node-termination-host-offline", "it lives on")
	}
}

// kill is the end of the program without a word.
func (w *world) kill() {
	w.lose()
	clear(w.current)
	w.start()
	for d, away := range w.away {
		w.device(d, !away)
	}
}

// reload changes the points list: points come and go.
func (w *world) reload() {
	if w.connected {
		w.close()
		w.host.die()
	}
	for i, p := range w.points {
		if w.r.IntN(4) == 0 {
			delete(w.current, p)
			w.points[i] = &mapping.Point{Device: p.Device, Name: fmt.Sprintf("p%d", w.r.IntN(1000)*4+i%4), Kind: p.Kind}
		}
	}
	w.start()
	for d, away := range w.away {
		w.device(d, !away)
	}
}

// settle lets everything come to rest: afterwards every sample has arrived.
func (w *world) settle() {
	w.t.Helper()
	w.lose()
	clear(w.last)
	w.stateAt += 100
	w.host2["a"], w.host2["b"] = true, true
	w.connect("a", w.stateOf("a"))
	w.drain()
	w.prove()
	for i := range w.log {
		rec := &w.log[i]
		if rec.Quality == sources.Good && w.arrived[rec.Value.String()] == 0 {
			w.host.breach("every sample arrives", "%s/%s of %v did not", rec.Point.Device, rec.Point.Name, rec.Stamp.Time())
		}
		if !w.acked[i] {
			w.host.breach("every sample arrives", "record %d is still in the log", rec.Seq)
		}
	}
	for name, d := range w.host.devices {
		if w.away[name] && d.alive {
			w.host.breach("operational-behavior-device-ddeath", "%s is away and lives on", name)
		}
	}
}
