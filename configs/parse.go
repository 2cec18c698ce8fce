package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parse turns data into nodes and fills d.doc, reporting what keeps it from
// being YAML.
func (d *decoder) parse(data []byte) {
	if len(data) > MaxFileSize {
		d.report("", Position{}, Problem{Code: CodeTooLarge, Message: "the file is larger than " + Size(MaxFileSize).String(),
			Fix: "a site file is a few kilobytes; is this the right file?"})
		return
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data))
	d.doc.lines = strings.Split(text, "\n")
	if !d.encodingGood(data) {
		return
	}
	in := yaml.NewDecoder(strings.NewReader(text))
	var root, second yaml.Node
	err := in.Decode(&root)
	if errors.Is(err, io.EOF) || err == nil && (len(root.Content) == 0 || isNull(root.Content[0])) {
		d.report("", Position{}, Problem{Code: CodeEmpty, Message: "the file is empty", Fix: "write site: and devices: into it; docs/points-list.md has an example"})
		return
	}
	if err != nil {
		d.syntax(err)
		return
	}
	if err := in.Decode(&second); err == nil {
		line := second.Line
		if len(second.Content) > 0 {
			line = second.Content[0].Line
		}
		d.report("", d.separatorBefore(line), Problem{Code: CodeSecond, Message: "a second document begins here and would not be read",
			Fix: "remove the line ---, or put the rest into a file of its own"})
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
		return
	}
	d.doc.root = root.Content[0]
}

// separatorBefore finds the last --- up to a line.
func (d *decoder) separatorBefore(line int) Position {
	for i := min(line, len(d.doc.lines)); i > 0; i-- {
		if strings.HasPrefix(d.doc.lines[i-1], "---") {
			return Position{i, 1}
		}
	}
	return Position{max(line, 1), 1}
}

// encodingGood reports text that is not UTF-8, with the first place.
func (d *decoder) encodingGood(data []byte) bool {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		d.report("", Position{}, Problem{Code: CodeEncoding, Message: "the file is UTF-16, as Windows Notepad may save it",
			Fix: "save it again as UTF-8"})
		return false
	}
	if utf8.Valid(data) && bytes.IndexByte(data, 0) < 0 {
		return true
	}
	for i, line := range d.doc.lines {
		for column, r := range []rune(line) {
			if r == 0 || r == utf8.RuneError {
				d.doc.lines[i] = strings.ToValidUTF8(line, "\ufffd")
				d.report("", Position{i + 1, column + 1}, Problem{Code: CodeEncoding, Message: "this character is not UTF-8",
					Fix: "save the file as UTF-8 (signs such as ° and ² are the usual cause)"})
				return false
			}
		}
	}
	return true
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?(.*)$`)

// syntax reports why the parser gave up, in plainer words. A tab in an
// indentation is the usual cause and named wherever there is one.
func (d *decoder) syntax(err error) {
	tabs := false
	for i, line := range d.doc.lines {
		blanks := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if tab := strings.IndexByte(blanks, '\t'); tab >= 0 && len(blanks) < len(line) {
			tabs = true
			d.report("", Position{i + 1, tab + 1}, Problem{Code: CodeTab, Message: "a tab in the indentation; YAML allows spaces only",
				Fix: "replace it by spaces"})
		}
	}
	if tabs {
		return
	}
	line, message := 1, err.Error()
	if m := yamlErrorLine.FindStringSubmatch(message); m != nil {
		message = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	line = min(max(line, 1), len(d.doc.lines))
	switch {
	case strings.Contains(message, "did not find expected key"), strings.Contains(message, "expected '-'"):
		if n, deeper, outer := d.misfit(); n > 0 { // the parser names where the whole block begins
			d.report("", Position{n, indent(d.doc.lines[n-1]) + 1}, Problem{Code: CodeSyntax,
				Message: "not YAML: this line begins in a column where nothing above it begins",
				Fix:     fmt.Sprintf("begin it in column %d or %d, as lines above do", deeper+1, outer+1)})
			return
		}
	case strings.Contains(message, "expected ','") && line < len(d.doc.lines) && opens(d.doc.lines[line-1]) <= 0 && opens(d.doc.lines[line]) > 0:
		line++ // the parser counts from 0 here
	}
	if strings.Contains(message, "end of stream") { // which the parser names
		if i := slices.IndexFunc(d.doc.lines, func(text string) bool { return strings.Count(text, `"`)%2 == 1 }); i >= 0 {
			line = i + 1
		}
	}
	pos := Position{line, 1 + indent(d.doc.lines[line-1])}
	p := Problem{Code: CodeSyntax, Message: "not YAML: " + message}
	for _, known := range syntaxWords {
		if strings.Contains(message, known.yaml) {
			p.Message, p.Fix = "not YAML: "+known.plain, known.fix
		}
	}
	d.report("", pos, p)
}

// indent is the number of blanks a line begins with.
func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// opens is how many brackets a line opens more than it closes.
func opens(line string) int {
	return strings.Count(line, "{") + strings.Count(line, "[") - strings.Count(line, "}") - strings.Count(line, "]")
}

// misfit finds the first line that is indented less than the one before, and not as
// any line that it could belong to. It returns the two columns, counted from 0, next to its own; line 0 if
// there is none.
func (d *decoder) misfit() (line, deeper, outer int) {
	levels, open := []int{0}, 0
	for i, text := range d.doc.lines {
		rest := strings.TrimLeft(text, " ")
		inside := open > 0
		if rest == "" || rest[0] == '#' {
			continue
		}
		if open = max(open+opens(text), 0); inside {
			continue
		}
		at := indent(text)
		for last := len(levels) - 1; levels[last] > at; last-- {
			deeper, levels = levels[last], levels[:last]
			if levels[last-1] < at {
				return i + 1, deeper, levels[last-1]
			}
		}
		for ; strings.HasPrefix(rest, "- "); rest = rest[2:] {
			levels, at = append(levels, at), at+2
		}
		levels = append(levels, at)
	}
	return 0, 0, 0
}

// syntaxWords translates the parser's messages.
var syntaxWords = []struct{ yaml, plain, fix string }{
	{"did not find expected key", "a line here or just above does not fit its neighbours", "compare the indentation: keys of one level begin in one column"},
	{"mapping values are not allowed", "a second \": \" in one line, or a line indented too far", "begin it in the column of the line above, or put text with a colon into quotes"},
	{"could not find expected ':'", "a key without its colon", "write key: value, with a space after the colon"},
	{"did not find expected '-' indicator", "a list goes on with something that is no entry", "begin entries with \"- \" in one column"},
	{"did not find expected ',' or ']'", "a list in [ ] is not closed", "close it with ], and separate entries by commas"},
	{"did not find expected ',' or '}'", "a mapping in { } is not closed", "close it with }, and separate entries by commas"},
	{"found unknown escape character", "an unknown escape in double quotes", "use single quotes for text with backslashes"},
	{"found character that cannot start any token", "a value begins with @, `, % or a tab", "put it into quotes"},
	{"unknown anchor", "an alias names an anchor that does not exist above it", "define it first as &name"},
	{"did not find expected alphabetic or numeric character", "a * or & begins a value here; in YAML they mean alias and anchor", "put the value into quotes: \"*\""},
	{"found unexpected end of stream", "a quoted text is not closed", "add the missing quote"},
	{"exceeded max depth", "nested too deep", ""},
}
