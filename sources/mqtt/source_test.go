package mqtt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources"
	"sluice/sources/jsonpath"
	"sluice/sources/register"
)

// bench is a Source in a bubble of fake time, with a broker that is no more
// than a table.
type bench struct {
	t      *testing.T
	source *Source
	end    func()

	mu      sync.Mutex // guards all below
	topics  map[string]func(Message)
	got     []string // samples, as text
	stamps  []sources.Stamp
	states  []string
	refuses error
	trusted bool
}

// Now is the clock of the bench: 100 s of monotonic time at its start.
func (b *bench) Now() sources.Stamp {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	return sources.Stamp{Wall: now.UnixNano(), Mono: now.UnixNano() - benchStart.UnixNano() + 100e9, Trusted: b.trusted}
}

func (b *bench) Boot() uint64 { return 1 }

// benchStart is when the clock of a bubble starts.
var benchStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// startBench runs a Source with devices on a local broker.
func startBench(t *testing.T, devices ...Device) *bench {
	b := &bench{t: t, topics: make(map[string]func(Message)), trusted: true}
	time.Sleep(25 * 365 * 24 * time.Hour) // messages name times since 2020
	b.start(Config{Name: "lan", Devices: devices, Local: func(topic string, receive func(Message)) func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.topics[topic] = receive
		return func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.topics, topic)
		}
	}})
	return b
}

func (b *bench) start(cfg Config) {
	cfg.Clock = b
	cfg.OnState = func(d sources.DeviceState) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.states = append(b.states, strings.TrimSpace(fmt.Sprint(d.Device, " ", d.Online, " ", d.Reason)))
	}
	var err error
	if b.source, err = New(cfg); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.source.Run(ctx, b.deliver) }()
	b.end = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.topics) > 0 {
			b.t.Errorf("%d subscriptions left", len(b.topics))
		}
	}
	synctest.Wait()
}

func (b *bench) deliver(samples []sources.Sample) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, s := range samples {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%d %v %v %v", s.Point, s.Quality, s.Value, s.Reason)))
		b.stamps = append(b.stamps, s.Stamp)
	}
	b.got = append(b.got, strings.Join(all, ", "))
	return b.refuses
}

// say publishes, and waits until everybody has done with it.
func (b *bench) say(topic, payload string, retained bool) {
	b.mu.Lock()
	receive := b.topics[topic]
	b.mu.Unlock()
	if receive == nil {
		b.t.Fatalf("nobody listens to %s", topic)
	}
	receive(Message{topic, []byte(payload), retained})
	synctest.Wait()
}

// wait lets time pass.
func (b *bench) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// expect compares what was delivered since the last call, a text a delivery.
func (b *bench) expect(want ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.got, want) {
		b.t.Errorf("delivered %q, want %q", b.got, want)
	}
	b.got = nil
}

// saw reports whether something was delivered since the last call of expect.
func (b *bench) saw(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.got, text)
}

// only fails the test if anything but text was delivered since the last call of
// expect.
func (b *bench) only(text string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.got) == 0 || slices.ContainsFunc(b.got, func(s string) bool { return s != text }) {
		b.t.Errorf("delivered %q, want only %q", b.got, text)
	}
	b.got = nil
}

func (b *bench) expectStates(want ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.states, want) {
		b.t.Errorf("states %q, want %q", b.states, want)
	}
	b.states = nil
}

func path(t *testing.T, text string) jsonpath.Path {
	p, err := jsonpath.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// temperature is a device with one plain value.
func temperature(every, stale time.Duration) Device {
	return Device{Name: "tank", Points: []Point{{ID: 1, Name: "temp", Topic: "tank/temp", Type: register.Float64, Every: every, StaleAfter: stale}}}
}

func TestValuesOfOneMessageComeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, Device{Name: "hall", Points: []Point{
			{ID: 3, Name: "temp", Topic: "tele/hall", Path: path(t, "$.t"), Type: register.Float64, Every: time.Second},
			{ID: 4, Name: "wet", Topic: "tele/hall", Path: path(t, "$.h[0]"), Type: register.Uint16, Every: time.Second},
			{ID: 5, Name: "on", Topic: "tele/power", Type: register.Bool, Every: time.Second}}})
		defer b.end()
		b.say("tele/hall", `{"t":21.5,"h":[40]}`, false)
		b.say("tele/power", "ON", false)
		b.expect("3 good 21.5, 4 good 40", "5 good true")
		b.expectStates("hall true")
	})
}

func TestNewestWithinEveryIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, temperature(10*time.Second, 0))
		defer b.end()
		b.say("tank/temp", "1", false)
		b.expect("1 good 1")
		for i := 2; i < 100; i++ {
			b.say("tank/temp", fmt.Sprint(i), false)
		}
		b.wait(9 * time.Second)
		b.expect()
		b.wait(time.Second)
		b.expect("1 good 99")
		b.wait(time.Minute)
		b.expect()
		b.say("tank/temp", "100", false)
		b.expect("1 good 100")
		if d := b.source.Stats().Devices[0]; d.Messages != 100 || d.Replaced != 97 {
			t.Errorf("messages %d, replaced %d", d.Messages, d.Replaced)
		}
		// the sample that waited has the moment in which it came
		if at, now := b.stamps[1].Wall, b.stamps[0].Wall; at != now {
			t.Errorf("the value that waited is of %v later", time.Duration(at-now))
		}
	})
}

func TestSilenceIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, temperature(time.Second, time.Minute))
		defer b.end()
		b.say("tank/temp", "1", false)
		b.wait(50 * time.Second)
		b.say("tank/temp", "2", false)
		b.wait(59 * time.Second)
		b.expect("1 good 1", "1 good 2")
		b.wait(time.Second)
		b.expect("1 bad  stale")
		b.expectStates("tank true", "tank false stale")
		b.wait(25 * time.Second)
		b.expect("1 bad  stale", "1 bad  stale") // said again, as a poll would
		b.say("tank/temp", "3", false)
		b.expect("1 good 3")
		b.expectStates("tank true")
	})
}

func TestNeverHeardOfIsStaleToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, temperature(time.Second, time.Minute))
		defer b.end()
		b.wait(time.Minute)
		b.expect("1 bad  stale")
		b.expectStates("tank false stale")
		if d := b.source.Stats().Devices[0]; !slices.Equal(d.Silent, []string{"tank/temp"}) {
			t.Errorf("silent: %v", d.Silent)
		}
	})
}

func TestWithoutAnEndValuesStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, temperature(time.Second, 0))
		defer b.end()
		b.say("tank/temp", "1", false)
		b.wait(1000 * time.Hour)
		b.expect("1 good 1")
	})
}

func TestRetainedIsOfUnknownAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, temperature(10*time.Second, time.Minute))
		defer b.end()
		b.say("tank/temp", "1", true)
		b.expect("1 stale 1 retained")
		b.expectStates() // it does not prove that anybody is there
		b.say("tank/temp", "2", false)
		b.expect("1 good 2") // at once, not after every
		b.expectStates("tank true")
		b.wait(time.Minute)
		b.expect("1 bad  stale")
	})
}

func TestRetainedDoesNotReplaceLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, temperature(10*time.Second, 0))
		defer b.end()
		b.say("tank/temp", "1", false)
		b.say("tank/temp", "2", false)
		b.say("tank/temp", "0", true)
		b.wait(10 * time.Second)
		b.expect("1 good 1", "1 good 2")
	})
}

func TestPartialMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, Device{Name: "shelly", Points: []Point{
			{ID: 1, Name: "power", Topic: "s", Path: path(t, "$.apower"), Type: register.Float64, Every: 10 * time.Millisecond, StaleAfter: time.Minute},
			{ID: 2, Name: "volt", Topic: "s", Path: path(t, "$.voltage"), Type: register.Float64, Every: 10 * time.Millisecond, StaleAfter: time.Minute},
			{ID: 3, Name: "typo", Topic: "s", Path: path(t, "$.curent"), Type: register.Float64, Every: 10 * time.Millisecond}}})
		defer b.end()
		b.say("s", `{"apower":8.9,"voltage":231,"current":1}`, false)
		b.wait(time.Second)
		b.say("s", `{"apower":9}`, false) // only what has changed
		b.expect("1 good 8.9, 2 good 231, 3 bad  bad payload", "1 good 9, 3 bad  bad payload")
		trouble := b.source.Stats().Devices[0].Troubles
		if k := slices.IndexFunc(trouble, func(t Trouble) bool { return t.Point == "typo" }); k < 0 || trouble[k].Count != 2 || !trouble[k].Now ||
			trouble[k].Text != "no .curent at $, which has apower" {
			t.Errorf("troubles: %+v", trouble)
		}
		b.wait(59 * time.Second)
		if !b.saw("2 bad  stale") {
			t.Errorf("a value that is left out never becomes stale: %q", b.got)
		}
	})
}

func TestBadPayloadIsABadSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, temperature(10*time.Millisecond, 0), Device{Name: "json", Points: []Point{
			{ID: 2, Name: "t", Topic: "j", Path: path(t, "$.t"), Type: register.Float64, Every: 10 * time.Millisecond}}})
		defer b.end()
		b.say("tank/temp", "hot", false)
		b.say("j", `{"t":`, false)
		b.say("j", `{"t":null}`, false)
		b.wait(time.Second)
		b.say("j", `{"t":1}`, false)
		b.expect("1 bad  wrong type", "2 bad  bad payload", "2 bad  invalid", "2 good 1")
		for _, d := range b.source.Stats().Devices {
			if len(d.Troubles) != 1 || d.Troubles[0].Count != 1 || d.Troubles[0].Now != (d.Name == "tank") || d.State != "online" {
				t.Errorf("%s is %s: %+v", d.Name, d.State, d.Troubles)
			}
		}
	})
}

func TestAvailability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tank := temperature(time.Minute, 0)
		tank.Availability = &Availability{Topic: "tank/LWT"}
		b := startBench(t, tank)
		defer b.end()
		b.say("tank/LWT", "Online", true)
		b.expectStates("tank true")
		b.say("tank/temp", "1", false)
		b.say("tank/temp", "2", false) // waits for its minute
		b.say("tank/LWT", "Offline", false)
		b.expect("1 good 1", "1 good 2", "1 bad  offline")
		b.expectStates("tank false offline")
		b.say("tank/temp", "3", true)
		b.expect() // what is stored proves nothing
		b.wait(time.Minute)
		b.only("1 bad  offline")
		b.say("tank/temp", "4", false) // the will came late: who sends is there
		b.expect("1 good 4")
		b.expectStates("tank true")
		b.say("tank/LWT", "Offline", false)
		b.say("tank/LWT", "rebooting", false)
		b.say("tank/LWT", "Online", false)
		b.expect("1 bad  offline") // until it sends, the value is not known
		b.expectStates("tank false offline", "tank true")
	})
}

// TestOfflineIsNotStale: why a value is bad does not change with time.
func TestOfflineIsNotStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tank := temperature(time.Second, time.Minute)
		tank.Availability = &Availability{Topic: "tank/LWT"}
		b := startBench(t, tank)
		defer b.end()
		b.say("tank/LWT", "Offline", true)
		b.wait(time.Hour)
		b.only("1 bad  offline")
	})
}

func TestTimeOfTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := Device{Name: "logger", TimePath: path(t, "$.at"), Points: []Point{
			{ID: 1, Name: "t", Topic: "l", Path: path(t, "$.t"), Type: register.Float64, Every: 10 * time.Millisecond, StaleAfter: time.Hour}}}
		b := startBench(t, d)
		defer b.end()
		say := func(age time.Duration, retained bool) sources.Stamp {
			t.Helper()
			before := len(b.stamps)
			b.say("l", fmt.Sprintf(`{"t":1,"at":%d}`, time.Now().Add(-age).UnixMilli()), retained)
			b.wait(time.Second)
			return b.stamps[before]
		}
		offset := int64(0)
		for _, age := range []time.Duration{0, time.Minute, 30 * time.Minute} {
			now := b.Now()
			stamp := say(age, false)
			if offset = now.Wall - now.Mono; stamp.Wall != now.Wall-int64(age) || stamp.Wall-stamp.Mono != offset || !stamp.Trusted {
				t.Errorf("age %v: stamp %+v at %+v", age, stamp, now)
			}
		}
		b.expect("1 good 1", "1 good 1", "1 good 1")
		say(time.Minute, true) // its age is known
		b.expect("1 good 1")
		say(2*time.Hour, true) // and it is too old
		b.expect("1 good 1", "1 bad  stale")
		now := b.Now()
		if stamp := say(-time.Hour, false); stamp != now { // its clock is wrong
			t.Errorf("a time in the future: %+v at %+v", stamp, now)
		}
		if trouble := b.source.Stats().Devices[0].Troubles; len(trouble) != 1 || !strings.HasSuffix(trouble[0].Text, "is 1h0m0s ahead of our clock") {
			t.Errorf("a time in the future is not told: %+v", trouble)
		}
		b.mu.Lock()
		b.trusted = false // ours is not to be trusted
		b.mu.Unlock()
		now = b.Now()
		if stamp := say(time.Minute, false); stamp != now {
			t.Errorf("without a clock of our own: %+v at %+v", stamp, now)
		}
	})
}

func TestRefusedDeliveriesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, temperature(10*time.Millisecond, 0))
		defer b.end()
		b.refuses = errors.New("full")
		b.say("tank/temp", "1", false)
		if n := b.source.Stats().NotTaken; n != 1 {
			t.Errorf("%d not taken, want 1", n)
		}
	})
}

func TestOneTopicForTwoDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := temperature(time.Second, 0)
		other.Name, other.Points = "other", slices.Clone(other.Points)
		other.Points[0].ID = 2
		b := startBench(t, temperature(time.Second, 0), other)
		defer b.end()
		b.say("tank/temp", "1", false)
		b.expect("1 good 1", "2 good 1")
	})
}
