// Package modbussim simulates Modbus devices, over TCP, over RTU in TCP, and
// on serial lines. In come requests of clients; out go the replies of the
// units it was given, or, where a fault rule says so, what a broken device
// would send. It never opens a connection of its own.
package modbussim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Config describes a Server. The zero Config is usable.
type Config struct {
	// Now is the clock behind computed values; nil means time.Now.
	Now func() time.Time
	// SingleClient makes each TCP port serve one connection and close every
	// further one at once, as many serial gateways do.
	SingleClient bool
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
	cfg Config

	mu        sync.Mutex // guards all below
	units     map[uint8]*Unit
	endpoints []endpoint
	running   context.Context // of Run, nil before
	stop      context.CancelFunc
	serving   sync.WaitGroup
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
	return &Server{cfg: cfg, units: make(map[uint8]*Unit)}
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

// ListenTCP opens a Modbus TCP port at address, such as "127.0.0.1:0", and
// returns the address in use. Run serves it.
func (s *Server) ListenTCP(address string) (net.Addr, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open Modbus TCP port: %w", err)
	}
	return listener.Addr(), s.add(&tcpPort{server: s, listener: listener, serveConn: s.ServeTCPConn})
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
	if s.running != nil {
		s.start(e)
	}
	return nil
}

// start serves e in a goroutine that Run waits for. The caller holds mu.
func (s *Server) start(e endpoint) {
	ctx := s.running
	s.serving.Go(func() { e.serve(ctx) })
}

// Run serves all ports, those opened later too, until ctx is done or Close is
// called. It returns nil when every connection has ended. Run may be called
// once.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.running != nil {
		s.mu.Unlock()
		return errors.New("run simulator: it runs already")
	}
	s.running, s.stop = ctx, cancel
	if s.closed {
		cancel()
	}
	for _, e := range s.endpoints {
		s.start(e)
	}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // the error of closing a socket changes nothing
	defer stop()
	<-ctx.Done()
	s.serving.Wait()
	return nil
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
