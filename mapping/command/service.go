package command

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

const (
	mostIncoming = 512 // requests that wait to be judged
	mostWaiting  = 32  // accepted ones that wait for one bus
)

// Options is what a Service needs.
type Options struct {
	Site *mapping.Site
	// Writers are the sources by their index in Site.Buses. Points of others
	// cannot be written.
	Writers map[int]sources.Writer
	Audit   *Audit
	Clock   sources.Clock
	Log     *slog.Logger // nil: none
}

// Service carries out commands. Submit and Stats may be called from any
// goroutine, before, during and after Run.
//
//	Submit ─▶ incoming ─▶ judge ─┬─ refused ─▶ audit ────────────────────────▶ answer
//	                             └─ bus ─▶ worker ─▶ audit ─▶ write ─▶ audit ─▶ answer
type Service struct {
	opts     Options
	targets  map[string]map[string]mapping.Target // by device and point; of all points
	incoming chan *job
	buses    map[int]chan *job
	last     map[*mapping.Point]time.Duration // of the judge: when the last write was accepted
	refused  map[sender]*bucket               // of the judge: lines for refused commands
	flows    map[sender]*bucket               // of the judge: commands over upstreams

	mu     sync.Mutex
	ended  bool              // Run is over; guarded by mu
	count  map[Code]uint64   // guarded by mu
	shares map[sender]*share // guarded by mu
}

// job is a Request on its way.
type job struct {
	Request
	target mapping.Target
	write  sources.Write
	got    sources.Stamp
	until  time.Duration // on the clock of got.Mono
	answer func(*Result)
}

// New returns a Service. It opens nothing and starts nothing.
func New(o Options) *Service {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{opts: o, targets: make(map[string]map[string]mapping.Target), incoming: make(chan *job, mostIncoming),
		buses: make(map[int]chan *job), last: make(map[*mapping.Point]time.Duration), count: make(map[Code]uint64),
		refused: make(map[sender]*bucket), flows: make(map[sender]*bucket), shares: make(map[sender]*share)}
	for _, t := range o.Site.Targets() {
		if s.targets[t.Point.Device] == nil {
			s.targets[t.Point.Device] = make(map[string]mapping.Target)
		}
		s.targets[t.Point.Device][t.Point.Name] = t
	}
	for bus, w := range o.Writers {
		if w != nil {
			s.buses[bus] = make(chan *job, mostWaiting)
		}
	}
	return s
}

// Submit takes a command and returns at once. answer is called once, with what
// became of it: from another goroutine, or before Submit returns if too many
// wait (Busy) or Run is over (Shutdown). answer must not wait for long; the
// Result and its Request are its own.
func (s *Service) Submit(r Request, answer func(*Result)) {
	r.trim()
	j := &job{Request: r, got: s.opts.Clock.Now(), answer: answer}
	s.mu.Lock()
	ended := s.ended
	full := !ended && !s.admit(j)
	s.mu.Unlock()
	switch {
	case ended:
		s.end(j, &Result{Code: Shutdown, Message: "the gateway stops"})
	case full:
		s.end(j, &Result{Code: Busy, Message: "too many commands wait"})
	}
}

// Run judges and carries out commands until ctx is done; then it answers those
// that wait and returns nil. A write that is under way is waited for.
func (s *Service) Run(ctx context.Context) error {
	var working sync.WaitGroup
	for bus, waiting := range s.buses {
		working.Go(func() { s.work(ctx, s.opts.Writers[bus], waiting) })
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case j := <-s.incoming:
			s.judge(s.next(j))
		}
	}
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	working.Wait()
	s.drain(s.incoming)
	for _, waiting := range s.buses {
		s.drain(waiting)
	}
	return nil
}

// drain answers what is left in a queue.
func (s *Service) drain(queue chan *job) {
	for {
		select {
		case j := <-queue:
			s.end(j, &Result{Code: Shutdown, Message: "the gateway stops"})
		default:
			return
		}
	}
}

// end answers a request.
func (s *Service) end(j *job, r *Result) {
	r.Request = &j.Request
	now := s.opts.Clock.Now()
	if r.At.IsZero() {
		r.At = now.Time()
	}
	s.mu.Lock()
	s.count[plainCode(r.Code)]++
	r.Spare = r.Entry == 0 && !s.shareOf(j).answers.take(time.Duration(now.Mono))
	s.mu.Unlock()
	j.answer(r)
}

// Stats returns how many commands came to each end, by code; exceptions
// together.
func (s *Service) Stats() map[Code]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[Code]uint64, len(s.count))
	for c, n := range s.count {
		all[c] = n
	}
	return all
}

// judge refuses a command or hands it to the worker of its bus.
func (s *Service) judge(j *job) {
	code, message := s.check(j)
	if code == OK {
		select {
		case s.buses[j.target.Bus] <- j:
			s.last[j.target.Point] = time.Duration(j.got.Mono)
			s.opts.Audit.Use(key(j.Origin, j.ID))
			return
		default:
			code, message = Busy, "too many writes wait for the bus"
		}
	}
	s.refuse(j, code, message)
}

// refuse writes a refusal to the audit log, unless there is a flood of them, and
// answers.
func (s *Service) refuse(j *job, code Code, message string) {
	r := &Result{Code: code, Message: message}
	now := s.opts.Clock.Now()
	lines := bucketOf(s.refused, j, refusedAtOnce, refusedASecond)
	if r.At = now.Time(); lines.take(time.Duration(now.Mono)) {
		lines.missed += s.turned(j)
		e := j.entry(EventRefused, now)
		e.Code, e.Message, e.Unlogged = code, message, lines.missed
		n, err := s.opts.Audit.Append(e)
		if err != nil {
			s.opts.Log.Error("a refused command is not in the audit log", "error", err)
		} else {
			r.Entry, lines.missed = n, 0
		}
	}
	s.end(j, r)
}

// entry returns a line of the audit log about j.
func (j *job) entry(event Event, now sources.Stamp) Entry {
	clip := func(s string) string { return s[:min(len(s), maxID)] } // a flood must not fill the disk
	return Entry{At: now.Time(), Trusted: now.Trusted, Event: event, Device: clip(j.Device), Point: clip(j.Point),
		Value: rawJSON(j.Value), ID: clip(j.ID), Origin: j.Origin.Kind, Name: j.Origin.Name, Client: clip(j.Origin.Client)}
}

// work carries out the writes of one bus, one by one.
func (s *Service) work(ctx context.Context, writer sources.Writer, waiting chan *job) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-waiting:
			s.carryOut(ctx, writer, j)
		}
	}
}

// carryOut writes the intention to the audit log, then the value, then the
// outcome. What is not in the log is not written.
func (s *Service) carryOut(ctx context.Context, writer sources.Writer, j *job) {
	now := s.opts.Clock.Now()
	left := j.until - time.Duration(now.Mono)
	if left <= 0 {
		s.end(j, s.logged(j, Result{Code: Expired, Message: "its time was over before its turn came"}, 0))
		return
	}
	n, err := s.opts.Audit.Append(j.entry(EventWrite, now))
	if err != nil {
		s.opts.Log.Error("a command is refused, as it cannot be written down", "error", err)
		s.end(j, &Result{Code: AuditFailed, Message: "the audit log cannot be written"})
		return
	}
	turn, cancel := context.WithTimeout(ctx, left)
	back, err := writer.Write(turn, j.write)
	cancel()
	code, message := outcome(err, ctx)
	r := s.logged(j, Result{Code: code, Message: message, Back: j.target.Shown(back)}, n)
	s.end(j, r)
}

// logged notes the end of a command in the audit log.
func (s *Service) logged(j *job, r Result, of uint64) *Result {
	now := s.opts.Clock.Now()
	event := EventResult
	if of == 0 {
		event = EventRefused
	}
	e := j.entry(event, now)
	e.Of, e.Code, e.Message, e.Back = of, r.Code, r.Message, rawJSON(r.Back)
	n, err := s.opts.Audit.Append(e)
	if err != nil {
		s.opts.Log.Error("the outcome of a command is not in the audit log", "device", j.Device, "point", j.Point,
			"code", string(r.Code), "error", err)
	}
	if r.At, r.Entry = now.Time(), n; n == 0 {
		r.Entry = of
	}
	level, text := slog.LevelInfo, "command carried out"
	if r.Code != OK {
		level, text = slog.LevelWarn, "command not carried out, or not known to be"
	}
	s.opts.Log.Log(context.Background(), level, text, "device", j.Device, "point", j.Point, "origin", string(j.Origin.Kind),
		"name", j.Origin.Name, "code", string(r.Code), "entry", r.Entry)
	return &r
}
