// Package jsonpath names one value in a JSON document, as in $.temp,
// $.sensors[0].value and $['odd name']. There are no filters, no wildcards and
// no slices: a path means one place. It knows nothing of where documents come
// from, and imports nothing of this module.
package jsonpath

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The bounds of a path.
const (
	maxLength = 1024 // bytes
	maxIndex  = 1 << 20
)

// Path is a parsed path. The zero Path is none; "$" is the whole document. A
// Path does not change and may be shared.
type Path struct {
	text  string
	steps []step
}

// step goes from a value to one inside it.
type step struct {
	name  string // of a member of an object
	index int    // in an array; -1 for a step by name
}

// Error says what is wrong in a path, and where.
type Error struct {
	Offset  int // bytes into the path
	Message string
	Fix     string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Parse parses a path. The error is an *Error.
//
//	path  = "$" *( "." name / "[" number "]" / "['" name "']" )
//	name  = any characters but . [ ] and blanks, at least one
//
// In brackets a name stands in single or double quotes and may hold anything
// but that quote.
func Parse(text string) (Path, error) {
	p := Path{text: text}
	switch {
	case text == "" || text[0] != '$':
		return Path{}, &Error{0, "a path begins with $", "for example $.temperature"}
	case len(text) > maxLength:
		return Path{}, &Error{maxLength, "the path is longer than 1024 bytes", ""}
	case !utf8.ValidString(text):
		return Path{}, &Error{0, "the path is not UTF-8", ""}
	}
	for i := 1; i < len(text); {
		var s step
		var n int
		var err error
		switch text[i] {
		case '.':
			s, n, err = parseName(text, i)
		case '[':
			s, n, err = parseBrackets(text, i)
		default:
			err = &Error{i, "a . or [ is missing in the path", "for example $.temperature or $.sensors[0]"}
		}
		if err != nil {
			return Path{}, err
		}
		p.steps = append(p.steps, s)
		i += n
	}
	return p, nil
}

// parseName parses .name at i, and returns its length.
func parseName(text string, i int) (step, int, error) {
	name := text[i+1:]
	if end := strings.IndexAny(name, ".[] \t\n\r"); end >= 0 {
		name = name[:end]
	}
	switch {
	case name == "":
		return step{}, 0, &Error{i, "a name is missing behind the .", "for example $.temperature"}
	case name == "*":
		return step{}, 0, &Error{i + 1, "a path has no wildcards: it means one value", "write the name, or the number as [0]"}
	}
	if next := i + 1 + len(name); next < len(text) && strings.IndexByte(".[", text[next]) < 0 {
		return step{}, 0, &Error{next, quoted(text[next:next+1]) + " cannot be in a name", "put the name in quotes: ['odd name']"}
	}
	return step{name: name, index: -1}, 1 + len(name), nil
}

// parseBrackets parses [0] or ['name'] at i, and returns its length.
func parseBrackets(text string, i int) (step, int, error) {
	rest := text[i+1:]
	if rest == "" {
		return step{}, 0, &Error{i, "the [ is not closed", "add a number and ]"}
	}
	if quote := rest[0]; quote == '\'' || quote == '"' {
		end := strings.IndexByte(rest[1:], quote)
		if end < 0 || len(rest) < end+3 || rest[end+2] != ']' {
			return step{}, 0, &Error{i, "the [ is not closed", "write ['name']"}
		}
		return step{name: rest[1 : end+1], index: -1}, end + 4, nil
	}
	end := strings.IndexByte(rest, ']')
	if end < 0 {
		return step{}, 0, &Error{i, "the [ is not closed", "add a ]"}
	}
	n, err := strconv.ParseUint(rest[:end], 10, 32)
	if err != nil || n > maxIndex {
		return step{}, 0, &Error{i + 1, quoted(rest[:end]) + " is not the number of an element", "elements count from 0: [0]; a name in brackets is quoted: ['name']"}
	}
	return step{index: int(n)}, end + 2, nil
}

// String returns the path as it was written.
func (p Path) String() string { return p.text }

// IsZero reports whether there is no path.
func (p Path) IsZero() bool { return p.text == "" }

// NotFound says at which place of a document a path ends.
type NotFound struct {
	Step string // what is not there: .temp or [3]
	At   string // where it was looked for: $.sensors
	Have string // what is there instead, in words
}

// Error returns all of it in a sentence.
func (e *NotFound) Error() string {
	return fmt.Sprintf("no %s at %s, which %s", e.Step, e.At, e.Have)
}

// Find returns the value that p names in doc, which is as encoding/json decodes
// into an any. The error is a *NotFound.
func (p Path) Find(doc any) (any, error) {
	v := doc
	for i := range p.steps {
		s := &p.steps[i]
		var inner any
		found := false
		switch outer := v.(type) {
		case map[string]any:
			if s.index < 0 {
				inner, found = outer[s.name]
			}
		case []any:
			if s.index >= 0 && s.index < len(outer) {
				inner, found = outer[s.index], true
			}
		}
		if !found {
			return nil, &NotFound{s.String(), Path{steps: p.steps[:i]}.rebuilt(), describe(v)}
		}
		v = inner
	}
	return v, nil
}

// String returns the step as in a path.
func (s *step) String() string {
	switch {
	case s.index >= 0:
		return "[" + strconv.Itoa(s.index) + "]"
	case s.name == "" || strings.ContainsAny(s.name, ".[] \t\n\r'"):
		return "[" + quoted(s.name) + "]"
	}
	return "." + s.name
}

// rebuilt returns the path from its steps.
func (p Path) rebuilt() string {
	text := "$"
	for i := range p.steps {
		text += p.steps[i].String()
	}
	return text
}

// mostNames is how many members of an object are named, and longestName how
// much of each.
const (
	mostNames   = 8
	longestName = 32
)

// describe says what a value is, for somebody whose path does not fit.
func describe(v any) string {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			return "is an empty object"
		}
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		more := ""
		if len(names) > mostNames {
			names, more = names[:mostNames], " and more"
		}
		for i, name := range names {
			names[i] = printable(shorten(name))
		}
		return "has " + strings.Join(names, ", ") + more
	case []any:
		return "is a list of " + strconv.Itoa(len(v))
	case nil:
		return "is null"
	case string:
		return "is a text"
	case bool:
		return "is true or false"
	}
	return "is a number"
}

// shorten returns a name that can be shown.
func shorten(name string) string {
	name = strings.ToValidUTF8(name, "?")
	if r := []rune(name); len(r) > longestName {
		return string(r[:longestName]) + "…"
	}
	return name
}

// printable returns a name of a document such that it cannot disturb a terminal.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
}

func quoted(s string) string { return strconv.Quote(shorten(s)) }
