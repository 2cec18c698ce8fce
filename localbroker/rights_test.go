package localbroker

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sluice/configs"
	"sluice/localbroker/spool"
	"sluice/localbroker/wire"
)

// rewriteUsers replaces text in a users file.
func rewriteUsers(t *testing.T, path configs.Path, old, new string) {
	t.Helper()
	data, err := os.ReadFile(string(path))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		t.Fatalf("%q is not in the users file", old)
	}
	if err := os.WriteFile(string(path), []byte(strings.Replace(string(data), old, new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestASessionComesBackWithOtherRights takes a user's right to read away while
// its client is away with a stored session: neither what waits nor what comes
// then is for it.
func TestASessionComesBackWithOtherRights(t *testing.T) {
	for _, filter := range []string{"extra/#", "$share/g/extra/#"} {
		for _, noticed := range []bool{false, true} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprint(filter, " noticed ", noticed, " restart ", restart), func(t *testing.T) {
					t.Parallel() // it waits for the disk
					users := usersPath(t, testUsers)
					l := newLastingWith(t, spool.Sync, func(c *Config) { c.Users = users })
					w := login(t, l.started, 5, "panel", "hmi", "secret")
					w.expect(0x20)
					if code := w.subscribe(filter, 1); code != 1 {
						t.Fatalf("granted %#x", code)
					}
					w.subscribe("lan/end", 1)
					_ = w.conn.Close()
					boss := login(t, l.started, 5, "boss", "admin", "secret")
					boss.expect(0x20)
					boss.publishAll("extra/x", 1, "waits")
					rewriteUsers(t, users, "read: [extra/#]", "read: []")
					switch {
					case restart:
						l.restart()
						boss = login(t, l.started, 5, "boss", "admin", "secret")
						boss.expect(0x20)
						boss.publishAll("extra/x", 1, "waits too")
					case noticed:
						_ = l.rules.Refresh()
						l.rightsChanged()
						boss.publishAll("extra/x", 1, "waits too")
					}
					w = login(t, l.started, 5, "panel", "hmi", "secret")
					if body := w.expect(0x20); body[0] != 1 {
						t.Fatal("the session is gone")
					}
					boss.publish("extra/x", "live", 0, 0, false)
					boss.publishAll("extra/x", 1, "live")
					boss.publishAll("lan/end", 1, "end")
					if m := w.publication(); m.topic != "lan/end" {
						t.Errorf("got %s %q", m.topic, m.payload)
					}
				})
			}
		}
	}
}

// TestAWillAsksForTheRightsOfNow takes a user's right to publish away while its
// will waits, and the user himself: nobody looks at clients that are away.
func TestAWillAsksForTheRightsOfNow(t *testing.T) {
	for _, old := range []string{"write: [lan/hmi/#", "name: hmi"} {
		t.Run(old, func(t *testing.T) {
			cfg := testConfig()
			cfg.Users = usersPath(t, testUsers)
			b := start(t, cfg, Options{})
			boss := login(t, b, 5, "boss", "admin", "secret")
			boss.expect(0x20)
			boss.subscribe("lan/#", 0)
			w := dial(t, b.address, 5)
			w.send(w.connectFrame("panel", 0xc4, 60, []byte{0x11, 0, 0, 0, 0}, []byte{0}, text("lan/hmi/gone"), text("gone"), text("hmi"), text("secret")))
			w.expect(0x20)
			rewriteUsers(t, cfg.Users, old, strings.Replace(old, "hmi", "other", 1))
			_ = w.conn.Close()
			eventually(t, func() bool { s := b.Stats(); return s.Sessions == 1 && s.Refused[wire.RefusedACL]+s.Received > 0 })
			boss.publish("lan/end", "", 0, 0, false)
			if m := boss.publication(); m.topic != "lan/end" {
				t.Errorf("got %s %q", m.topic, m.payload)
			}
		})
	}
}

// TestAWillThatWasKeptAsksForTheRightsOfNow takes them away while the broker is
// off: nobody has asked who the client is since.
func TestAWillThatWasKeptAsksForTheRightsOfNow(t *testing.T) {
	for _, c := range []struct {
		name, old string
		anonymous bool
		sent      bool
	}{
		{"as it was", "", false, true}, {"without the right", "write: [lan/hmi/#", false, false}, {"without the user", "name: hmi", false, false},
		{"anonymous", "", true, true}, {"anonymous, without the right", "publish", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			users := usersPath(t, testUsers)
			l := newLastingWith(t, spool.Sync, func(c *Config) { c.Users = users })
			w := dial(t, l.address, 4)
			if c.anonymous {
				w.send(w.connectFrame("panel", 0x04, 60, nil, text("lan/hmi/gone"), text("gone")))
			} else {
				w.send(w.connectFrame("panel", 0xc4, 60, nil, text("lan/hmi/gone"), text("gone"), text("hmi"), text("secret")))
			}
			if body := w.expect(0x20); body[1] != 0 {
				t.Fatalf("connack % x", body)
			}
			l.stop()
			switch c.old {
			case "":
			case "publish":
				l.cfg.Publish = []string{"lan/other/#"}
			default:
				rewriteUsers(t, users, c.old, strings.Replace(c.old, "hmi", "other", 1))
			}
			l.restart()
			eventually(t, l.running.Load)
			s := l.sessions["panel"]
			s.life.Lock()
			s.will.hurry()
			s.life.Unlock()
			want := []string{"gone"}
			if !c.sent {
				want = nil
			}
			eventually(t, func() bool { return l.Stats().Refused[wire.RefusedACL] > 0 || len(l.log.payloads()) > 0 })
			if got := l.log.payloads(); !slices.Equal(got, want) {
				t.Errorf("sent %q, want %q", got, want)
			}
		})
	}
}

// TestAUserIsTakenOutWhileItLogsIn has the users file change between the answer
// to the password and the session: nobody looks at the client later.
func TestAUserIsTakenOutWhileItLogsIn(t *testing.T) {
	users := usersPath(t, testUsers)
	l := newLastingWith(t, spool.Buffered, func(c *Config) { c.Users = users })
	login(t, l.started, 5, "panel", "hmi", "secret").expect(0x20)
	l.mu.Lock()
	s := l.sessions["panel"]
	l.mu.Unlock()
	s.life.Lock()
	w := login(t, l.started, 5, "panel", "hmi", "secret")
	w.send(frame(0xc0))
	eventually(t, func() bool { // it has logged in and waits for the session
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*Broker).find")
	})
	rewriteUsers(t, users, "name: hmi", "name: other")
	_ = l.rules.Refresh()
	l.rightsChanged()
	s.life.Unlock()
	w.expect(0x20)
	if body := w.expect(0xe0); body[0] != 0x98 { // and no PINGRESP before
		t.Errorf("disconnect % x", body)
	}
}
