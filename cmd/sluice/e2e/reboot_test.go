//go:build peers

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// edgeReboot is a host that has the program started anew while the history of an
// outage goes out: the process stays, the program is the one that then stands on
// the disk, and no sample is lost. A second request comes too soon.
func edgeReboot(t *testing.T, tools edgeTools) {
	own := filepath.Join(t.TempDir(), "sluice")
	if err := os.Link(tools.program, own); err != nil {
		t.Fatal(err)
	}
	tools.program = own
	r := newEdgeRig(t, tools, edgeSetup{servers: 1, width: 100, every: "20ms", aliases: true, sparkplug: ", reboot: true"})
	proxy := r.list[0].proxy
	r.run()
	r.after(0, "DDATA", 100, func() {})
	proxy.Refuse(true)
	proxy.Cut()
	r.polled(halfOutage)
	r.settle() // the end cuts off a poll that is under way
	before := r.since()
	old, marker := own+".old", own+".new"
	script := fmt.Sprintf("#!/bin/sh\ntouch %s\nexec %s \"$@\"\n", marker, old)
	if err := errors.Join(os.Rename(own, old), os.WriteFile(own, []byte(script), 0o700)); err != nil {
		t.Fatal(err)
	}
	proxy.SetRate(1 << 20)
	proxy.Refuse(false)
	r.after(0, "DDATA", 20, func() {})
	r.after(0, "NDEATH", 1, func() { r.command(0, "Node Control/Reboot") })
	r.meters.release()
	r.after(0, "NBIRTH", 1, func() {})
	proxy.SetRate(0)
	r.after(0, "DDATA", 100, func() { r.command(0, "Node Control/Reboot") })
	r.gateway.base = "" // it listens elsewhere now
	if after := r.since(); !after.After(before) {
		t.Errorf("the program has run since %v, and had before since %v", after, before)
	}
	if _, err := os.Stat(marker); err != nil {
		t.Errorf("it is not the program on the disk: %v", err)
	}
	j := r.verdict() // the process that was started is the one that ends
	if j.births != 3 || j.rebirths != 0 || j.historical < halfOutage*100 {
		t.Errorf("not what should have shown: %s", j.shown())
	}
}

// since returns when the program started.
func (r *edgeRig) since() time.Time {
	r.Helper()
	var s struct {
		Started time.Time `json:"started"`
	}
	if err := r.gateway.get("/api/v1/status", &s); err != nil {
		r.gateway.fatal(err.Error())
	}
	return s.Started
}
