package publish

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/mapping"
	"sluice/sources"
	"sluice/sparkplug"
)

const (
	hostOnline  = `{"online":true,"timestamp":%d}`
	hostOffline = `{"online":false,"timestamp":%d}`
)

// rebirth is an NCMD that asks for births.
func rebirth() string {
	return string(sparkplug.AppendPayload(nil, &sparkplug.Payload{Timestamp: 1, Metrics: []sparkplug.Metric{
		{Name: "Node Control/Rebirth", Datatype: sparkplug.Boolean, WithType: true, Value: sources.Bool(true)}}}))
}

func state(text string) string { return fmt.Sprintf(text, time.Now().UnixMilli()) }

// Births, history and live data over both lanes, more than seq can count, with
// rebirths in the middle: the host finds no fault, and nothing is missing.
func TestTalkKeepsOrderAndNumbers(t *testing.T) {
	for _, order := range []string{orderInOrder, orderLiveFirst} {
		synctest.Test(t, func(t *testing.T) {
			r, h := newNodeRig(t, func(c *sparkplug.Config) { c.MaxMetrics, c.RebirthPause = 2, 0 }) // units of many messages
			r.cfg.Order, r.cfg.Window = order, 3
			r.broker.faults = func(int, string) fault { return fault{rtt: 5 * time.Millisecond} }
			r.log.add(700)
			r.start()
			for i := range 400 {
				r.log.add(2)
				time.Sleep(10 * time.Millisecond)
				if i%20 == 10 {
					h.say("spBv1.0/plant/NCMD/gw", rebirth(), 1)
				}
			}
			r.drained(time.Minute)
			r.stop()
			if n := h.complete(r); n > 0 {
				t.Errorf("%s: %d samples came twice", order, n)
			}
			if n := h.count("NBIRTH"); n < 2 {
				t.Errorf("%s: %d NBIRTHs", order, n)
			}
			if h.kinds[len(h.kinds)-1] != "1 NDEATH" {
				t.Errorf("the last words are %q", h.kinds[len(h.kinds)-1])
			}
		})
	}
}

// A broken connection loses nothing; what was under way comes again as history.
func TestTalkOverCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newNodeRig(t, nil)
		r.broker.faults = func(n int, _ string) fault { return fault{cutAfter: 20 * n, rtt: 20 * time.Millisecond} }
		r.start()
		for range 600 {
			r.log.add(2)
			time.Sleep(100 * time.Millisecond)
		}
		r.drained(5 * time.Minute)
		r.stop()
		h.complete(r)
		if r.up.Stats().Connects < 3 {
			t.Error("the connection was never cut")
		}
	})
}

// What somebody else changes in the session is told at once, with no data about.
func TestTalkTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newNodeRig(t, func(c *sparkplug.Config) { c.ScanRate = &sparkplug.ScanRate{Min: time.Second, Max: time.Hour} })
		r.start()
		r.drained(time.Minute)
		time.Sleep(time.Second)
		r.up.Tell(func() { r.node.(*sparkplug.Node).SetScanRate(time.Minute) })
		synctest.Wait()
		if n := h.count("NDATA"); n != 1 {
			t.Errorf("%d NDATAs: %q", n, h.kinds)
		}
		r.stop()
	})
}

// Compressed messages, which end with what they get as they go out, arrive whole.
func TestTalkCompresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newNodeRig(t, func(c *sparkplug.Config) { c.Compress, c.MaxMetrics = true, 40 })
		r.broker.faults = func(n int, _ string) fault { return fault{cutAfter: 20 * n, rtt: 20 * time.Millisecond} }
		r.start()
		for range 60 {
			r.log.add(100)
			time.Sleep(time.Second)
		}
		r.drained(5 * time.Minute)
		r.stop()
		h.complete(r)
		if h.packed < 100 || r.up.Stats().Connects < 3 {
			t.Errorf("%d compressed messages, %d connects", h.packed, r.up.Stats().Connects)
		}
	})
}

// Nothing goes out before the primary host is online; when it goes, NDEATH and
// DISCONNECT follow, and what it may have missed comes again.
func TestTalkWaitsForThePrimaryHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newNodeRig(t, func(c *sparkplug.Config) { c.PrimaryHost = "scada" })
		r.hold = 30 * time.Second
		r.log.add(10)
		r.start()
		time.Sleep(10 * time.Minute) // with pings only
		if h.count("") > 0 {
			t.Errorf("before the host was seen: %q", h.kinds)
		}
		h.mu.Lock()
		h.state["first:1883"] = state(hostOnline)
		h.mu.Unlock()
		h.say("spBv1.0/STATE/scada", state(hostOnline), 1)
		time.Sleep(20 * time.Second)
		if h.count("DDATA") == 0 || r.log.pending() != 10 {
			t.Errorf("%d messages, %d records wait", h.count("DDATA"), r.log.pending())
		}
		// The host was gone all the time, as the server tells now.
		h.mu.Lock()
		sent := len(h.samples)
		h.state["first:1883"] = state(hostOffline)
		h.mu.Unlock()
		h.say("spBv1.0/STATE/scada", state(hostOffline), 1)
		time.Sleep(20 * time.Second)
		if r.log.pending() != 10 || r.broker.goodbyes() != 1 || h.count("NDEATH") != 1 {
			t.Errorf("%d records wait, %d DISCONNECTs, %d NDEATHs", r.log.pending(), r.broker.goodbyes(), h.count("NDEATH"))
		}
		r.log.add(2)
		h.mu.Lock()
		h.state["first:1883"] = state(hostOnline)
		h.mu.Unlock()
		h.say("spBv1.0/STATE/scada", state(hostOnline), 1)
		r.drained(time.Minute)
		r.stop()
		again := slices.DeleteFunc(h.samples[sent:], func(s hostSample) bool { return !s.hostOn })
		if len(again) != 12 {
			t.Errorf("%d samples reached the host, of 12", len(again))
		}
	})
}

// A server without news of the primary host is left for the next one.
func TestTalkChangesServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newNodeRig(t, func(c *sparkplug.Config) { c.PrimaryHost = "scada" })
		r.cfg.Servers = []string{"mqtt://first", "mqtt://second"}
		r.node = twoServers(t, r)
		h.state["second:1883"] = state(hostOnline)
		r.log.add(100)
		r.start()
		r.drained(time.Minute)
		time.Sleep(30 * time.Minute) // no return to a server without the host
		if s := r.up.Stats(); !strings.Contains(s.Server, "second") || s.Connects != 2 {
			t.Errorf("%s after %d connections", s.Server, s.Connects)
		}
		r.stop()
		h.complete(r)
		for _, c := range r.broker.connects {
			if !c.CleanSession {
				t.Error("a connection asks for a stored session")
			}
		}
	})
}

// With the primary host away from all servers the log has each server once, not
// each look at it; and where it ended up when the host is back.
func TestTalkLogsServersOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newNodeRig(t, func(c *sparkplug.Config) { c.PrimaryHost = "scada" })
		r.cfg.Servers = []string{"mqtt://first", "mqtt://second"}
		r.node = twoServers(t, r)
		var lines bytes.Buffer
		r.logger = slog.New(slog.NewTextHandler(&lines, nil))
		for _, server := range []string{"first:1883", "second:1883"} {
			h.state[server] = state(`{"online":false,"timestamp":%d}`)
		}
		r.log.add(10)
		r.start()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := r.up.Stats().Connects; n < 50 {
			t.Errorf("%d connections", n)
		}
		if n := strings.Count(lines.String(), "\n"); n > 5 {
			t.Errorf("%d lines of the log:\n%.2000s", n, &lines)
		}
		h.mu.Lock()
		h.state["second:1883"] = state(hostOnline)
		h.mu.Unlock()
		r.drained(5 * time.Minute)
		r.stop()
		h.complete(r)
		if text := lines.String(); !strings.Contains(text[strings.LastIndex(text, "not connected"):], "upstream is connected\" upstream=cloud server=mqtt://second") {
			t.Errorf("the log does not tell the server:\n%.2000s", text)
		}
	})
}

// twoServers is the node of r with a choice of servers.
func twoServers(t *testing.T, r *rig) Session {
	cfg := sparkplug.Config{Group: "plant", Node: "gw", PrimaryHost: "scada"}
	cfg.SetDefaults()
	cfg.Aliases = false
	o := nodeOptions(r)
	o.Servers = 2
	node, err := sparkplug.New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// A device that goes away dies after its samples are out, and is born again.
func TestTalkTellsOfDevices(t *testing.T) {
	for _, order := range []string{orderInOrder, orderLiveFirst} {
		synctest.Test(t, func(t *testing.T) {
			r, h := newNodeRig(t, nil)
			r.cfg.Order, r.cfg.Window = order, 1 // its samples take several units
			r.broker.faults = func(int, string) fault { return fault{rtt: 200 * time.Millisecond} }
			for range 1200 {
				r.log.add(1)
			}
			r.start()
			time.Sleep(700 * time.Millisecond) // history is under way
			for range 600 {
				r.log.add(1)
			}
			r.up.SetDevice(sources.DeviceState{Device: "meter"})
			time.Sleep(20 * time.Second)
			if n := h.count("DDEATH meter"); n != 1 || h.kinds[len(h.kinds)-1] != "1 DDEATH meter" {
				t.Errorf("%s: %d DDEATHs: %q", order, n, h.kinds)
			}
			r.up.SetDevice(sources.DeviceState{Device: "meter", Online: true})
			time.Sleep(time.Second)
			r.log.add(4)
			r.drained(5 * time.Second)
			r.stop()
			h.complete(r)
			if n := h.count("DBIRTH meter"); n != 2 {
				t.Errorf("%s: %d DBIRTHs", order, n)
			}
		})
	}
}

// What is told of a device while the connection is left counts in its order.
func TestTalkTellsOfDevicesWhileLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newNodeRig(t, func(c *sparkplug.Config) { c.PrimaryHost = "scada" })
		r.broker.faults = func(int, string) fault { return fault{rtt: time.Second} }
		h.state["first:1883"] = state(hostOnline)
		r.start()
		time.Sleep(10 * time.Second)
		r.log.add(4)
		time.Sleep(100 * time.Millisecond) // they are under way, and awaited
		h.turn(hostOffline)
		time.Sleep(100 * time.Millisecond)
		r.up.SetDevice(sources.DeviceState{Device: "meter"})
		r.eventually(5*time.Second, "it is not left", func() bool {
			left := false
			r.up.Ask(func() { left = !r.up.online })
			return left
		})
		r.up.SetDevice(sources.DeviceState{Device: "meter", Online: true})
		time.Sleep(10 * time.Second)
		h.turn(hostOnline)
		r.drained(time.Minute)
		time.Sleep(10 * time.Second)
		r.stop()
		if h.count("DBIRTH meter") != 2 || h.count("DDEATH meter") > 0 {
			t.Errorf("a device that is there is not born again, or dies: %q", h.kinds)
		}
	})
}

// What a server answers to SUBSCRIBE.
func TestTalkSubscribes(t *testing.T) {
	t.Run("silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, h := newNodeRig(t, nil)
			h.silent = true
			r.log.add(1)
			r.start()
			r.eventually(time.Minute, "the connection stands", func() bool {
				f := r.up.Stats().LastError
				return f != nil && strings.Contains(f.Text, "SUBSCRIBE")
			})
			r.stop()
			if h.count("") > 0 {
				t.Errorf("sent without SUBACK: %q", h.kinds)
			}
		})
	})
	t.Run("STATE denied", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, h := newNodeRig(t, func(c *sparkplug.Config) { c.PrimaryHost = "scada" })
			h.deny["spBv1.0/STATE/scada"] = true
			r.start()
			r.eventually(time.Minute, "the connection stands", func() bool {
				f := r.up.Stats().LastError
				return f != nil && strings.Contains(f.Text, "STATE/scada")
			})
			r.stop()
		})
	})
	t.Run("commands denied", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, h := newNodeRig(t, nil)
			h.deny["spBv1.0/plant/NCMD/gw"] = true
			r.log.add(4)
			r.start()
			r.drained(time.Minute)
			r.stop()
			h.complete(r)
		})
	})
}

// A server that hands on nothing is noticed; one that does, or that does not let us
// read our births, is left in peace.
func TestTalkReadsItsBirth(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*fakeHost)
		hint   bool
	}{
		"handed on": {func(*fakeHost) {}, false},
		"dropped":   {func(h *fakeHost) { h.drops = true }, true},
		"refused":   {func(h *fakeHost) { h.drops, h.deny["spBv1.0/plant/NBIRTH/gw"] = true, true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, h := newNodeRig(t, nil)
				test.change(h)
				r.log.add(4)
				r.start()
				time.Sleep(29 * time.Second)
				if hint := r.hint(); hint != "" {
					t.Errorf("after 29 s: %s", hint)
				}
				time.Sleep(2 * time.Second) // nothing happens but that time passes
				if hint := r.hint(); (hint != "") != test.hint {
					t.Errorf("after 31 s: %q", hint)
				}
				r.stop()
				h.complete(r)
			})
		})
	}
}

// hint returns what the edge node thinks is wrong.
func (r *rig) hint() (hint string) {
	r.up.Ask(func() { hint = r.node.(*sparkplug.Node).Stats().Hint })
	return hint
}

// Messages of every QoS are taken and acknowledged, those of QoS 2 once.
func TestTalkAcknowledgesWhatItHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newNodeRig(t, nil)
		r.start()
		time.Sleep(time.Second)
		for qos := range byte(3) {
			h.say("spBv1.0/plant/NCMD/gw", rebirth(), qos)
			time.Sleep(10 * time.Second)
		}
		if n := h.count("NBIRTH"); n != 4 {
			t.Errorf("%d NBIRTHs, want 4", n)
		}
		if got := fmt.Sprint(h.acks); got != "[PUBACK PUBREC PUBCOMP]" {
			t.Errorf("answers %s", got)
		}
		r.stop()
	})
}

// A second PUBLISH of QoS 2 before PUBREL is the same message.
func TestHearTakesQoS2Once(t *testing.T) {
	heard := 0
	h := newHearing(func(string, []byte, bool) { heard++ })
	for _, p := range []inbound{{kind: 3, qos: 2, id: 5}, {kind: 3, qos: 2, id: 5}, {kind: 6, id: 5}, {kind: 3, qos: 2, id: 5}} {
		if err := h.hear(&p); err != nil {
			t.Fatal(err)
		}
	}
	if heard != 2 {
		t.Errorf("heard %d messages, want 2", heard)
	}
	if err := h.hear(&inbound{kind: 9, id: 3, rest: []byte{1}}); !errors.Is(err, errProtocol) {
		t.Errorf("SUBACK for nothing: %v", err)
	}
}

// A device dies soon, however much comes of others: no lane ever waits for the log.
func TestTalkTellsOfDevicesInAFlow(t *testing.T) {
	for _, order := range []string{orderInOrder, orderLiveFirst} {
		synctest.Test(t, func(t *testing.T) {
			r, h := newNodeRig(t, nil)
			pump := &mapping.Point{Device: "pump", Name: "starts", Kind: sources.KindInt64}
			r.points = append(r.points, pump)
			r.node = twoServers(t, r)
			fill := r.log.fill
			r.log.fill = func(rec *mapping.Record) {
				fill(rec)
				rec.Point = pump
			}
			r.cfg.Order, r.cfg.Window = order, 2 // a lane is never quite done
			h.state["first:1883"] = state(hostOnline)
			r.broker.faults = func(int, string) fault { return fault{rtt: 200 * time.Millisecond} }
			r.start()
			for i := range 400 { // 20 seconds
				r.log.add(1)
				time.Sleep(50 * time.Millisecond)
				if i == 100 {
					r.up.SetDevice(sources.DeviceState{Device: "meter"})
				}
				if n := h.count("DDEATH meter"); i == 120 && n != 1 {
					t.Errorf("%s: %d DDEATHs", order, n)
				}
			}
			r.drained(5 * time.Second)
			r.stop()
			if n := h.count("DDEATH"); n != 1 {
				t.Errorf("%s: %d DDEATHs in the end", order, n)
			}
		})
	}
}
