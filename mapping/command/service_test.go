package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/configs"
	"sluice/mapping"
	"sluice/sources"
)

const siteText = `site: s
devices:
  - name: d
    on: h
    points:
      setpoint: { at: holding 1, as: int16, scale: 0.1, write: { min: 6, max: 18, step: 0.5, rate: 10s, expiry: 30s } }
      free:     { at: holding 2, as: int16, write: { min: 0, max: 100, rate: 0s } }
      pump:     { at: coil 1, write: { confirm: true, rate: 0s } }
      read:     { at: holding 3, as: int16 }
`

// fakeClock is set by hand.
type fakeClock struct {
	mu    sync.Mutex
	stamp sources.Stamp
}

func newClock() *fakeClock {
	return &fakeClock{stamp: sources.Stamp{Wall: time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC).UnixNano(), Mono: int64(time.Hour), Trusted: true}}
}

func (c *fakeClock) Now() sources.Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stamp
}

func (c *fakeClock) Boot() uint64 { return 1 }

func (c *fakeClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stamp.Wall += int64(d)
	c.stamp.Mono += int64(d)
}

// fakeWriter takes writes, or returns err; it waits for gate if there is one.
type fakeWriter struct {
	mu      sync.Mutex
	got     []sources.Write
	err     error
	gate    chan struct{}
	entered chan struct{}
}

func (w *fakeWriter) Write(ctx context.Context, v sources.Write) (sources.Value, error) {
	if w.gate != nil {
		w.entered <- struct{}{}
		<-w.gate
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, v)
	if w.err != nil {
		return sources.Value{}, w.err
	}
	return v.Value, nil
}

func (w *fakeWriter) writes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.got)
}

// rig is a Service at work.
type rig struct {
	*Service
	t      *testing.T
	clock  *fakeClock
	writer *fakeWriter
	dir    string
	log    *bytes.Buffer // to be read when it has stopped
	stop   func()
}

func newRig(t *testing.T, dir string, writer *fakeWriter) *rig {
	t.Helper()
	cfg := new(mapping.Config)
	doc, problems := configs.Decode("site.yaml", []byte(siteText), cfg)
	site, more := mapping.Build(cfg, doc)
	if len(problems)+len(more) > 0 {
		t.Fatalf("%+v %+v", problems, more)
	}
	r := &rig{t: t, clock: newClock(), writer: writer, dir: dir, log: new(bytes.Buffer)}
	audit := NewAudit(dir, 1<<20, 4)
	r.Service = New(Options{Site: site, Writers: map[int]sources.Writer{0: writer}, Audit: audit, Clock: r.clock, Log: slog.New(slog.NewTextHandler(r.log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, audit.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) submit(q Request) chan *Result {
	answers := make(chan *Result, 2)
	r.Submit(q, func(a *Result) { answers <- a })
	return answers
}

func (r *rig) do(q Request) *Result {
	r.t.Helper()
	select {
	case a := <-r.submit(q):
		return a
	case <-time.After(20 * time.Second):
		r.t.Fatal("no answer")
		return nil
	}
}

var panel = Origin{Kind: Local, Name: "panel", Client: "c1"}

func setpoint(value float64) Request {
	return Request{Origin: panel, Device: "d", Point: "setpoint", Value: sources.Float64(value), ID: fmt.Sprint("id-", value)}
}

// TestRefusals: each case has its answer, nothing of it reaches the field, and
// each is in the audit log.
func TestRefusals(t *testing.T) {
	with := func(change func(*Request)) Request {
		q := setpoint(12.5)
		change(&q)
		return q
	}
	now := newClock().Now().Time()
	cases := map[string]struct {
		request Request
		want    Code
	}{
		"unknown point":     {with(func(q *Request) { q.Point = "nothing" }), UnknownPoint},
		"unknown device":    {with(func(q *Request) { q.Device = "nothing" }), UnknownPoint},
		"not writable":      {with(func(q *Request) { q.Point = "read" }), NotWritable},
		"unauthorised":      {with(func(q *Request) { q.Origin.Name = "" }), Unauthorised},
		"text for a number": {with(func(q *Request) { q.Value = sources.String("12.5") }), BadValue},
		"no value":          {with(func(q *Request) { q.Value = sources.Value{} }), BadValue},
		"below min":         {setpoint(5.5), OutOfRange},
		"above max":         {setpoint(18.5), OutOfRange},
		"between steps":     {setpoint(12.3), BadStep},
		"sent long ago":     {with(func(q *Request) { q.Sent = now.Add(-31 * time.Second) }), Expired},
		"sent, in seconds":  {with(func(q *Request) { q.Sent = time.UnixMilli(now.Unix()) }), Expired},
		"ends, in seconds":  {with(func(q *Request) { q.Expires = time.UnixMilli(now.Unix()) }), Expired},
		"sent in future":    {with(func(q *Request) { q.Sent = now.Add(time.Hour) }), Expired},
		"ttl over":          {with(func(q *Request) { q.Sent, q.TTL = now.Add(-5*time.Second), 2*time.Second }), Expired},
		"expired":           {with(func(q *Request) { q.Expires = now.Add(-time.Second) }), Expired},
		"retained":          {with(func(q *Request) { q.Retained = true }), Retained},
		"not confirmed":     {Request{Origin: panel, Device: "d", Point: "pump", Value: sources.Bool(true)}, Unconfirmed},
		"cannot be read":    {with(func(q *Request) { q.Wrong = "no JSON" }), BadRequest},
		"id too long":       {with(func(q *Request) { q.ID = strings.Repeat("x", 129) }), BadRequest},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, t.TempDir(), &fakeWriter{})
			got := r.do(c.request)
			if hinted := strings.Contains(got.Message, "milliseconds"); hinted != strings.Contains(name, "in seconds") {
				t.Errorf("got %q", got.Message)
			}
			if got.Code != c.want || got.Message == "" || got.Request.ID != c.request.ID {
				t.Errorf("answer %+v, want %s", got, c.want)
			}
			r.stop()
			if r.writer.writes() != 0 {
				t.Error("something was written")
			}
			v, err := Verify(r.dir)
			if err != nil || v.Last != got.Entry || v.Last != 1 {
				t.Errorf("audit log: %+v, %v, answer names line %d", v, err, got.Entry)
			}
		})
	}
}

// TestOrder of commands: duplicates, the rate, and what is forgotten when.
func TestDuplicatesAndRate(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, dir, &fakeWriter{})
	want := func(r *rig, q Request, code Code) {
		t.Helper()
		if got := r.do(q); got.Code != code {
			t.Errorf("%s = %v: %s (%s), want %s", q.ID, q.Value, got.Code, got.Message, code)
		}
	}
	first := setpoint(12.5)
	want(r, first, OK)
	want(r, first, Duplicate)
	want(r, setpoint(13), TooFast)
	r.clock.pass(10 * time.Second)
	want(r, setpoint(13), OK) // a command that was refused may come again
	want(r, first, Duplicate)
	other := first
	other.Origin.Name = "other"
	r.clock.pass(10 * time.Second)
	want(r, other, OK) // the id of another
	r.stop()
	again := newRig(t, dir, &fakeWriter{})
	want(again, first, Duplicate) // over a restart
	want(again, setpoint(14), OK)
	if n := r.writer.writes() + again.writer.writes(); n != 4 {
		t.Errorf("%d writes, want 4", n)
	}
}

// TestClock: a command that names a time waits for a clock that can be believed.
func TestClock(t *testing.T) {
	r := newRig(t, t.TempDir(), &fakeWriter{})
	r.clock.stamp.Trusted = false
	q := setpoint(12.5)
	q.Expires = r.clock.Now().Time().Add(time.Second)
	if got := r.do(q); got.Code != NoClock {
		t.Errorf("got %s", got.Code)
	}
	q.Expires, q.TTL = time.Time{}, time.Second
	if got := r.do(q); got.Code != OK {
		t.Errorf("got %s", got.Code)
	}
}

// TestOutcomes: what the field says is what the answer says.
func TestOutcomes(t *testing.T) {
	failed := func(reason sources.Reason, sent bool) error { return &sources.WriteError{Reason: reason, Sent: sent} }
	for name, c := range map[string]struct {
		err  error
		want Code
	}{
		"done":          {nil, OK},
		"exception":     {failed(sources.ReasonException(2), true), "exception 2"},
		"offline":       {failed(sources.ReasonTimeout, false), DeviceOffline},
		"behind it":     {failed(sources.ReasonException(11), false), DeviceOffline},
		"no target":     {failed(sources.ReasonException(11), true), "exception 11"},
		"line away":     {failed(sources.ReasonNotConnected, false), DeviceOffline},
		"no reply":      {failed(sources.ReasonTimeout, true), NoReply},
		"stopped":       {failed(sources.ReasonShutdown, false), Shutdown},
		"stopped, sent": {failed(sources.ReasonShutdown, true), NoReply},
		"another value": {sources.ErrReadback, ReadbackDiffer},
		"full":          {sources.ErrBusy, Busy},
		"too late":      {context.DeadlineExceeded, Expired},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, t.TempDir(), &fakeWriter{err: c.err})
			got := r.do(setpoint(12.5))
			if got.Code != c.want {
				t.Errorf("answer %s, want %s", got.Code, c.want)
			}
			var out map[string]any
			if err := json.Unmarshal(got.AppendJSON(nil), &out); err != nil || out["id"] != "id-12.5" || out["code"] != string(c.want) ||
				out["ok"] != (c.want == OK) || (c.want == OK) != (out["written"] == 12.5) {
				t.Errorf("%s: %v", got.AppendJSON(nil), err)
			}
			r.stop()
			if v, err := Verify(r.dir); err != nil || v.Last != 2 || len(v.Open) != 0 {
				t.Errorf("audit log: %+v, %v", v, err)
			}
			if done := strings.Contains(r.log.String(), `"command carried out"`); done != (c.want == OK) {
				t.Errorf("the log of the program says\n%s", r.log)
			}
		})
	}
}

// TestBusyAndShutdown: nothing waits without bound, what expires in the queue is
// not written, and each request is answered once.
func TestBusyAndShutdown(t *testing.T) {
	w := &fakeWriter{gate: make(chan struct{}), entered: make(chan struct{}, 1)}
	r := newRig(t, t.TempDir(), w)
	q := func(i int) Request {
		return Request{Origin: panel, Device: "d", Point: "free", Value: sources.Int64(int64(i % 100)), ID: fmt.Sprint(i)}
	}
	first := r.submit(q(0))
	<-w.entered // the worker is at it
	var waiting []chan *Result
	for i := range mostWaiting {
		waiting = append(waiting, r.submit(q(i+1)))
	}
	if got := r.do(q(999)); got.Code != Busy {
		t.Errorf("one too many: %s", got.Code)
	}
	r.clock.pass(31 * time.Second)
	close(w.gate)
	if got := <-first; got.Code != OK {
		t.Errorf("the first: %s", got.Code)
	}
	for _, c := range waiting {
		if got := <-c; got.Code != Expired {
			t.Errorf("one that waited too long: %s", got.Code)
		}
	}
	w.gate = nil
	r.stop()
	if got := r.do(q(1000)); got.Code != Shutdown {
		t.Errorf("after the end: %s", got.Code)
	}
	if w.writes() != 1 {
		t.Errorf("%d writes, want 1", w.writes())
	}
}

// TestNoAuditNoWrite: what cannot be written down is not carried out.
func TestNoAuditNoWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, filepath.Join(file, "audit"), &fakeWriter{}) // no folder can be there
	if got := r.do(setpoint(12.5)); got.Code != AuditFailed || r.writer.writes() != 0 {
		t.Errorf("%s, %d writes", got.Code, r.writer.writes())
	}
}

// TestFloodOfRefusals: refusals do not fill the audit log, and are counted; those of
// one origin hide none of another.
func TestFloodOfRefusals(t *testing.T) {
	r := newRig(t, t.TempDir(), &fakeWriter{})
	bad, other := setpoint(99), setpoint(98)
	other.Origin.Name = "somebody"
	for range 3 * refusedAtOnce {
		r.do(bad)
	}
	if a := r.do(other); a.Entry != refusedAtOnce+1 {
		t.Errorf("of another origin: %+v", a)
	}
	spare := 0
	for range 3 * spareAtOnce {
		if r.do(bad).Spare {
			spare++
		}
	}
	if spare == 0 || r.do(other).Spare {
		t.Errorf("%d answers may be left out, and those of another", spare)
	}
	r.clock.pass(time.Minute)
	r.do(bad)
	r.do(bad)
	r.stop()
	v, err := Verify(r.dir)
	data, _ := os.ReadFile(filepath.Join(r.dir, currentFile))
	if err != nil || v.Lines != refusedAtOnce+3 || !bytes.Contains(data, fmt.Appendf(nil, `"unlogged":%d`, 2*refusedAtOnce+3*spareAtOnce)) {
		t.Errorf("%+v, %v", v, err)
	}
	if n := r.Stats()[OutOfRange]; n != 3*refusedAtOnce+3*spareAtOnce+4 {
		t.Errorf("%d counted", n)
	}
}

// TestLongTextsAreNotKept: a value that no point can hold stands in no line of the
// audit log and in no answer, whoever sends it.
func TestLongTextsAreNotKept(t *testing.T) {
	r := newRig(t, t.TempDir(), &fakeWriter{})
	q := setpoint(1)
	q.Value = sources.String(strings.Repeat("x", 1<<20))
	a := r.do(q)
	r.stop()
	info, err := os.Stat(filepath.Join(r.dir, currentFile))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(a.AppendJSON(nil)); a.Code != BadRequest || n > 1000 || info.Size() > 1000 {
		t.Errorf("%s, %d bytes answered, %d written down", a.Code, n, info.Size())
	}
}

// TestFloodsLeaveRoom: one origin alone cannot take all places in the queue, and what
// found none is counted in the audit log.
func TestFloodsLeaveRoom(t *testing.T) {
	r := newRig(t, t.TempDir(), &fakeWriter{})
	r.stop()
	audit := NewAudit(r.dir, 1<<20, 4)
	s := New(Options{Site: r.opts.Site, Writers: r.opts.Writers, Audit: audit, Clock: r.clock})
	busy := 0
	flood := setpoint(99)
	flood.Origin = Origin{Kind: Sparkplug, Name: "scada"}
	for range 2 * mostIncoming {
		s.Submit(flood, func(a *Result) {
			if a.Code == Busy {
				busy++
			}
		})
	}
	s.Submit(setpoint(99), func(a *Result) {
		if a.Code != OutOfRange {
			t.Errorf("the one of another: %+v", a)
		}
	})
	if busy != 2*mostIncoming-mostOfOne {
		t.Errorf("%d busy", busy)
	}
	for range mostOfOne + 1 {
		s.judge(s.next(<-s.incoming))
	}
	s.Submit(flood, func(a *Result) { t.Errorf("when the queue is empty: %+v", a) })
	if err := audit.Close(); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(filepath.Join(r.dir, currentFile))
	if !bytes.Contains(data, fmt.Appendf(nil, `"unlogged":%d`, busy)) {
		t.Errorf("those who found no place are not counted:\n%s", data)
	}
}

// TestParseJSON: what a command looks like.
func TestParseJSON(t *testing.T) {
	at := time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)
	for text, want := range map[string]Request{
		`{"id":"7","value":12.5}`:                            {ID: "7", Value: sources.Float64(12.5)},
		`{"id":7,"value":true,"x":[1]}`:                      {ID: "7", Value: sources.Bool(true)},
		`{"id":"a","value":"heat","ttl":1.5,"confirm":true}`: {ID: "a", Value: sources.String("heat"), TTL: 1500 * time.Millisecond, Confirmed: true},
		`{"id":"a","value":-3,"sent":"2026-11-21T18:00:00Z","expires":1795284000000,"ttl":null}`: {ID: "a", Value: sources.Int64(-3), Sent: at, Expires: at},
	} {
		got := ParseJSON([]byte(text), false)
		same := got.ID == want.ID && got.Value.Equal(want.Value) && got.TTL == want.TTL && got.Confirmed == want.Confirmed && got.Sent.Equal(want.Sent) && got.Expires.Equal(want.Expires)
		if got.Wrong != "" || !same {
			t.Errorf("%s: %+v", text, got)
		}
	}
	for _, text := range []string{"", "12.5", "heat", "null", "[]", "{}", `{"value":1}`, `{"id":"","value":1}`, `{"id":true,"value":1}`,
		`{"id":"a"}`, `{"id":"a","value":null}`, `{"id":"a","value":[1]}`, `{"id":"a","value":1,"ttl":0}`, `{"id":"a","value":1,"ttl":-1}`,
		`{"id":"a","value":1,"sent":"yesterday"}`, `{"id":"a","value":1,"expires":-5}`, `{"id":"` + strings.Repeat("x", 200) + `","value":1}`,
		`{"id":"a","value":"` + strings.Repeat("x", maxPayload) + `"}`} {
		if got := ParseJSON([]byte(text), false); got.Wrong == "" {
			t.Errorf("%.60s is taken", text)
		}
	}
	for text, want := range map[string]sources.Value{"12.5": sources.Float64(12.5), "heat": sources.String("heat"), "true": sources.Bool(true)} {
		if got := ParseJSON([]byte(text), true); got.Wrong != "" || !got.Value.Equal(want) {
			t.Errorf("plain %s: %+v", text, got)
		}
	}
	if got := ParseJSON([]byte(`{"id":"a"`), true); got.Wrong == "" {
		t.Error("broken JSON is taken for a plain text")
	}
}

// TestParseTimesToTheLetter: what is over long since is not taken for what is not said.
func TestParseTimesToTheLetter(t *testing.T) {
	for _, text := range []string{`"expires":"0001-01-01T00:00:00Z"`, `"sent":"0001-01-01T00:00:00Z"`} {
		if q := ParseJSON([]byte(`{"id":"1","value":1,`+text+`}`), false); q.Wrong == "" {
			t.Errorf("%s: %+v", text, q)
		}
	}
	if q := ParseJSON([]byte(`{"id":"1","value":1,"ttl":1e-12}`), false); q.TTL <= 0 {
		t.Errorf("a short ttl: %+v", q)
	}
}

func FuzzParseJSON(f *testing.F) {
	f.Add([]byte(`{"id":"7","value":12.5,"ttl":10,"sent":"2026-11-21T18:00:00Z","expires":1,"confirm":true}`), true)
	f.Fuzz(func(t *testing.T, data []byte, plain bool) {
		r := ParseJSON(data, plain)
		if r.Wrong == "" && r.Value.Kind() == sources.KindNone {
			t.Error("no value")
		}
		if out := (&Result{Request: &r, Code: OK}).AppendJSON(nil); !json.Valid(out) {
			t.Errorf("%s", out)
		}
	})
}

// TestEveryCodeIsInTheManual: docs/commands.md has a row for each code.
func TestEveryCodeIsInTheManual(t *testing.T) {
	page, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	all := []Code{OK, BadRequest, UnknownPoint, NotWritable, Unauthorised, BadValue, OutOfRange, BadStep, Unconfirmed, Expired, Untimed, NoClock,
		Retained, Duplicate, TooFast, Busy, DeviceOffline, CodeException, NoReply, ReadbackDiffer, Shutdown, AuditFailed}
	missing := slices.DeleteFunc(all, func(c Code) bool {
		return bytes.Contains(page, []byte("| `"+string(c)+"` |")) || bytes.Contains(page, []byte("| `"+string(c)+" N` |"))
	})
	if len(missing) > 0 {
		t.Errorf("not in docs/commands.md: %v", missing)
	}
}
