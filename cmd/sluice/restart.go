package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"sluice/mapping/command"
)

// restartPause is the least time between two restarts that hosts ask for, over
// the restarts themselves. One that asks at every birth does no more harm than
// that.
const restartPause = 5 * time.Minute

// restart is the request of a Sparkplug host to start the program anew.
type restart struct{ upstream, topic string }

// restartNote is the last restart that was granted. It stands in the data folder.
type restartNote struct {
	At       time.Time `json:"at"`
	Upstream string    `json:"upstream"`
}

func restartFile(dir string) string { return filepath.Join(dir, "restart.json") }

// readRestart returns the last restart, the zero restartNote if there is none
// or the file is damaged.
func readRestart(dir string) (note restartNote) {
	data, err := os.ReadFile(restartFile(dir))
	if err != nil || json.Unmarshal(data, &note) != nil {
		return restartNote{}
	}
	return note
}

// askRestart passes a request on to the goroutine of run. It does not wait; while
// one request is there, further ones are the same.
func (g *gateway) askRestart(r restart) {
	select {
	case g.restarts <- r:
	default:
	}
}

// grantRestart reports whether r is carried out, and writes down that it is, or
// why not.
func (g *gateway) grantRestart(r restart) bool {
	now := g.clock.Now()
	e := command.Entry{At: now.Time().UTC(), Trusted: now.Trusted, Event: command.EventRestart,
		Origin: command.Sparkplug, Name: r.upstream, Client: r.topic, Code: command.OK}
	code, why := g.mayRestart(e.At)
	if why == "" {
		_, err := g.audit.Append(e)
		if err == nil {
			err = g.noteRestart(restartNote{e.At, r.upstream})
		}
		if err == nil {
			g.log.Info("a Sparkplug host has the program started anew", "upstream", r.upstream)
			return true
		}
		code, why = command.AuditFailed, err.Error()
	}
	if time.Since(g.refusedRestart) < restartPause {
		return false // a host that asks all the time fills neither log
	}
	g.refusedRestart = time.Now()
	g.log.Warn("a Sparkplug host may not have the program started anew now", "upstream", r.upstream, "reason", why)
	if code == command.AuditFailed {
		return false
	}
	e.Event, e.Code, e.Message = command.EventRefused, code, "restart: "+why
	if _, err := g.audit.Append(e); err != nil {
		g.log.Error("a refused restart is not written down", "error", err)
	}
	return false
}

// noteRestart keeps a restart for the process that follows. It comes last, so that
// none is noted that was not granted.
func (g *gateway) noteRestart(note restartNote) error {
	data, err := json.Marshal(note)
	if err != nil {
		return err
	}
	return writeDurably(restartFile(g.now().site.Buffer.Dir), append(data, '\n'))
}

// mayRestart says what speaks against a restart now; "" if nothing does.
func (g *gateway) mayRestart(now time.Time) (command.Code, string) {
	if age := now.Sub(g.restarted.At); age >= 0 && age < restartPause {
		return command.TooFast, fmt.Sprintf("the last one was %v ago, and there is one in %v", age.Round(time.Second), restartPause)
	}
	// One that cannot run would leave nobody to mend it from afar.
	if _, _, err := loadSite(g.now().site.path); err != nil {
		return command.NotWritable, fmt.Sprintf("the site file has changed and cannot run, see sluice check: %v", err)
	}
	return command.OK, ""
}

// startAgain replaces the process by the program as it stands on disk now, with
// the same arguments and environment: who watches over it still sees the process
// it started. missing says why there is none. It returns if that fails, and nil if
// ctx is done, as somebody wants an end and no new beginning.
func startAgain(ctx context.Context, program string, missing error) error {
	signal.Ignore(syscall.SIGHUP) // the site file is read again anyway
	signal.Reset(os.Interrupt, syscall.SIGTERM)
	if ctx.Err() != nil {
		return nil
	}
	err := missing
	if err == nil {
		err = syscall.Exec(program, os.Args, os.Environ())
	}
	return fail(exitInternal, fmt.Errorf("start anew: %w", err), "start it again by hand, or have a service manager do so")
}
