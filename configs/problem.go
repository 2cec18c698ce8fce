// Package configs is about configuration files: problems in them with their
// place and their remedy, strict decoding of YAML, and the embedded sample
// site files and meter profiles. It knows the meaning of no key.
package configs

import (
	"fmt"
)

// Problem is something wrong at one place of a file, with the way to mend it.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`    // from 1; 0: the file as a whole
	Column  int    `json:"col,omitempty"`     // from 1, counted in characters
	Warning bool   `json:"warning,omitempty"` // the file can be used all the same
	Code    string `json:"code"`              // stable: SLUICE-CFG-012
	Message string `json:"msg"`               // what is wrong, lower case
	Fix     string `json:"fix,omitempty"`     // what to do, lower case
	// Device is set when only this device is hurt by it and the others run.
	Device string `json:"device,omitempty"`
	// Excerpt is the line of the file, without its line end and with the values
	// of secret keys masked.
	Excerpt string `json:"-"`
}

// Error returns "file:line:col: error: message"; without a line, it is the file
// alone.
func (p *Problem) Error() string {
	severity := "error"
	if p.Warning {
		severity = "warning"
	}
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", p.File, severity, p.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Column, severity, p.Message)
}

// FieldError is a problem that a package's Config.Validate found in its own
// part of a file. The decoder turns it into a Problem by looking up where the
// field stands.
type FieldError struct {
	// Field is the key path below the validated struct, such as "tls.cert" or
	// "servers[1]"; empty for the struct as a whole.
	Field   string
	Message string
	Fix     string
	Warning bool
	// Code is the stable code; empty for CodeSetting.
	Code string
}

// Validator is implemented by configuration structs. Decode calls Validate on
// every one it has filled, after the defaults were set; it returns every
// problem at once.
type Validator interface {
	Validate() []FieldError
}

// Defaulter is implemented by configuration structs that have defaults. Decode
// calls SetDefaults on a struct before it reads the keys into it.
type Defaulter interface {
	SetDefaults()
}
