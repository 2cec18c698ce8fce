//go:build peers

package localbroker

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/localbroker/spool"
	"sluice/localbroker/wire"
	"sluice/mapping"
)

// TestFullDisk: somebody else fills the disk. New messages for a session that
// is away are refused, what was acknowledged is there, and once there is space
// all goes on by itself.
func TestFullDisk(t *testing.T) {
	at := t.TempDir()
	mount := func(name string, args ...string) {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	mount("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", at)
	t.Cleanup(func() { mount("umount", at) })
	cfg := testConfig()
	cfg.Storage.Level, cfg.Storage.MaxSize = spool.Sync, 256<<20
	var log lockedBuffer
	l := &lasting{t: t, cfg: cfg, opts: Options{Data: filepath.Join(at, "sessions"), Points: points("u"), Log: slog.New(slog.NewTextHandler(&log, nil))}}
	l.started = start(t, cfg, l.opts)
	away := l.session(5, "away", false)
	away.subscribe("plant/free/#", 1)
	away.subscribe("plant/meter/u", 1)
	_ = away.conn.Close()
	pub, n := dial(t, l.address, 5).connect("pub"), 0
	var taken []string
	// send publishes until the answer is no longer code, or a number of times.
	send := func(code byte, times int) {
		for range times {
			payload := fmt.Sprint(n, " ", strings.Repeat("x", 64<<10))
			n++
			pub.publish("plant/free/x", payload, 1, 7, false)
			if body := pub.expect(0x40); len(body) > 2 && body[2] != 0 {
				if body[2] != wire.CodeQuota {
					t.Fatalf("refused with %#x", body[2])
				}
				if code == wire.CodeSuccess {
					return
				}
				continue
			}
			if taken = append(taken, payload); code != wire.CodeSuccess {
				t.Fatal("taken on a full disk")
			}
		}
	}
	send(wire.CodeSuccess, 100) // into a second file
	filler := filepath.Join(at, "filler")
	if err := fill(filler, 24<<20); err == nil {
		t.Fatal("the disk is not full")
	}
	send(wire.CodeSuccess, 1000)
	if n == 1100 {
		t.Fatal("a full disk refused nothing")
	}
	send(wire.CodeQuota, 20)
	old := dial(t, l.address, 4).connect("old")
	old.publish("plant/free/x", strings.Repeat("y", 64<<10), 1, 8, false)
	if last := old.expectClosed(); len(last) > 0 {
		t.Errorf("MQTT 3.1.1 hears % x", last)
	}
	for range 5 {
		if err := l.Record([]mapping.Record{value(l.opts.Points[0], 1)}); err != nil {
			t.Fatal(err) // the way upstream does not notice
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	send(wire.CodeSuccess, 20)
	if s := l.Stats(); s.Storage.QueuedDropped > 0 || s.Storage.QueuedRefused < 25 || s.LANLost > 0 {
		t.Errorf("lost %d, refused %d, of LAN messages lost %d", s.Storage.QueuedDropped, s.Storage.QueuedRefused, s.LANLost)
	}
	away = l.session(5, "away", true)
	for i, want := range taken {
		if m := away.publication(); m.payload != want {
			t.Fatalf("message %d of %d: %.20q, want %.20q", i, len(taken), m.payload, want)
		}
	}
	away.ping()
	if text := log.String(); strings.Contains(text, "are gone") || !strings.Contains(text, "messages and sessions are refused") {
		t.Errorf("the log says\n%s", text)
	}
}

// fill writes a file of n bytes, or as far as there is space.
func fill(name string, n int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for chunk := make([]byte, 4<<10); n > 0 && err == nil; n -= len(chunk) {
		_, err = f.Write(chunk)
	}
	return err
}
