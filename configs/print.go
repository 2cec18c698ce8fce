package configs

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Sort orders problems by file, line and column, and removes those that say
// the same about the same place.
func Sort(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return slices.CompactFunc(problems, func(a, b Problem) bool {
		return a.File == b.File && a.Line == b.Line && a.Column == b.Column && a.Message == b.Message
	})
}

// Refused reports whether problems keep the file from being used at all: an
// error that is not confined to one device.
func Refused(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return !p.Warning && p.Device == "" })
}

// Errors counts the problems that are not mere warnings.
func Errors(problems []Problem) int {
	n := 0
	for i := range problems {
		if !problems[i].Warning {
			n++
		}
	}
	return n
}

// Print writes problems for people: place, message and code, the line of the
// file with a mark under the place, the fix, and at the end how many there are.
// It writes nothing if there is none.
func Print(w io.Writer, problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	var b bytes.Buffer
	for i := range problems {
		problems[i].print(&b)
	}
	fmt.Fprintf(&b, "%d problem(s)\n", len(problems))
	_, err := w.Write(b.Bytes())
	return err
}

// excerptWidth is the most characters of a line that Print shows.
const excerptWidth = 120

func (p *Problem) print(b *bytes.Buffer) {
	b.WriteString(p.Error())
	if p.Code != "" {
		fmt.Fprintf(b, " [%s]", p.Code)
	}
	b.WriteByte('\n')
	if p.Line > 0 && strings.TrimSpace(p.Excerpt) != "" {
		line, column := clip(p.Excerpt, p.Column)
		fmt.Fprintf(b, "%6d | %s\n", p.Line, line)
		if column > 0 {
			fmt.Fprintf(b, "       | %s^\n", strings.Repeat(" ", column-1))
		}
	}
	if p.Fix != "" {
		fmt.Fprintf(b, "       = %s\n", p.Fix)
	}
}

// clip returns the part of a line that is shown, with control characters made
// visible as spaces or question marks, and the column in that part.
func clip(line string, column int) (string, int) {
	runes := make([]rune, 0, utf8.RuneCountInString(line))
	for _, r := range line {
		switch {
		case r == '\t':
			r = ' '
		case r < 0x20 || r == 0x7f:
			r = '?'
		}
		runes = append(runes, r)
	}
	if column > len(runes)+1 {
		column = 0
	}
	from := 0
	if column > excerptWidth*3/4 {
		from = column - excerptWidth/2
		column -= from
	}
	return string(runes[from:min(len(runes), from+excerptWidth)]), column
}
