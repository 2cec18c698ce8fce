package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// cpuJSON measures processor seconds per million points, one JSON message a poll.
func (b *bench) cpuJSON(ctx context.Context) ([]row, error) {
	return b.cpu(ctx, "CPU per million points, one JSON a poll, QoS 1, log on disk, local broker on", "json-device", 4)
}

// cpuMessage measures the same with one message a point.
func (b *bench) cpuMessage(ctx context.Context) ([]row, error) {
	return b.cpu(ctx, "CPU per million points, one message a point, all in, QoS 1", "json", 12)
}

// cpu polls 1,000 points every 100 ms and relates the processor time to the
// values that arrived in the same period.
func (b *bench) cpu(ctx context.Context, name, payload string, limit float64) ([]row, error) {
	s := scene{level: "buffered", payload: payload, devices: device("meter", 1, 1000, "100ms")}
	r, err := b.rig(ctx, s, 1, 1000)
	if err != nil {
		return nil, err
	}
	err = waitFor(ctx, 10*time.Second, "the first 20,000 values", func() bool { return r.up.count() >= 20_000 })
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	cpu0, err0 := r.gateway.cpu()
	values0 := r.up.count()
	start := time.Now()
	pause(ctx, b.measure)
	cpu1, err1 := r.gateway.cpu()
	values := r.up.count() - values0
	rate := float64(values) / time.Since(start).Seconds()
	used := (cpu1 - cpu0).Seconds()
	if values == 0 {
		err1 = errors.Join(err1, errors.New("nothing arrived"))
	}
	return []row{{name: name, unit: "s", got: used / float64(values) * 1e6, limit: limit,
		note: fmt.Sprintf("%.0f points/s arrived", rate)}}, errors.Join(err0, err1, r.close())
}

// memory measures resident memory with 1,000 points at 1 s and everything on.
func (b *bench) memory(ctx context.Context) ([]row, error) {
	s := scene{level: "buffered", payload: "json-device", devices: device("meter", 1, 1000, "1s")}
	r, err := b.rig(ctx, s, 1, 1000)
	if err != nil {
		return nil, err
	}
	pause(ctx, b.measure)
	resident, err := r.gateway.residentMB()
	return []row{{name: "resident memory, 1,000 points at 1 s, all on", unit: "MB", got: resident, limit: 25}},
		errors.Join(err, r.close())
}

// diskBytes measures what each level writes to storage with a healthy upstream.
func (b *bench) diskBytes(ctx context.Context) ([]row, error) {
	var rows []row
	for _, level := range []string{"memory", "spill", "buffered", "sync", "sync-backup"} {
		for _, points := range []int{50, 1000} {
			r, err := b.diskLevel(ctx, level, points)
			if err != nil {
				return rows, err
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func (b *bench) diskLevel(ctx context.Context, level string, points int) (row, error) {
	s := scene{level: level, payload: "json-device", devices: device("meter", 1, points, "1s")}
	if level == "sync-backup" {
		s.level = `sync-backup, backup: "{dir}/backup"`
	}
	r, err := b.rig(ctx, s, 1, points)
	if err != nil {
		return row{}, err
	}
	err = waitFor(ctx, 10*time.Second, "the first values", func() bool { return r.up.count() > 0 })
	pause(ctx, 3*time.Second)
	bytes0, err0 := r.gateway.written()
	start := time.Now()
	pause(ctx, b.measure)
	bytes1, err1 := r.gateway.written()
	perDay := (bytes1 - bytes0) / time.Since(start).Seconds() * 86400 / 1e6
	return row{name: fmt.Sprintf("written a day, level %s, %d points/s", level, points), unit: "MB", got: perDay,
		note: "healthy upstream, file system's journal not counted"}, errors.Join(err, err0, err1, r.close())
}

// devices joins the YAML of several devices.
func devices(list ...string) string { return strings.Join(list, "") }
