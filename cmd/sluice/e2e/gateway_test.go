//go:build peers

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// build compiles the program for a target, such as GOARCH=arm, and returns
// its path.
func build(t *testing.T, environment ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "sluice/cmd/sluice")
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), environment...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build for %v: %v\n%s", environment, err, out)
	}
	return path
}

// gateway is the program as a child process.
type gateway struct {
	t     *testing.T
	cmd   *exec.Cmd
	url   chan string   // gets the address of the HTTP endpoint
	base  string        // taken from url
	ended chan struct{} // closed when the process has ended
	err   error         // of the process; read after ended
	log   string        // file
}

// startGateway runs command with the arguments of `sluice run` on a site file.
func startGateway(t *testing.T, site string, command ...string) *gateway {
	t.Helper()
	g := &gateway{t: t, url: make(chan string, 1), ended: make(chan struct{}), log: filepath.Join(filepath.Dir(site), "gateway.log")}
	command = append(command, "run", "-c", site)
	g.cmd = exec.Command(command[0], command[1:]...)
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(g.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	out, err := g.cmd.StderrPipe()
	if err == nil {
		err = g.cmd.Start()
	}
	if err != nil {
		t.Fatal(errors.Join(err, log.Close()))
	}
	go func() {
		defer close(g.ended)
		err := g.follow(out, log)
		g.err = errors.Join(g.cmd.Wait(), err, log.Close())
	}()
	t.Cleanup(func() { // unless it has ended in good order
		_ = g.cmd.Process.Kill()
		<-g.ended
	})
	return g
}

// follow copies the log and takes from it where the endpoint is.
func (g *gateway) follow(out io.Reader, log io.Writer) error {
	lines := bufio.NewReader(out)
	for {
		line, readErr := lines.ReadBytes('\n')
		if _, err := log.Write(line); err != nil {
			return err
		}
		var entry struct {
			URL string `json:"url"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.URL != "" {
			select {
			case g.url <- entry.URL:
			default: // there is one already
			}
		}
		if readErr != nil {
			return nil // the pipe ends with the process
		}
	}
}

// get asks the endpoint and decodes the JSON answer.
func (g *gateway) get(path string, into any) error {
	g.t.Helper()
	if g.base == "" {
		select {
		case g.base = <-g.url:
		case <-g.ended:
			g.fatal("the gateway ended before it listened")
		case <-time.After(time.Minute):
			g.fatal("the gateway does not listen")
		}
	}
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Get(g.base + path)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.300s", path, response.Status, body)
	}
	return json.Unmarshal(body, into)
}

// shownValue is one entry of /api/v1/values.
type shownValue struct {
	Device  string  `json:"device"`
	Point   string  `json:"point"`
	Value   rawJSON `json:"value"`
	Quality string  `json:"quality"`
}

// rawJSON is a value as it is written.
type rawJSON string

func (r *rawJSON) UnmarshalJSON(text []byte) error {
	*r = rawJSON(text)
	return nil
}

// gatewayStatus is what is used of /api/v1/status.
type gatewayStatus struct {
	Spool struct {
		Records uint64            `json:"records"`
		Dropped map[string]uint64 `json:"dropped"`
		Cursors map[string]struct {
			Records uint64 `json:"records"`
			Lost    uint64 `json:"lost"`
		} `json:"cursors"`
	} `json:"spool"`
	Upstreams []struct {
		Connects  uint64  `json:"connects"`
		Messages  uint64  `json:"messages"`
		Repeated  uint64  `json:"repeated"`
		StrayAcks uint64  `json:"stray_acks"`
		Backlog   backlog `json:"backlog"`
	} `json:"upstreams"`
}

type backlog struct {
	Records uint64 `json:"records"`
}

// signal sends a signal to the process.
func (g *gateway) signal(s syscall.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(s); err != nil {
		g.fatal(fmt.Sprint(s, ": ", err))
	}
}

// kill ends the process with SIGKILL.
func (g *gateway) kill() {
	g.t.Helper()
	g.signal(syscall.SIGKILL)
	<-g.ended
}

// end asks the process to end and wants it to do so in good order.
func (g *gateway) end() {
	g.t.Helper()
	g.signal(syscall.SIGTERM)
	select {
	case <-g.ended:
		if g.err != nil {
			g.fatal("the gateway ended badly: " + g.err.Error())
		}
	case <-time.After(20 * time.Second):
		g.fatal("the gateway does not end")
	}
}

// fatal ends the test with the last lines of the log.
func (g *gateway) fatal(why string) {
	g.t.Helper()
	log, err := os.ReadFile(g.log)
	if err != nil {
		g.t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	g.t.Fatalf("%s; the log ends with\n%s", why, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}
