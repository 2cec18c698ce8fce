package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// gateway is a running child process of the binary under measurement, or of one
// that it is compared with.
type gateway struct {
	cmd     *exec.Cmd
	dir     string
	log     *bytes.Buffer
	started time.Time
}

// start writes site into a new folder and runs the gateway on it.
func (b *bench) start(ctx context.Context, site string) (*gateway, error) {
	return startChild("site.yaml", site, func(path string) *exec.Cmd {
		return exec.CommandContext(ctx, b.binary, "run", "-c", path)
	})
}

// startChild writes config as a file of the given name into a new folder and
// starts a program on it. {dir} in it stands for the folder.
func startChild(name, config string, command func(path string) *exec.Cmd) (*gateway, error) {
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(config, "{dir}", dir)), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	g := &gateway{cmd: command(path), dir: dir, log: new(bytes.Buffer)}
	g.cmd.Stdout, g.cmd.Stderr = g.log, g.log
	g.started = time.Now()
	if err := g.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return g, nil
}

// stop ends the gateway in good order and removes its folder. It returns an
// error with the gateway's log if it had not been running properly.
func (g *gateway) stop() error {
	_ = g.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended already, which Wait tells
	err := g.cmd.Wait()
	if err != nil {
		err = fmt.Errorf("gateway: %w\n%s", err, g.log)
	}
	return errors.Join(err, os.RemoveAll(g.dir))
}

// cpu returns the processor time used so far, in user and system mode
// (proc(5), /proc/pid/stat fields 14 and 15, in ticks of 10 ms).
func (g *gateway) cpu() (time.Duration, error) {
	data, err := os.ReadFile(g.proc("stat"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(data, []byte(") "))
	fields := strings.Fields(string(rest))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s has %d fields after the name", g.proc("stat"), len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// residentMB returns the present resident memory in MiB.
func (g *gateway) residentMB() (float64, error) {
	kB, err := g.procValue("status", "VmRSS")
	return kB / 1024, err
}

// written returns the bytes that the gateway caused to be written to storage.
func (g *gateway) written() (float64, error) { return g.procValue("io", "write_bytes") }

// procValue returns the number behind a key of a file below /proc/pid.
func (g *gateway) procValue(file, key string) (float64, error) {
	data, err := os.ReadFile(g.proc(file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		if name == key {
			number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
			return strconv.ParseFloat(number, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", g.proc(file), key)
}

func (g *gateway) proc(file string) string {
	return fmt.Sprintf("/proc/%d/%s", g.cmd.Process.Pid, file)
}

// pause waits for d, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// waitFor asks done every 20 ms until it is true, for limit at the most.
func waitFor(ctx context.Context, limit time.Duration, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !done() {
		if ctx.Err() != nil {
			return fmt.Errorf("waited %v in vain for %s", limit, what)
		}
		pause(ctx, 20*time.Millisecond)
	}
	return nil
}
