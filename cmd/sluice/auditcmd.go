package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sluice/mapping/command"
)

// auditCommand is `sluice audit`.
func (a *app) auditCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "The audit log of commands",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("a command is missing: see sluice audit --help")
		},
	}
	var f folder
	f.flags(c)
	c.AddCommand(&cobra.Command{
		Use:   "verify",
		Short: "Check that no line of the audit log was changed or removed",
		Long: "Check every line of the audit log and the chain of their hashes, and print the number and the hash of the last\n" +
			"line. Kept elsewhere, they tell later that nothing up to there was made anew. The exit code is 1 when the chain\n" +
			"does not hold; the place is named.",
		Args: cobra.NoArgs,
		RunE: a.wrap(func(context.Context, []string) (result, error) { return verifyAudit(&f) }),
	})
	return c
}

// verifyAudit checks the audit log of a data folder.
func verifyAudit(f *folder) (result, error) {
	dir, _, err := f.find()
	if err != nil {
		return result{}, err
	}
	v, err := command.Verify(filepath.Join(dir, "audit"))
	var broken *command.Broken
	switch {
	case errors.As(err, &broken):
		return result{data: v}, fail(exitInternal, err, "somebody or something has changed the audit log; compare it with a copy")
	case errors.Is(err, fs.ErrNotExist):
		return result{}, fail(exitUsage, err, "no command has come yet, or the data folder is another one")
	case err != nil:
		return result{}, err
	}
	return result{data: v, human: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "ok: lines %d to %d in %d file(s), %s to %s\nlast hash %s\n", v.First, v.Last, v.Files,
			v.From.Format(time.RFC3339), v.To.Format(time.RFC3339), v.Hash)
		if err == nil && len(v.Open) > 0 {
			_, err = fmt.Fprintf(w, "writes whose outcome is not known: lines %v\n", v.Open)
		}
		if err == nil && v.Unfinished {
			_, err = fmt.Fprintln(w, "the last line is not finished: the gateway is writing, or was killed")
		}
		return err
	}}, nil
}
