package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// demoGateway is a gateway as a child process.
type demoGateway struct {
	path  string // site file
	cmd   *exec.Cmd
	url   atomic.Pointer[string] // of its HTTP endpoint, nil before it is known
	ended chan error             // gets the result when the process ends
	gone  bool                   // the result was taken
}

// startDemoGateway runs this program on a site file. Its log is appended to
// gateway.log beside the file.
func startDemoGateway(path string) (*demoGateway, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(filepath.Dir(path), "gateway.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	g := &demoGateway{path: path, cmd: exec.Command(program, "run", "-c", path), ended: make(chan error, 1)}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := g.cmd.StderrPipe()
	if err == nil {
		err = g.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		err := g.follow(stderr, log)
		g.ended <- errors.Join(g.cmd.Wait(), err, log.Close())
	}()
	return g, nil
}

// follow copies the log of the process, and takes from it where its HTTP
// endpoint is. It returns when the process has closed it.
func (g *demoGateway) follow(stderr io.Reader, log io.Writer) error {
	lines := bufio.NewReader(stderr)
	for {
		line, readErr := lines.ReadBytes('\n')
		if _, err := log.Write(line); err != nil {
			return err
		}
		var entry struct {
			Message string `json:"msg"`
			URL     string `json:"url"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.URL != "" {
			g.url.Store(&entry.URL)
		}
		if readErr != nil {
			return nil // the pipe ends with the process, which Wait tells about
		}
	}
}

// demoValue is one entry of /api/v1/values.
type demoValue struct {
	Device  string          `json:"device"`
	Point   string          `json:"point"`
	Value   json.RawMessage `json:"value"`
	Unit    string          `json:"unit"`
	Quality string          `json:"quality"`
	Time    time.Time       `json:"time"`
}

// values asks the gateway for its latest values.
func (g *demoGateway) values() ([]demoValue, error) {
	url := g.url.Load()
	if url == nil {
		return nil, errors.New("starting")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, *url+"/api/v1/values", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	var values []demoValue
	err = json.NewDecoder(response.Body).Decode(&values)
	return values, errors.Join(err, response.Body.Close())
}

// kill ends the process with SIGKILL and waits for it.
func (g *demoGateway) kill() error {
	if err := g.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill the gateway: %w", err)
	}
	<-g.ended // "signal: killed"
	g.gone = true
	return nil
}

// end asks the process to end and waits for it; after ten seconds it is killed.
func (g *demoGateway) end() error {
	if g.gone {
		return nil
	}
	_ = g.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended, which the result tells
	select {
	case err := <-g.ended:
		return err
	case <-time.After(10 * time.Second):
		return errors.Join(errors.New("the gateway did not end within 10 s"), g.kill())
	}
}
