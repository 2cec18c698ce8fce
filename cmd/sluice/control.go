package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"sluice/localbroker/trace"
)

// controlSocket is the socket in the data folder through which `sluice broker`
// asks the gateway that runs there. Whoever may open it, the user of the
// gateway and root, may see messages.
const controlSocket = "control"

// serveControl answers on the socket until ctx is done. A gateway whose data folder
// takes no socket works without it.
func (g *gateway) serveControl(ctx context.Context) error {
	path := filepath.Join(g.now().site.Buffer.Dir, controlSocket)
	listener, err := listenControl(path)
	if err != nil {
		g.log.Warn("sluice broker will not reach this gateway", "socket", path, "err", err)
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/broker/trace", g.serveTrace)
	mux.HandleFunc("GET /v1/broker", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(g.Status("broker")) // an error: the command went away
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	g.log.Debug("control socket is open", "socket", path)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	_ = server.Close() // removes the socket; what is open ends with ctx
	<-failed
	return nil
}

// listenControl opens the socket for its owner alone. One that is there
// already is a leftover: the lock on the data folder keeps others away.
func listenControl(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// Until here the folder, of mode 0700 if the gateway made it, has kept
	// others away.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// serveTrace streams a message log, a line of JSON for each event.
func (g *gateway) serveTrace(w http.ResponseWriter, r *http.Request) {
	var cfg trace.Config
	if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&cfg); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, p := range cfg.Validate() {
		http.Error(w, fmt.Sprintf("%s: %s; %s", p.Field, p.Message, p.Fix), http.StatusBadRequest)
		return
	}
	g.log.Warn("message log is on, it costs time for every message", "for", cfg.For, "client", cfg.Client, "topic", cfg.Topic,
		"payload", cfg.Payload)
	defer g.log.Info("message log is off")
	lines, flush := json.NewEncoder(w), http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	if err := flush.Flush(); err != nil { // the command learns that it is on
		return
	}
	err := g.trace.Watch(r.Context(), cfg, func(l *trace.Line) error {
		if err := lines.Encode(l); err != nil {
			return err
		}
		return flush.Flush()
	})
	if errors.Is(err, trace.ErrBusy) {
		_ = lines.Encode(&trace.Line{At: time.Now().UTC(), Kind: trace.End, Text: err.Error()}) // it may have gone
	}
}

// askControl sends a request to the gateway whose data folder is dir.
func askControl(ctx context.Context, dir, method, path string, body io.Reader) (*http.Response, error) {
	socket := filepath.Join(dir, controlSocket)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	request, err := http.NewRequestWithContext(ctx, method, "http://gateway"+path, body)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fail(exitPermission, fmt.Errorf("ask the gateway at %s: %w", socket, err), "run the command as the user of the gateway, or with sudo")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fail(exitInternal, fmt.Errorf("no gateway runs in the data folder %s", dir), "start it, or name its site file with -c or its data folder with --data")
	case err != nil:
		return nil, fmt.Errorf("ask the gateway at %s: %w", socket, err)
	case response.StatusCode != http.StatusOK:
		text, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
		return nil, errors.Join(fail(exitUsage, fmt.Errorf("the gateway refused: %s", bytes.TrimSpace(text)), ""), err, response.Body.Close())
	}
	return response, nil
}
