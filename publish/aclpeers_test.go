//go:build peers

package publish

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
	"sluice/sparkplug"
)

// hasty is an edge node for which time passes early: half a minute takes two
// seconds.
type hasty struct{ *sparkplug.Node }

const ahead = 28 * time.Second

func (h hasty) Demand(now time.Time) (sparkplug.Demand, time.Time) {
	d, again := h.Node.Demand(now.Add(ahead))
	if !again.IsZero() {
		again = again.Add(-ahead)
	}
	return d, again
}

// TestMosquittoDropsBirths: Mosquitto says nothing of a message that a client may
// not publish, nor of one that it may not read.
func TestMosquittoDropsBirths(t *testing.T) {
	b := &mosquitto{t: t, dir: t.TempDir(), port: map[string]int{}, news: make(chan struct{}, 1)}
	tests := []struct {
		name, acl string
		hint      bool
	}{
		{"everything allowed", "topic readwrite spBv1.0/#", false},
		{"what the manual says", "topic write spBv1.0/GROUP/#\ntopic read spBv1.0/GROUP/+/gw/#", false},
		{"no right to publish", "topic read spBv1.0/#", true},
		{"no right to publish births", "topic readwrite spBv1.0/GROUP/NDATA/#\ntopic read spBv1.0/#", true},
		{"no right to read them", "topic write spBv1.0/GROUP/#\ntopic read spBv1.0/GROUP/NCMD/gw", true},
	}
	group := func(i int) string { return fmt.Sprint("plant", i) } // all of them are on one server
	config := fmt.Sprintf("user %s\nper_listener_settings true\npersistence false\nlog_dest stderr\n", currentUser(t))
	ports := freePorts(t, len(tests))
	for i, test := range tests {
		acl := filepath.Join(b.dir, fmt.Sprint("acl", i))
		if err := os.WriteFile(acl, []byte(strings.ReplaceAll(test.acl, "GROUP", group(i))+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		config += fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nacl_file %s\n", ports[i], acl)
	}
	b.run(config, len(tests))
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			hint := birthHint(t, fmt.Sprintf("mqtt://127.0.0.1:%d", ports[i]), group(i))
			if (hint != "") != test.hint || test.hint && !strings.Contains(hint, "publish to spBv1.0/"+group(i)+"/#") {
				t.Errorf("the hint is %q", hint)
			}
		})
	}
}

// birthHint runs an edge node on a server for longer than its birth may take to come
// back, and returns its hint.
func birthHint(t *testing.T, server, group string) (hint string) {
	t.Helper()
	log := &peerLog{newFakeLog(t, newFakeBroker(t)), make(chan struct{}, 1)}
	log.add(1)
	power := &mapping.Point{Device: "meter", Name: "power", Kind: sources.KindInt64}
	log.recs[0].Point, log.recs[0].Value = power, sources.Int64(1)
	cfg := sparkplug.Config{Group: group, Node: "gw"}
	cfg.SetDefaults()
	node, err := sparkplug.New(cfg, sparkplug.Options{Points: []*mapping.Point{power}, Now: time.Now, Sequence: &counter{}, Servers: 1,
		End: func() uint64 { return 2 }, Current: func() []mapping.Record { return nil }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	up, err := New(plainConfig(func(c *Config) { c.Servers, c.Payload = []string{server}, payloadSparkplug }), log, hasty{node},
		Options{Site: "plant", MachineID: group})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- up.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	log.wait(t, up) // the births are out
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for end := time.After(4 * time.Second); hint == ""; {
		select {
		case <-look.C:
			up.Ask(func() { hint = node.Stats().Hint })
		case <-end:
			return hint
		}
	}
	return hint
}
