//go:build interop

package peertest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// verdict is a line of testdata/interop.py.
var verdict = regexp.MustCompile(`(?m)^RESULT (\S+) (\S+)$`)

// TestInterop runs the suites for MQTT 3.1.1 and 5 of eclipse/paho.mqtt.testing
// against the program. SLUICE_INTEROP names the folder with a copy of it.
func TestInterop(t *testing.T) {
	folder := os.Getenv("SLUICE_INTEROP")
	if folder == "" {
		t.Fatal("SLUICE_INTEROP has to name a copy of eclipse/paho.mqtt.testing")
	}
	for _, suite := range []struct {
		module string
		tests  int
	}{{"client_test", 10}, {"client_test5", 27}} {
		t.Run(suite.module, func(t *testing.T) {
			t.Parallel()
			host, port, err := net.SplitHostPort(start(t, "memory", "").addresses[""])
			if err != nil {
				t.Fatal(err)
			}
			script, err := filepath.Abs("testdata/interop.py")
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "python3", "-W", "ignore", script, suite.module, host, port)
			cmd.Dir = filepath.Join(folder, "interoperability")
			out, err := cmd.CombinedOutput()
			results := verdict.FindAllSubmatch(out, -1)
			passed := 0
			for _, r := range results {
				if string(r[2]) == "ok" {
					passed++
				} else {
					t.Errorf("%s: %s", r[1], r[2])
				}
			}
			if err != nil || passed != suite.tests {
				t.Errorf("%d of %d passed, %v\n%s", passed, suite.tests, err, out)
			}
		})
	}
}
