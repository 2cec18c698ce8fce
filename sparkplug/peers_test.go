//go:build peers

package sparkplug

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sluice/sources"
)

// The releases of Eclipse Tahu for JavaScript, from npm: the codec, and the
// client, which also opens compressed payloads.
const (
	tahuVersion       = "1.0.3"
	tahuClientVersion = "3.2.4"
)

var update = flag.Bool("update", false, "write testdata/tahu.hex again")

// tahu runs testdata/tahu.js over lines.
func tahu(t *testing.T, modules, mode string, lines []string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join("testdata", "tahu.js"), mode)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	var failed bytes.Buffer
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, failed.String())
	}
	result := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(result) != len(lines) {
		t.Fatalf("%d answers to %d lines", len(result), len(lines))
	}
	return result
}

// TestTahu has the codec of Eclipse Tahu read what we write and write what we
// read.
func TestTahu(t *testing.T) {
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "sparkplug-payload@"+tahuVersion, "sparkplug-client@"+tahuClientVersion)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	modules := filepath.Join(dir, "node_modules")
	t.Run("reads every datatype", func(t *testing.T) {
		var lines, want []string
		for _, p := range vectors() {
			lines, want = append(lines, hex.EncodeToString(AppendPayload(nil, &p))), append(want, line(&p))
		}
		for i, got := range tahu(t, modules, "decode", lines) {
			if got != want[i] {
				t.Errorf("got  %s\nwant %s", got, want[i])
			}
		}
	})
	t.Run("reads a whole life", func(t *testing.T) {
		for _, change := range []func(*Config){
			func(c *Config) { c.Aliases = false },
			func(c *Config) { c.Aliases = true },
			func(c *Config) { c.Templates = true },
			func(c *Config) { c.Templates, c.DatatypeInData = true, true },
			func(c *Config) { c.DatatypeInData = true }, // it shows no value without a datatype
		} {
			r := fullLife(t, change, 300)
			var lines, want []string
			for i := range r.trace {
				p, err := Decode(r.trace[i].m.Payload)
				if err != nil {
					t.Fatal(err)
				}
				lines, want = append(lines, hex.EncodeToString(r.trace[i].m.Payload)), append(want, line(p))
			}
			for i, got := range tahu(t, modules, "decode", lines) {
				if got != want[i] {
					t.Errorf("got  %s\nwant %s", got, want[i])
				}
			}
		}
	})
	t.Run("opens what is compressed", func(t *testing.T) {
		for _, aliases := range []bool{true, false} {
			r := compressedLife(t, func(c *Config) { c.Aliases, c.DatatypeInData = aliases, true })
			var lines, want []string
			for i := range r.wire {
				p, err := Decode(r.wire[i].Payload)
				if err != nil {
					t.Fatal(err)
				}
				lines, want = append(lines, hex.EncodeToString(r.wire[i].Payload)), append(want, line(p))
			}
			for i, got := range tahu(t, modules, "unpack", lines) {
				if got != want[i] {
					t.Errorf("got  %s\nwant %s", got, want[i])
				}
			}
		}
	})
	t.Run("writes what we read", func(t *testing.T) {
		var lines []string
		for _, p := range vectors() {
			lines = append(lines, asJSON(t, &p))
		}
		got := []byte(strings.Join(tahu(t, modules, "encode", lines), "\n") + "\n")
		if *update {
			if err := os.WriteFile("testdata/tahu.hex", got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if golden, err := os.ReadFile("testdata/tahu.hex"); err != nil || !bytes.Equal(golden, got) {
			t.Errorf("testdata/tahu.hex is not what it writes: %v", err)
		}
	})
}

// asJSON writes a payload as encodePayload wants it, with values as text.
func asJSON(t *testing.T, p *Payload) string {
	t.Helper()
	value := func(v sources.Value) any {
		if v.Kind() == sources.KindNone {
			return nil
		}
		return v.String()
	}
	var metrics []map[string]any
	for i := range p.Metrics {
		m := &p.Metrics[i]
		x := map[string]any{"name": m.Name, "type": m.Datatype.String(), "timestamp": m.Timestamp, "value": value(m.Value)}
		if m.HasAlias {
			x["alias"] = strconv.FormatUint(m.Alias, 10)
		}
		if m.Historical {
			x["isHistorical"] = true
		}
		if m.Transient {
			x["isTransient"] = true
		}
		props := make(map[string]any)
		for _, q := range m.Properties {
			props[q.Key] = map[string]any{"type": q.Type.String(), "value": value(q.Value)}
		}
		if len(props) > 0 {
			x["properties"] = props
		}
		metrics = append(metrics, x)
	}
	text, err := json.Marshal(map[string]any{"timestamp": p.Timestamp, "seq": p.Seq, "metrics": metrics})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
