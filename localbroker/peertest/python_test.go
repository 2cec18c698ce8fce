//go:build peers

package peertest

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// pahoVersion is of the Python client.
const pahoVersion = "2.1.0"

func TestPahoPython(t *testing.T) {
	t.Parallel()
	g := start(t, "memory", "", "ws://")
	venv := filepath.Join(t.TempDir(), "venv")
	command(t, "python3", "-m", "venv", venv)
	python := filepath.Join(venv, "bin", "python")
	command(t, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "paho-mqtt=="+pahoVersion)
	host, port, err := net.SplitHostPort(g.addresses[""])
	if err != nil {
		t.Fatal(err)
	}
	_, web, err := net.SplitHostPort(g.addresses["ws://"])
	if err != nil {
		t.Fatal(err)
	}
	out := command(t, python, filepath.Join("testdata", "client.py"), host, port, web)
	if n := strings.Count(out, "ok "); n != 6 {
		t.Errorf("%d of 6 went well:\n%s", n, out)
	}
}
