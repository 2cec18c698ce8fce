package main

import (
	"context"
	"errors"
	"io/fs"

	"sluice/configs"
	"sluice/localbroker/spool"
)

// The exit codes, by cause. They are printed in --help; a code once released
// keeps its meaning.
const (
	exitOK          = 0
	exitInternal    = 1
	exitUsage       = 2
	exitConfig      = 3
	exitField       = 4
	exitNetwork     = 5
	exitTLS         = 6
	exitRefused     = 7
	exitPartial     = 8
	exitPermission  = 9
	exitBusy        = 10
	exitTimeout     = 124
	exitInterrupted = 130
)

// exitHelp is the part of --help about the codes.
const exitHelp = `Exit codes:
  0    success
  1    internal or unexpected error
  2    wrong usage
  3    site file invalid
  4    field side: port, bus or device
  5    upstream: name or connection
  6    upstream: TLS
  7    upstream: MQTT refused or not authorised
  8    partial: some devices or points failed
  9    permission denied
  10   busy: port or data folder in use
  124  timed out
  130  interrupted`

// failure is an error with the exit code of its cause and what to do.
type failure struct {
	code int
	err  error
	fix  string
	// problems are those of the site file, when they are the cause.
	problems []configs.Problem
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// fail gives err an exit code.
func fail(code int, err error, fix string) error { return &failure{code: code, err: err, fix: fix} }

// exitCode returns the code for what a command returned.
func exitCode(err error) int {
	var f *failure
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &f):
		return f.code
	case errors.Is(err, spool.ErrBusy):
		return exitBusy
	case errors.Is(err, fs.ErrPermission):
		return exitPermission
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitInternal
}
