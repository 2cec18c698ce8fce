//go:build peers

package peertest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mqttJSVersion is of the client in the browser.
const mqttJSVersion = "5.10.1"

// TestBrowser lets a page in Chromium use the broker with mqtt.js over
// WebSocket, plain and with the certificate that the gateway has made itself.
// The browser trusts the gateway's authority as a user would have it do:
// imported from what `sluice certs ca export` wrote.
func TestBrowser(t *testing.T) {
	t.Parallel()
	g := start(t, "memory", "ws://", "wss://")
	home := t.TempDir()
	trust(t, g, home)
	page, lines := pages(t, modules(t))
	query := url.Values{"at": {"ws://" + g.addresses["ws://"] + "/mqtt", "wss://" + g.addresses["wss://"] + "/mqtt"}}
	browse(t, home, page+"/page.html?"+query.Encode())
	good := 0
	for {
		select {
		case line := <-lines:
			if line == "end" {
				if good != 4 {
					t.Errorf("%d of 4 went well", good)
				}
				return
			}
			if strings.HasPrefix(line, "ok ") {
				good++
			} else {
				t.Error(line)
			}
		case <-time.After(2 * time.Minute):
			t.Fatal("the page says nothing")
		}
	}
}

// TestNode uses mqtt.js outside a browser, as MQTTX and its kind do, over TCP
// and TLS.
func TestNode(t *testing.T) {
	t.Parallel()
	g := start(t, "memory", "", "tls://")
	ca := exportCA(t, g, t.TempDir())
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join("testdata", "client.js"),
		"mqtt://"+g.addresses[""], "mqtts://"+g.addresses["tls://"])
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules(t), "CA="+ca)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "ok ") != 4 {
		t.Errorf("%v\n%s", err, out)
	}
}

// exportCA writes the certificate of the gateway's authority into a folder.
func exportCA(t *testing.T, g *gateway, dir string) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(dir, "ca.pem")
	command(t, path, "certs", "ca", "export", "-c", g.site, "--out", ca)
	return ca
}

// trust puts the authority of the gateway into the certificates of a user.
func trust(t *testing.T, g *gateway, home string) {
	t.Helper()
	ca, store := exportCA(t, g, home), filepath.Join(home, ".pki", "nssdb")
	if err := os.MkdirAll(store, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "certutil", "-d", "sql:"+store, "-N", "--empty-password")
	command(t, "certutil", "-d", "sql:"+store, "-A", "-t", "C,,", "-n", "gateway", "-i", ca)
}

// modules installs mqtt.js and returns the folder.
func modules(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	command(t, "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "mqtt@"+mqttJSVersion)
	return filepath.Join(dir, "node_modules")
}

// pages serves the page and the client, and hands over what the page tells.
func pages(t *testing.T, modules string) (address string, lines <-chan string) {
	t.Helper()
	told := make(chan string, 100)
	mux := http.NewServeMux()
	for _, name := range []string{"page.html", "client.js"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFile(w, r, filepath.Join("testdata", name))
		})
	}
	mux.HandleFunc("GET /mqtt.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(modules, "mqtt", "dist", "mqtt.min.js"))
	})
	mux.HandleFunc("POST /result", func(_ http.ResponseWriter, r *http.Request) {
		line, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
		if err != nil {
			line = []byte(err.Error())
		}
		told <- string(line)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL, told
}

// browse opens a page in Chromium until the test ends.
func browse(t *testing.T, home, page string) {
	t.Helper()
	cmd := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--user-data-dir="+filepath.Join(home, "profile"), page)
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(home, "chromium.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with the processes of its pages
		_ = cmd.Wait()                                      // killed
		_ = log.Close()                                     // written by others
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s", text)
		}
	})
}
