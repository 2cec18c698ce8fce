package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"time"
)

const (
	brokerRounds = 5
	idleClients  = 1000
)

// brokerSite is a gateway that is a broker only.
const brokerSite = `site: bench
clock: { trust: always }
buffer: { dir: "{dir}/data", level: %s }
http: { listen: "127.0.0.1:0" }
broker:
  listen: ["%s"]
  publish: ["bench/#"]
  limits: { clients: 2000, pending: 2000, sessions: 2000 }
`

// mosquittoFile is Mosquitto with its own limits, but for the queue, which is
// not to drop what the loop has sent.
const mosquittoFile = `user root
listener %s 127.0.0.1
allow_anonymous true
max_queued_messages 0
set_tcp_nodelay true
log_dest stderr
log_type error
%s
`

// contender is a broker that can be started for a load.
type contender struct {
	name  string
	start func(ctx context.Context, address string) (*gateway, error)
}

// sluice is the gateway at a level of durability.
func (b *bench) sluice(level string) contender {
	return contender{"Sluice", func(ctx context.Context, address string) (*gateway, error) {
		if level == "sync-backup" {
			level = `sync-backup, backup: "{dir}/backup"`
		}
		return b.start(ctx, fmt.Sprintf(brokerSite, level, address))
	}}
}

// mosquitto is Mosquitto with more lines of configuration.
func mosquitto(config string) contender {
	return contender{"Mosquitto", func(ctx context.Context, address string) (*gateway, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return startChild("mosquitto.conf", fmt.Sprintf(mosquittoFile, port, config), func(path string) *exec.Cmd {
			return exec.CommandContext(ctx, "mosquitto", "-c", path)
		})
	}}
}

// freeAddress returns an address on loopback that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// outcome is one run of a load.
type outcome struct {
	rate      float64 // deliveries a second
	cpu       float64 // seconds of the broker per million deliveries
	residentM float64 // MiB at the end
}

// runLoad starts the contender, lets the load run and stops it again.
func (b *bench) runLoad(ctx context.Context, c contender, l load) (outcome, error) {
	address, err := freeAddress()
	if err != nil {
		return outcome{}, err
	}
	g, err := c.start(ctx, address)
	if err != nil {
		return outcome{}, err
	}
	var used [2]time.Duration
	var errs [3]error
	calls := 0
	r, err := l.run(ctx, address, time.Second, b.measure/5, func() {
		used[calls], errs[calls] = g.cpu()
		calls++
	})
	var o outcome
	if err == nil {
		o.rate = r.rate()
		o.cpu = (used[1] - used[0]).Seconds() / float64(max(1, r.delivered)) * 1e6
		o.residentM, errs[2] = g.residentMB()
	} else {
		err = fmt.Errorf("%s: %w", c.name, err)
	}
	return o, errors.Join(err, errors.Join(errs[:]...), g.stop())
}

// duel lets both brokers run the load by turns and returns the medians of the
// rounds and of the ratios of rate and processor time.
func (b *bench) duel(ctx context.Context, ours, theirs contender, l load, rounds int) (us, them, ratio outcome, err error) {
	var all [3][]outcome
	for range rounds {
		u, err := b.runLoad(ctx, ours, l)
		if err != nil {
			return us, them, ratio, err
		}
		t, err := b.runLoad(ctx, theirs, l)
		if err != nil {
			return us, them, ratio, err
		}
		both := outcome{rate: u.rate / t.rate, cpu: u.cpu / t.cpu, residentM: u.residentM / t.residentM}
		for i, o := range []outcome{u, t, both} {
			all[i] = append(all[i], o)
		}
	}
	return middle(all[0]), middle(all[1]), middle(all[2]), nil
}

// middle returns the median of each figure.
func middle(list []outcome) outcome {
	of := func(figure func(outcome) float64) float64 {
		var all []float64
		for _, o := range list {
			all = append(all, figure(o))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return outcome{
		rate:      of(func(o outcome) float64 { return o.rate }),
		cpu:       of(func(o outcome) float64 { return o.cpu }),
		residentM: of(func(o outcome) float64 { return o.residentM }),
	}
}

// shapes are the loads that brokers are compared with.
func shapes() []load {
	var list []load
	for qos := range byte(2) {
		for _, n := range [][2]int{{1, 1}, {1, 4}, {4, 1}} {
			window := 1000
			if qos > 0 {
				window = 100
			}
			list = append(list, load{publishers: n[0], subscribers: n[1], qos: qos, window: window})
		}
	}
	return list
}

func (l load) String() string {
	return fmt.Sprintf("QoS %d, %d→%d", l.qos, l.publishers, l.subscribers)
}

// brokerRate compares the local broker with Mosquitto, nothing stored.
func (b *bench) brokerRate(ctx context.Context) ([]row, error) {
	var rows []row
	for _, l := range shapes() {
		us, them, ratio, err := b.duel(ctx, b.sluice("memory"), mosquitto("persistence false"), l, brokerRounds)
		if err != nil {
			return rows, fmt.Errorf("%v: %w", l, err)
		}
		rows = append(rows, row{name: "local broker, " + l.String() + ": rate over Mosquitto's", got: ratio.rate, limit: 1, atLeast: true,
			note: fmt.Sprintf("%.0f/s and %.0f/s, CPU per million %.2f s and %.2f s, resident %.0f and %.0f MB",
				us.rate, them.rate, us.cpu, them.cpu, us.residentM, them.residentM)})
	}
	return rows, nil
}

// brokerLevels measures QoS 1 from one publisher to one stored session at every
// level, beside Mosquitto without and with its most frequent save.
func (b *bench) brokerLevels(ctx context.Context) ([]row, error) {
	l := load{publishers: 1, subscribers: 1, qos: 1, window: 100, stored: true}
	var rows []row
	for _, c := range []struct {
		name string
		contender
	}{
		{"Sluice, level memory", b.sluice("memory")},
		{"Sluice, level spill", b.sluice("spill")},
		{"Sluice, level buffered", b.sluice("buffered")},
		{"Sluice, level sync", b.sluice("sync")},
		{"Sluice, level sync-backup", b.sluice("sync-backup")},
		{"Mosquitto, persistence off", mosquitto("persistence false")},
		{"Mosquitto, persistence on", mosquitto("persistence true\npersistence_location {dir}/")},
		{"Mosquitto, saved at every change", mosquitto("persistence true\npersistence_location {dir}/\nautosave_on_changes true\nautosave_interval 1")},
	} {
		o, err := b.runLoad(ctx, c.contender, l)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", c.name, err)
		}
		rows = append(rows, row{name: "stored session, QoS 1, 1→1: " + c.name, unit: "/s", got: o.rate,
			note: fmt.Sprintf("CPU per million %.2f s", o.cpu)})
	}
	return rows, nil
}

// brokerIdle measures the memory of connected clients that say nothing, with
// one subscription each.
func (b *bench) brokerIdle(ctx context.Context) ([]row, error) {
	var rows []row
	for i, c := range []contender{b.sluice("memory"), mosquitto("persistence false")} {
		kB, err := idleMemory(ctx, c)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", c.name, err)
		}
		r := row{name: fmt.Sprintf("%s: memory of an idle client, of %d", c.name, idleClients), unit: "KB", got: kB}
		if i == 0 {
			r.limit = 20
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// idleMemory returns the growth of resident memory a client, in KB.
func idleMemory(ctx context.Context, c contender) (float64, error) {
	address, err := freeAddress()
	if err != nil {
		return 0, err
	}
	g, err := c.start(ctx, address)
	if err != nil {
		return 0, err
	}
	first, err := dialMQTT(address, "first", true)
	if err != nil {
		return 0, errors.Join(err, g.stop())
	}
	clients := []net.Conn{first}
	pause(ctx, 2*time.Second)
	before, err := g.residentMB()
	for i := 0; i < idleClients && err == nil; i++ {
		var conn net.Conn
		if conn, err = (load{}).subscriber(address, i); err == nil {
			clients = append(clients, conn)
		}
	}
	pause(ctx, 5*time.Second)
	after, err2 := g.residentMB()
	for _, conn := range clients {
		err = errors.Join(err, conn.Close())
	}
	return (after - before) * (1 << 20) / 1000 / idleClients, errors.Join(err, err2, g.stop())
}
