package modbussim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Config describes a Server. The zero Config is usable.
type Config struct {
	// Now is the clock behind computed values; nil means time.Now.
	Now func() time.Time
	// Epoch is the moment at which generated values begin; the zero time means
	// the call of New. A fixed Epoch lets counters go on after a restart.
	Epoch time.Time
	// Seed is that of the jitter of think times.
	Seed uint64
	// SingleClient makes each TCP port serve one connection and close every
	// further one at once, as many serial gateways do.
	SingleClient bool
	// MaxClients is the same with another number; 0 means 256.
	MaxClients int
	// UnknownUnit is the exception code that a request to an unknown unit gets
	// over TCP, 10 or 11 from a gateway; 0 means silence.
	UnknownUnit uint8
	// OnRequest, unless nil, is called for each request that reaches a unit,
	// before its reply goes out. Requests of several connections come at the
	// same time. It must not call methods that wait for the server to end.
	OnRequest func(Request)
}

// UnitConfig describes one unit. The zero UnitConfig has no register at all.
type UnitConfig struct {
	// AllZero makes every address of every table exist, with value 0 unless
	// set. Otherwise addresses nobody defined give exception 2.
	AllZero bool
	// MaxRegisters is the most registers a request may carry before the unit
	// answers with exception 3; 0 means the limit of the standard.
	MaxRegisters int
	// Think is the time from request to reply, plus up to Jitter at random.
	Think, Jitter time.Duration
	// Identity is what FC 17 and FC 43/14 tell.
	Identity Identity
}

// Server is a set of units and the ports that reach them. All methods may be
// called at any time from any goroutine.
type Server struct {
	cfg     Config
	epoch   time.Time
	journal journal

	mu        sync.Mutex // guards all below
	units     map[uint8]*Unit
	endpoints []endpoint
	rules     []*Rule        // replaced as a whole
	start     func(endpoint) // serves it; nil unless Run is under way
	stop      context.CancelFunc
	closed    bool
}

// endpoint is something that serves until its context ends or it is closed.
type endpoint interface {
	serve(ctx context.Context)
	close() error
}

// New returns a Server without units and ports. It opens nothing.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxClients <= 0 {
		cfg.MaxClients = 256
	}
	epoch := cfg.Epoch
	if epoch.IsZero() {
		epoch = cfg.Now()
	}
	return &Server{cfg: cfg, epoch: epoch, units: make(map[uint8]*Unit)}
}

// AddUnit adds a unit with id 1 to 247 and returns it. Ids are unique.
func (s *Server) AddUnit(id uint8, cfg UnitConfig) (*Unit, error) {
	if id < 1 || id > 247 {
		return nil, fmt.Errorf("add unit %d: ids are 1 to 247", id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units[id] != nil {
		return nil, fmt.Errorf("add unit %d: there is one already", id)
	}
	u := &Unit{id: id, allZero: cfg.AllZero, max: cfg.MaxRegisters,
		rng: rand.New(rand.NewPCG(s.cfg.Seed, uint64(id))), server: s,
		think: cfg.Think, jitter: cfg.Jitter, identity: cfg.Identity}
	s.units[id] = u
	return u, nil
}

// Unit returns the unit with this id, or nil.
func (s *Server) Unit(id uint8) *Unit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.units[id]
}

// errClosed is returned for ports opened after Close.
var errClosed = errors.New("simulator is closed")

// add takes over an open endpoint, and serves it if Run is under way.
func (s *Server) add(e endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.Join(errClosed, e.close())
	}
	s.endpoints = append(s.endpoints, e)
	if s.start != nil {
		s.start(e)
	}
	return nil
}

// Run serves all ports, those opened later too, until ctx is done or Close is
// called. It returns nil when every connection has ended. Run may be called
// once.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.stop != nil {
		s.mu.Unlock()
		return errors.New("run simulator: it has been run already")
	}
	var serving sync.WaitGroup
	s.stop = cancel
	s.start = func(e endpoint) { serving.Go(func() { e.serve(ctx) }) }
	for _, e := range s.endpoints {
		s.start(e)
	}
	if s.closed {
		cancel()
	}
	s.mu.Unlock()
	<-ctx.Done()
	err := s.Close()
	serving.Wait()
	return err
}

// Close closes all ports and their connections. A Run under way returns.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.stop != nil {
		s.stop()
	}
	var errs []error
	for _, e := range s.endpoints {
		errs = append(errs, e.close())
	}
	s.endpoints = nil
	return errors.Join(errs...)
}
