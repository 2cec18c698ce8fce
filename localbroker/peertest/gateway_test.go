//go:build peers || interop

package peertest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// site is a gateway that is a broker only. Anonymous clients may do anything
// but read below test/.
const site = `site: interop
clock: { trust: always }
buffer: { dir: "{dir}/data", level: {level} }
http: { listen: "127.0.0.1:0" }
broker:
  listen: [{listen}]
  publish: ["#"]
  keep_alive_max: 60s
  read: ["TopicA/#", "Topic/#", "/TopicA/#", "fromb/#", "client_test5/#"]
`

// program builds the program once for all tests and returns its path.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-peertest-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "sluice")
	if out, err := exec.Command("go", "build", "-o", path, "sluice/cmd/sluice").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := program(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path)) // a folder of its own
	}
	os.Exit(code)
}

// gateway is the program as a child process.
type gateway struct {
	t         *testing.T
	dir       string
	site      string // file
	addresses map[string]string
	cmd       *exec.Cmd
	mu        sync.Mutex // guards log
	log       strings.Builder
	read      chan struct{} // closed when the log has been read to its end
}

// start runs the program with a listener for each of schemes, such as "" for
// plain TCP or "ws://", until the test ends.
func start(t *testing.T, level string, schemes ...string) *gateway {
	t.Helper()
	return startWith(t, level, "", schemes...)
}

// startWith is start with more lines of the section broker.
func startWith(t *testing.T, level, more string, schemes ...string) *gateway {
	t.Helper()
	g := &gateway{t: t, dir: t.TempDir()}
	var listen []string
	for _, scheme := range schemes {
		listen = append(listen, `"`+scheme+`127.0.0.1:0"`)
	}
	text := strings.NewReplacer("{dir}", g.dir, "{level}", level, "{listen}", strings.Join(listen, ", ")).Replace(site + more)
	g.site = filepath.Join(g.dir, "site.yaml")
	if err := os.WriteFile(g.site, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g.run(len(schemes))
	t.Cleanup(func() { g.stop(syscall.SIGKILL) })
	return g
}

// listening is the line of the log that tells where a listener has been bound.
var listening = regexp.MustCompile(`msg=listening stage=broker address=(\S+) bound=(\S+)`)

// run starts the process and waits for its listeners.
func (g *gateway) run(listeners int) {
	g.t.Helper()
	path, err := program()
	if err != nil {
		g.t.Fatal(err)
	}
	g.cmd = exec.Command(path, "run", "-c", g.site)
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := g.cmd.StderrPipe()
	if err == nil {
		err = g.cmd.Start()
	}
	if err != nil {
		g.t.Fatal(err)
	}
	g.addresses, g.read = make(map[string]string), make(chan struct{})
	bound := make(chan []string, listeners)
	go func() {
		defer close(g.read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			g.mu.Lock()
			g.log.WriteString(lines.Text() + "\n")
			g.mu.Unlock()
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				bound <- m
			}
		}
	}()
	for range listeners {
		select {
		case m := <-bound:
			scheme, _, _ := strings.Cut(m[1], "127.0.0.1")
			g.addresses[scheme] = m[2]
		case <-g.read:
			g.t.Fatalf("the gateway ended:\n%s", g.text())
		case <-time.After(patience):
			g.t.Fatalf("the gateway does not listen:\n%s", g.text())
		}
	}
}

// text returns the log so far.
func (g *gateway) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.String()
}

// stop ends the process with a signal and waits for its end.
func (g *gateway) stop(with syscall.Signal) {
	g.t.Helper()
	_ = g.cmd.Process.Signal(with) // fails only if it has ended already, which Wait tells
	<-g.read
	if err := g.cmd.Wait(); err != nil && with != syscall.SIGKILL {
		g.t.Errorf("the gateway ended with %v:\n%s", err, g.text())
	}
}

// command runs a program to its end and returns what it printed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
