package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// defaultSite is the site file of an installed gateway.
const defaultSite = "/etc/sluice/site.yaml"

// app is what all commands share.
type app struct {
	out      io.Writer // results
	errs     io.Writer // log, progress, errors
	json     bool
	quiet    bool
	failed   error // of the command that ran
	ran      bool  // a command ran; otherwise the command line was wrong
	reported bool  // the command has printed its result itself
}

// execute runs the command line args and returns the exit code.
func execute(ctx context.Context, args []string, out, errs io.Writer) int {
	a := &app{out: out, errs: errs}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	if err := root.ExecuteContext(ctx); err != nil && !a.ran {
		a.failed = fail(exitUsage, err, "see sluice --help")
		a.report(result{}, a.failed)
	}
	return exitCode(a.failed)
}

// root returns the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "sluice",
		Short:         "Edge gateway from Modbus to MQTT that loses nothing",
		Long:          "Sluice polls Modbus devices, keeps their values on disk, and publishes them by MQTT.\n\n" + exitHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(*cobra.Command, []string) error { return errors.New("a command is missing") },
		Version:       thisBuild().Version,

		SuggestionsMinimumDistance: 2,
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print the result as one JSON object {ok, code, data, problems}")
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "no progress on stderr")
	root.AddCommand(a.runCommand(), a.checkCommand(), a.simulateCommand(), a.demoCommand(), a.brokerCommand(), a.certsCommand(), a.usersCommand(), a.auditCommand(),
		a.versionCommand())
	return root
}

// knownCommand refuses a word that is no command, and names those near it.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(text)
}

// result is what a command found.
type result struct {
	data  any                   // for --json
	human func(io.Writer) error // for people; nil prints nothing
	notes []problem             // for --json, besides those of the error
}

// wrap makes run the action of a command: its result is printed and its error
// reported, with the exit code of the cause.
func (a *app) wrap(run func(ctx context.Context, args []string) (result, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.ran = true
		r, err := run(cmd.Context(), args)
		a.failed = err
		if a.reported && err == nil {
			return nil
		}
		if printErr := a.report(r, err); err == nil {
			a.failed = printErr
		}
		return nil
	}
}
