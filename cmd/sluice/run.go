package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluice/dashboard"
	"sluice/localbroker/spool"
	"sluice/sources/hostclock"
)

func (a *app) runCommand() *cobra.Command {
	path, level := defaultSite, ""
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway",
		Long: "Run the gateway until SIGTERM or SIGINT. SIGHUP reads the site file again; one that cannot run\n" +
			"is refused, and the old one goes on.\n\n" + exitHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("run takes no argument; the site file is named sluice run -c %s", args[0])
			}
			return nil
		},
		RunE: a.wrap(func(ctx context.Context, _ []string) (result, error) {
			program, missing := os.Executable() // before it is replaced by a newer one
			again, err := run(ctx, path, level, a.errs)
			if again {
				err = startAgain(ctx, program, missing)
			}
			return result{}, err
		}),
	}
	c.Flags().StringVarP(&path, "config", "c", path, "site file")
	c.Flags().StringVar(&level, "log-level", "", "debug, info, warn or error, instead of log.level in the site file")
	_ = c.MarkFlagFilename("config", "yaml", "yml") // fails only for a flag that is not there
	return c
}

// run is the composition root: it makes the parts in the order in which data
// passes through them, runs them until ctx is done, and ends them in the same
// order. again says that a host wants it started anew, whatever the error of the
// end, which is logged.
func run(ctx context.Context, path, level string, logs io.Writer) (again bool, err error) {
	hangUp := make(chan os.Signal, 1) // from here on SIGHUP ends nothing
	signal.Notify(hangUp, syscall.SIGHUP)
	defer signal.Stop(hangUp)
	s, problems, err := loadSite(path)
	if err != nil {
		return false, err
	}
	g := &gateway{build: thisBuild(), values: new(dashboard.Values), started: time.Now().UTC(), restarts: make(chan restart, 1),
		scans: make(chan scanRequest, 8), rates: make(map[string]time.Duration)}
	if err := g.level.fix(level); err != nil {
		return false, fail(exitUsage, err, "use debug, info, warn or error")
	}
	g.level.follow(s.Log)
	g.log = newLogger(logs, s.Log.Format, &g.level, os.Getenv("JOURNAL_STREAM") != "")
	g.log.Info("gateway starts", "version", g.build.Version, "site", s.model.Name, "file", path)
	g.logProblems(problems)

	trust, err := hostclock.ParseTrust(s.Clock.Trust)
	if err != nil {
		return false, fail(exitConfig, err, "")
	}
	g.clock = hostclock.New(hostclock.Config{Trust: trust, Built: g.build.Built})
	if g.spool, err = openSpool(s, g.clock, g.log); err != nil {
		return false, err
	}
	if floor := g.spool.Floor(); !floor.IsZero() {
		g.clock.NotBefore(floor.UnixNano())
	}
	if g.machine, err = machineID(s.Buffer.Dir); err != nil {
		return false, errors.Join(err, g.spool.Close())
	}
	g.restarted = readRestart(s.Buffer.Dir)
	p, err := g.prepare(s, nil)
	if err != nil {
		return false, errors.Join(err, g.spool.Close())
	}
	g.openFormer(s.Buffer.Dir)
	g.reviewFormer(s)
	g.keeper = startStage("keeper", g.log, g.spool.Run, g.watchClock)
	g.start(p)
	g.control = startStage("control", g.log, g.serveControl)
	again = g.serve(ctx, hangUp, newNotifier(os.Getenv))
	if err = g.stop(); err != nil && again {
		g.log.Error("the end before the new start", "err", err)
	}
	return again, err
}

// openSpool opens the log. A folder that cannot be used ends the process.
func openSpool(s *site, clock *hostclock.Clock, log *slog.Logger) (*spool.Spool, error) {
	opened, err := spool.Open(s.Buffer.Dir, s.Buffer, clock, log.With("stage", "spool"))
	if errors.Is(err, spool.ErrBusy) {
		holder := lockHolder(filepath.Join(s.Buffer.Dir, "lock"))
		return nil, fail(exitBusy, fmt.Errorf("data folder %s is in use by %s", s.Buffer.Dir, holder), "stop that process, or set buffer.dir")
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fail(exitPermission, fmt.Errorf("open data folder: %w", err), "give the folder to the user of the gateway, or set buffer.dir")
	}
	if err != nil {
		return nil, fail(exitInternal, fmt.Errorf("open data folder: %w", err), "check buffer.dir in the site file, and its disk")
	}
	return opened, nil
}
