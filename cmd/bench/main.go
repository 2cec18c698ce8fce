// Command bench measures a built gateway against the limits that the project
// has set itself, on the machine at hand, and prints one line a limit: what was
// measured, the limit, and the ratio of both. It starts the gateway as a child
// process between simulated meters and a stand-in upstream, all on loopback. It
// is a report and no test: a missed limit is shown, and the exit code stays 0.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// row is one line of the table.
type row struct {
	name    string
	unit    string
	got     float64
	limit   float64
	atLeast bool // limit is a minimum; otherwise a maximum
	note    string
}

// print writes the row, with its ratio to the limit.
func (r row) print() {
	sign, verdict := "≤", "holds"
	if r.atLeast {
		sign = "≥"
	}
	if r.atLeast && r.got < r.limit || !r.atLeast && r.got > r.limit {
		verdict = "MISSED"
	}
	limit := fmt.Sprintf("%s %s", sign, number(r.limit))
	if r.limit == 0 {
		limit, verdict = "–", "for information"
	}
	fmt.Printf("| %s | %s %s | %s | %s | %s |\n", r.name, number(r.got), r.unit, limit, verdict, r.note)
}

// number writes f with three significant digits, without an exponent.
func number(f float64) string {
	switch {
	case f >= 1000:
		return fmt.Sprintf("%.0f", f)
	case f >= 100:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// bench is what all measurements share.
type bench struct {
	binary  string        // the gateway under measurement
	measure time.Duration // how long a rate is observed
}

// measurement fills one or more rows.
type measurement struct {
	name string
	run  func(*bench, context.Context) ([]row, error)
}

var measurements = []measurement{
	{"size", (*bench).size},
	{"first-sample", (*bench).firstSample},
	{"cpu-json", (*bench).cpuJSON},
	{"cpu-message", (*bench).cpuMessage},
	{"memory", (*bench).memory},
	{"silent-unit", (*bench).silentUnit},
	{"illegal-register", (*bench).illegalRegister},
	{"link-down", (*bench).linkDownAtStart},
	{"round-trip", (*bench).roundTrip},
	{"serial", (*bench).serialLine},
	{"drain", (*bench).drain},
	{"wire", (*bench).wire},
	{"disk", (*bench).diskBytes},
	{"broker-rate", (*bench).brokerRate},
	{"broker-idle", (*bench).brokerIdle},
	{"broker-levels", (*bench).brokerLevels},
}

func main() {
	var (
		binary  = flag.String("binary", "bin/sluice", "the gateway to measure")
		only    = flag.String("run", ".", "measurements to run, as a regular expression")
		measure = flag.Duration("time", 20*time.Second, "how long each rate is observed")
	)
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: -run:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := report(ctx, &bench{binary: *binary, measure: *measure}, pattern); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// report runs the chosen measurements and prints the table.
func report(ctx context.Context, b *bench, pattern *regexp.Regexp) error {
	fmt.Printf("Machine: %s, %d cores, %s, %s\n\n", cpuModel(), runtime.NumCPU(), kernel(), runtime.Version())
	fmt.Println("| what | measured | limit | | |")
	fmt.Println("|---|---|---|---|---|")
	for _, m := range measurements {
		if !pattern.MatchString(m.name) {
			continue
		}
		rows, err := m.run(b, ctx)
		for _, r := range rows {
			r.print()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return ctx.Err()
}

// cpuModel returns the processor's name as the kernel gives it.
func cpuModel() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// kernel returns name and release of the running kernel.
func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(release))
}
