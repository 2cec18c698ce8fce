package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"sluice/configs"
)

// problem is an entry of "problems" in the output of --json.
type problem = configs.Problem

// envelope is the output of --json.
type envelope struct {
	OK       bool      `json:"ok"`
	Code     int       `json:"code"`
	Data     any       `json:"data"`
	Problems []problem `json:"problems"`
}

// report prints the result of a command and its error: as one JSON object on
// out, or the result on out and the error on errs.
func (a *app) report(r result, err error) error {
	var f *failure
	problems := append([]problem{}, r.notes...)
	if errors.As(err, &f) && f.problems != nil {
		problems = f.problems
	}
	if a.json {
		if err != nil && !configs.Refused(problems) {
			p := problem{Code: fmt.Sprintf("SLUICE-EXIT-%03d", exitCode(err)), Message: err.Error()}
			if f != nil {
				p.Fix = f.fix
			}
			problems = append(problems, p)
		}
		return json.NewEncoder(a.out).Encode(envelope{err == nil, exitCode(err), r.data, problems})
	}
	var printErr error
	if r.human != nil {
		printErr = r.human(a.out)
	}
	if f != nil && r.human == nil {
		printErr = errors.Join(printErr, configs.Print(a.errs, f.problems))
	}
	if err != nil {
		text := "sluice: " + err.Error() + "\n"
		if f != nil && f.fix != "" {
			text += "        " + f.fix + "\n"
		}
		_, writeErr := io.WriteString(a.errs, text)
		printErr = errors.Join(printErr, writeErr)
	}
	return printErr
}

// terminal returns width and height of w in characters, and false if w is no
// terminal. One that does not tell counts as 80 by 24.
func terminal(w io.Writer) (width, height int, ok bool) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, false
	}
	if size.Col == 0 || size.Row == 0 {
		return 80, 24, true
	}
	return int(size.Col), int(size.Row), true
}

// colour reports whether w may be written to with colours: it is a terminal,
// and NO_COLOR is not set (no-color.org).
func colour(w io.Writer) bool {
	_, _, ok := terminal(w)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
