package trace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const rate = 200

// watching starts a watch in the bubble and returns what it shows, and what
// Watch returned.
func watching(t *testing.T, l *Log, ctx context.Context, cfg Config) (lines *[]*Line, ended chan error) {
	t.Helper()
	lines, ended = new([]*Line), make(chan error, 1)
	go func() {
		ended <- l.Watch(ctx, cfg, func(line *Line) error { *lines = append(*lines, line); return nil })
	}()
	synctest.Wait()
	return lines, ended
}

func TestOffByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Log
		if l.On() || l.Count() != 0 {
			t.Fatal("a new log is on")
		}
		l.Note(Event{Kind: Received, Topic: "before"})
		lines, ended := watching(t, &l, t.Context(), Config{For: 10 * time.Minute, Rate: rate})
		if !l.On() || l.Count() != 1 {
			t.Fatal("not on while somebody watches")
		}
		l.Note(Event{Kind: Received, Client: "pump", Topic: "a/b", QoS: 1, Payload: []byte("secret")})
		time.Sleep(10*time.Minute - time.Millisecond)
		l.Note(Event{Kind: Sent, Client: "panel", Topic: "a/b"})
		synctest.Wait()
		if !l.On() {
			t.Fatal("off before its time")
		}
		time.Sleep(time.Millisecond)
		if err := <-ended; err != nil || l.On() {
			t.Fatalf("Watch: %v, on: %v", err, l.On())
		}
		l.Note(Event{Kind: Received, Topic: "after"})
		if len(*lines) != 3 || (*lines)[0].Topic != "a/b" || (*lines)[1].Client != "panel" || (*lines)[2].Kind != End {
			t.Fatalf("shown: %+v", *lines)
		}
		if got := (*lines)[0]; got.Payload != "" || got.Size != 6 {
			t.Errorf("payload %q of size %d shown without being asked for", got.Payload, got.Size)
		}
	})
}

func TestFilters(t *testing.T) {
	all := []Event{
		{Kind: Connect, Client: "pump"}, {Kind: Connect, Client: "panel"},
		{Kind: Refused, Text: "malformed"},
		{Kind: Subscribe, Client: "panel", Topic: "lan/#"},
		{Kind: Subscribe, Client: "panel", Topic: "$share/g/lan/+"},
		{Kind: Subscribe, Client: "panel", Topic: "other"},
		{Kind: Received, Client: "pump", Topic: "lan/a"},
		{Kind: Sent, Client: "panel", Topic: "lan/a"},
		{Kind: Sent, Client: "panel", Topic: "other"},
	}
	for _, c := range []struct {
		name string
		cfg  Config
		want int
	}{
		{"all", Config{}, 9},
		{"client", Config{Client: "pump"}, 2},
		{"topic", Config{Topic: "lan/#"}, 4},
		{"both", Config{Client: "panel", Topic: "lan/a"}, 3},
		{"nobody", Config{Client: "p"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l Log
				c.cfg.For, c.cfg.Rate = time.Second, rate
				lines, ended := watching(t, &l, t.Context(), c.cfg)
				for _, e := range all {
					l.Note(e)
				}
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				if got := len(*lines) - 1; got != c.want {
					t.Errorf("%d events shown, want %d", got, c.want)
				}
			})
		})
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Log
		lines, ended := watching(t, &l, t.Context(), Config{For: 10 * time.Second, Rate: rate})
		for range 10 {
			for range 1000 {
				l.Note(Event{Kind: Received, Topic: "flood"})
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		var skipped uint64
		for _, line := range *lines {
			skipped += line.Skipped
		}
		shown := uint64(len(*lines) - 1)
		if shown != 10*rate || shown+skipped != 10_000 {
			t.Errorf("%d shown and %d skipped of 10,000 in 10 s", shown, skipped)
		}
	})
}

// A terminal that takes nothing must not make connections wait.
func TestStalledWatcherDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Log
		stalled := make(chan struct{})
		ended := make(chan error, 1)
		shown, skipped := 0, uint64(0)
		go func() {
			ended <- l.Watch(t.Context(), Config{For: time.Minute, Rate: rate}, func(line *Line) error {
				<-stalled
				shown, skipped = shown+1, skipped+line.Skipped
				return nil
			})
		}()
		synctest.Wait()
		began := time.Now()
		for range 10_000 {
			l.Note(Event{Kind: Received, Topic: "x"})
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("10,000 events took %v", took)
		}
		close(stalled)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if shown != waiting+2 || skipped != 10_000-waiting-1 { // one more with show, and the end
			t.Errorf("%d lines shown, %d events skipped", shown, skipped)
		}
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Log
		ctx, stop := context.WithCancel(t.Context())
		var ends []chan error
		for range maxWatches {
			_, ended := watching(t, &l, ctx, Config{For: time.Hour, Rate: rate})
			ends = append(ends, ended)
		}
		if err := l.Watch(ctx, Config{For: time.Hour, Rate: rate}, nil); !errors.Is(err, ErrBusy) {
			t.Errorf("one more: %v", err)
		}
		stop()
		for _, ended := range ends {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if l.On() {
			t.Error("on without anybody who watches")
		}
		if err := l.Watch(t.Context(), Config{}, nil); err != nil {
			t.Errorf("for no time: %v", err)
		}
		broken := errors.New("broken pipe")
		ended := make(chan error, 1)
		go func() {
			ended <- l.Watch(t.Context(), Config{For: time.Hour, Rate: rate}, func(*Line) error { return broken })
		}()
		synctest.Wait()
		l.Note(Event{Kind: Received})
		if err := <-ended; !errors.Is(err, broken) || l.On() {
			t.Errorf("%v, on: %v", err, l.On())
		}
		lines, done := watching(t, &l, t.Context(), Config{For: MaxTime, Rate: rate})
		for l.On() {
			l.Note(Event{Kind: Received})
			time.Sleep(time.Second / rate)
			synctest.Wait()
		}
		if err := <-done; err != nil || len(*lines) != maxLines+1 {
			t.Errorf("%v after %d lines", err, len(*lines))
		}
	})
}

func TestExcerpt(t *testing.T) {
	long := strings.Repeat("ä", maxPayload)
	for _, c := range []struct{ name, in, want string }{
		{"text", "{\n\t\"v\": 1.5\r\n}", "{\n\t\"v\": 1.5\r\n}"},
		{"bytes", "\x00\xff", "0x00ff"},
		{"terminal codes", "\x1b[2J", "0x1b5b324a"},
		{"empty", "", ""},
		{"long text, cut between characters", "x" + long, "x" + long[:maxPayload-2] + "..."},
		{"long bytes", strings.Repeat("\x80", 1000), "0x" + strings.Repeat("80", maxPayload) + "..."},
	} {
		if got := excerpt([]byte(c.in)); got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, ""},
		{Config{For: time.Minute, Topic: "lan/#", Client: "x", Rate: rate}, ""},
		{Config{For: -1, Rate: rate}, "for"},
		{Config{Rate: -1}, "rate"},
		{Config{Rate: 10_001}, "rate"},
		{Config{For: MaxTime + 1, Rate: rate}, "for"},
		{Config{Topic: "a/#/b", Rate: rate}, "topic"},
		{Config{Topic: "$share/g/a", Rate: rate}, "topic"},
	} {
		var fields []string
		for _, p := range c.cfg.Validate() {
			fields = append(fields, p.Field)
		}
		if got := strings.Join(fields, " "); got != c.want {
			t.Errorf("%+v: %q, want %q", c.cfg, got, c.want)
		}
	}
}

func TestLogged(t *testing.T) {
	var b bytes.Buffer
	show := Logged(slog.New(slog.NewTextHandler(&b, nil)))
	for _, l := range []*Line{
		{Kind: Received, Client: "pump", Topic: "a", QoS: 2, ID: 7, Dup: true, Size: 3, Payload: "1.5", Skipped: 4},
		{Kind: Refused, Remote: "[::1]:9", Text: "malformed"},
		{Kind: Subscribe, Client: "panel", Topic: "#", QoS: 1},
	} {
		if err := show(l); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{
		"kind=received client=pump topic=a qos=2 retain=false size=3 dup=true id=7 payload=1.5 skipped=4\n",
		"kind=refused remote=[::1]:9 text=malformed\n", "kind=subscribe client=panel topic=# qos=1\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("missing %q in\n%s", want, b.String())
		}
	}
}

// Watches come and go while connections note events.
func TestRace(t *testing.T) {
	var l Log
	ctx, stop := context.WithCancel(t.Context())
	var noting, watches sync.WaitGroup
	for i := range 2 {
		noting.Go(func() {
			for ctx.Err() == nil {
				if l.On() {
					l.Note(Event{Kind: Received, Client: fmt.Sprint(i), Topic: "a/b", Payload: []byte{1}})
				}
			}
		})
	}
	for range maxWatches {
		watches.Go(func() {
			for range 20 {
				if err := l.Watch(ctx, Config{For: time.Millisecond, Payload: true, Rate: rate}, func(*Line) error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	watches.Wait()
	stop()
	noting.Wait()
	if l.On() {
		t.Error("on without anybody who watches")
	}
}

// The cost of an event: nobody watches, somebody watches other clients, events
// beyond the rate, and those that are shown with their payload.
func BenchmarkNote(b *testing.B) {
	payload := bytes.Repeat([]byte("x"), 100)
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"off", Config{}},
		{"another-client", Config{For: time.Hour, Client: "other", Rate: rate}},
		{"another-topic", Config{For: time.Hour, Topic: "other/#", Rate: rate}},
		{"beyond-rate", Config{For: time.Hour, Payload: true, Rate: rate}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var l Log
			ctx, stop := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() { ended <- l.Watch(ctx, c.cfg, func(*Line) error { return nil }) }()
			for c.cfg.For > 0 && !l.On() {
				runtime.Gosched()
			}
			for b.Loop() {
				if l.On() {
					l.Note(Event{Kind: Received, Client: "pump", Topic: "plant/boiler/temp", Payload: payload})
				}
			}
			stop()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		})
	}
	b.Run("shown", func(b *testing.B) {
		e := Event{Kind: Received, Client: "pump", Topic: "plant/boiler/temp", Payload: payload}
		for b.Loop() {
			newLine(&e, time.Time{}, true)
		}
	})
}
