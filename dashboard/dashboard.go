package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Gateway is what the endpoint asks. Its methods may be called concurrently.
type Gateway interface {
	// Status returns a snapshot that encoding/json can write: of every stage,
	// or in more detail of the one stage "broker".
	Status(stage string) any
	// Health returns one check a stage.
	Health() []Check
	// Metrics adds the figures of every stage to m.
	Metrics(m *Metrics)
}

// Check says whether one stage is alive.
type Check struct {
	Stage  string `json:"stage"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"` // why it is not, or what is degraded
}

// Limits of the endpoint. Requests carry no body worth reading.
const (
	headerTimeout   = 5 * time.Second
	requestTimeout  = 10 * time.Second
	responseTimeout = 30 * time.Second
	idleTimeout     = time.Minute
	maxHeaderBytes  = 16 << 10
	maxBodyBytes    = 64 << 10
	shutdownGrace   = time.Second
	listenRetry     = 5 * time.Second
)

// Server is the endpoint.
type Server struct {
	cfg     Config
	gateway Gateway
	values  *Values
	others  http.Handler
	log     *slog.Logger
	bound   atomic.Pointer[string]
}

// New returns the endpoint for gateway; values is shown under /api/v1/values.
// Paths that are not the endpoint's own go to others. Nothing is opened before
// Run.
func New(cfg Config, gateway Gateway, values *Values, others http.Handler, log *slog.Logger) *Server {
	return &Server{cfg: cfg, gateway: gateway, values: values, others: others, log: log}
}

// Addr returns the bound host:port, "" while nothing is bound.
func (s *Server) Addr() string {
	if p := s.bound.Load(); p != nil {
		return *p
	}
	return ""
}

// Run serves until ctx is done and then lets running requests end within a
// second. A port that cannot be bound is tried again every five seconds, as
// the gateway is of use without its endpoint. It returns an error only for a
// Config that Validate refuses.
func (s *Server) Run(ctx context.Context) error {
	if s.cfg.Off() {
		<-ctx.Done()
		return nil
	}
	addr, err := listenAddress(s.cfg.Listen)
	if err != nil {
		return err
	}
	for complained := false; ; complained = true {
		listener, err := net.Listen("tcp", addr)
		if err == nil {
			err = s.serve(ctx, listener)
		}
		if ctx.Err() != nil {
			return nil
		}
		if !complained {
			s.log.Warn("http endpoint is down, trying again", "listen", addr, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenRetry):
		}
	}
}

// serve answers on listener until ctx is done or the listener breaks.
func (s *Server) serve(ctx context.Context, listener net.Listener) error {
	bound := listener.Addr().String()
	s.bound.Store(&bound)
	defer s.bound.Store(nil)
	s.log.Info("http endpoint is up", "url", "http://"+bound)
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      responseTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		err = errors.Join(err, server.Close())
		s.log.Debug("http endpoint cut off a request", "err", err)
	}
	<-failed
	return nil
}

// Handler returns the endpoint as a handler: GET and HEAD of /healthz,
// /api/v1/status, /api/v1/broker, /api/v1/values and /metrics, and what others serves.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /api/v1/status", s.status)
	mux.HandleFunc("GET /api/v1/broker", s.broker)
	mux.HandleFunc("GET /api/v1/values", s.latest)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /{$}", s.index)
	mux.Handle("GET /", s.others)
	return http.MaxBytesHandler(s.guard(mux), maxBodyBytes)
}

// guard lets only requests through that name this machine. A page of another
// site whose name was rebound to 127.0.0.1 still sends its own name in Host.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		if !s.allowed(r.Host) {
			http.Error(w, fmt.Sprintf("host %q is not served here; add it to http.hosts in the site file", r.Host),
				http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// allowed reports whether the Host header names this machine.
func (s *Server) allowed(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if loopback(host) || strings.EqualFold(host, "localhost") {
		return true
	}
	return slices.ContainsFunc(s.cfg.Hosts, func(name string) bool { return strings.EqualFold(name, host) })
}

// healthz answers 200 if every stage is alive, 503 otherwise, and says why.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	checks := s.gateway.Health()
	code := http.StatusOK
	if slices.ContainsFunc(checks, func(c Check) bool { return !c.OK }) {
		code = http.StatusServiceUnavailable
	}
	s.writeJSON(w, code, struct {
		OK     bool    `json:"ok"`
		Stages []Check `json:"stages"`
	}{code == http.StatusOK, checks})
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	s.writeJSON(w, http.StatusOK, s.gateway.Status(""))
}

func (s *Server) broker(w http.ResponseWriter, _ *http.Request) {
	s.writeJSON(w, http.StatusOK, s.gateway.Status("broker"))
}

func (s *Server) latest(w http.ResponseWriter, _ *http.Request) {
	s.write(w, http.StatusOK, "application/json", s.values.appendJSON(nil))
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	var m Metrics
	s.gateway.Metrics(&m)
	var b bytes.Buffer
	_, _ = m.WriteTo(&b) // a Buffer takes everything
	s.write(w, http.StatusOK, "text/plain; version=0.0.4; charset=utf-8", b.Bytes())
}

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	s.write(w, http.StatusOK, "text/plain; charset=utf-8",
		[]byte("sluice\n\n/healthz\n/api/v1/status\n/api/v1/broker\n/api/v1/values\n/metrics\n"))
}

func (s *Server) writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		s.log.Warn("status cannot be written as JSON", "err", err)
		http.Error(w, "status cannot be written as JSON: "+err.Error(), http.StatusInternalServerError)
		return
	}
	s.write(w, code, "application/json", append(body, '\n'))
}

func (s *Server) write(w http.ResponseWriter, code int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(code)
	if _, err := w.Write(body); err != nil {
		s.log.Debug("http client went away", "err", err)
	}
}
