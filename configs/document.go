package configs

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Document is a decoded file with the place of everything in it. It is read
// only after Decode and safe for concurrent use then.
type Document struct {
	// File is the name under which the file was given to Decode.
	File string

	root   *yaml.Node // content of the document, nil if it could not be parsed
	lines  []string
	failed []failure // the errors that Decode found
}

// failure is an error of Decode: where, and the message.
type failure struct{ path, message string }

// Position is a place in a file; both count from 1, and the column counts
// characters. The zero Position means the file as a whole.
type Position struct{ Line, Column int }

// Join appends a key to a path: Join("devices[2]", "points") is
// "devices[2].points". Keys with signs that mean something in a path are quoted.
func Join(path, key string) string {
	if key == "" || strings.ContainsAny(key, ".[]\"") {
		return path + "[" + strconv.Quote(key) + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// Index appends the place in a list to a path: Index("devices", 2) is
// "devices[2]".
func Index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// Has reports whether the file says something at path.
func (d *Document) Has(path string) bool {
	_, value, missing := d.find(path)
	return value != nil && !missing
}

// Failed reports whether Decode found an error at path or below it.
func (d *Document) Failed(path string) bool {
	return len(d.Messages(path)) > 0
}

// Messages returns the messages of the errors that Decode found at path or
// below it.
func (d *Document) Messages(path string) []string {
	var all []string
	for _, f := range d.failed {
		if below(f.path, path) {
			all = append(all, f.message)
		}
	}
	return all
}

// below reports whether path is at or below top.
func below(path, top string) bool {
	rest, ok := strings.CutPrefix(path, top)
	return ok && (top == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// Position returns where the value at path begins: "devices[2].points.power".
// If nothing stands there, it is the place of the nearest thing around it.
func (d *Document) Position(path string) Position {
	_, value, _ := d.find(path)
	return position(value)
}

// KeyPosition returns where the key of path begins; for a list entry, where
// the entry begins.
func (d *Document) KeyPosition(path string) Position {
	key, value, missing := d.find(path)
	if key != nil && !missing {
		return position(key)
	}
	return position(value)
}

// Offset returns the place of a byte inside the text at path, counted from the
// start of the text without quotes. In texts over several lines it is the
// place of the text itself.
func (d *Document) Offset(path string, offset int) Position {
	_, value, missing := d.find(path)
	if missing {
		return position(value)
	}
	n := follow(value)
	p := position(n)
	if n == nil || n.Kind != yaml.ScalarNode || offset <= 0 {
		return p
	}
	if column, ok := d.columnInside(n, offset); ok {
		p.Column = column
	}
	return p
}

// Problem returns a problem at pos with the line of the file filled in. File,
// Line, Column and Excerpt of p are overwritten.
func (d *Document) Problem(pos Position, p Problem) Problem {
	p.File, p.Line, p.Column, p.Excerpt = d.File, pos.Line, pos.Column, ""
	if pos.Line > 0 && pos.Line <= len(d.lines) {
		p.Excerpt = maskSecrets(d.lines[pos.Line-1])
	}
	return p
}

func position(n *yaml.Node) Position {
	if n == nil {
		return Position{}
	}
	return Position{n.Line, n.Column}
}

// find walks to path. With missing set, value is the last thing on the way
// that exists.
func (d *Document) find(path string) (key, value *yaml.Node, missing bool) {
	value = d.root
	for path != "" {
		var segment string
		var index int
		segment, index, path = splitPath(path)
		node := follow(value)
		if node == nil {
			return key, value, true
		}
		var k, v *yaml.Node
		switch {
		case index >= 0 && node.Kind == yaml.SequenceNode && index < len(node.Content):
			v = node.Content[index]
		case index < 0 && node.Kind == yaml.MappingNode:
			budget := maxLookups
			k, v = lookup(node, segment, 0, &budget)
		}
		if v == nil {
			return key, value, true
		}
		key, value = k, v
	}
	return key, value, false
}

// splitPath takes the first step off a path; index is -1 for a key.
func splitPath(path string) (segment string, index int, rest string) {
	if path[0] == '[' {
		if quoted, err := strconv.QuotedPrefix(path[1:]); err == nil {
			segment, err = strconv.Unquote(quoted)
			if err == nil {
				return segment, -1, strings.TrimPrefix(strings.TrimPrefix(path[1+len(quoted):], "]"), ".")
			}
		}
		number, rest, _ := strings.Cut(path[1:], "]")
		if n, err := strconv.Atoi(number); err == nil && n >= 0 {
			return "", n, strings.TrimPrefix(rest, ".")
		}
		return path, -1, ""
	}
	end := strings.IndexAny(path, ".[")
	if end < 0 {
		return path, -1, ""
	}
	if end == 0 {
		return path, -1, ""
	}
	return path[:end], -1, strings.TrimPrefix(path[end:], ".")
}

// follow returns what an alias stands for, and any other node as it is.
func follow(n *yaml.Node) *yaml.Node {
	for range 8 {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// maxLookups bounds how many mappings are searched for one key: merge keys can
// multiply a small file into a huge one.
const maxLookups = 1000

// lookup finds a key in a mapping, and then in what is merged into it.
func lookup(m *yaml.Node, key string, depth int, budget *int) (k, v *yaml.Node) {
	if *budget--; *budget < 0 || depth > maxMergeDepth {
		return nil, nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Kind == yaml.ScalarNode && m.Content[i].Value == key && !isMerge(m.Content[i]) {
			return m.Content[i], m.Content[i+1]
		}
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if !isMerge(m.Content[i]) {
			continue
		}
		for _, from := range mergeSources(m.Content[i+1]) {
			if k, v := lookup(from, key, depth+1, budget); v != nil {
				return k, v
			}
		}
	}
	return nil, nil
}

func isMerge(key *yaml.Node) bool {
	return key.Kind == yaml.ScalarNode && key.Value == "<<" && key.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0
}

// mergeSources returns the mappings that the value of a merge key names.
func mergeSources(v *yaml.Node) []*yaml.Node {
	v = follow(v)
	if v == nil {
		return nil
	}
	if v.Kind == yaml.MappingNode {
		return []*yaml.Node{v}
	}
	var all []*yaml.Node
	if v.Kind == yaml.SequenceNode {
		for _, c := range v.Content {
			if c = follow(c); c != nil && c.Kind == yaml.MappingNode {
				all = append(all, c)
			}
		}
	}
	return all
}

// columnInside finds the column of a byte of a scalar's text in its line.
func (d *Document) columnInside(n *yaml.Node, offset int) (int, bool) {
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 || n.Line < 1 || n.Line > len(d.lines) || offset > len(n.Value) {
		return 0, false
	}
	source := []rune(d.lines[n.Line-1])
	at := n.Column - 1
	if n.Anchor != "" {
		// The node begins at its anchor; the text stands behind it.
		return 0, false
	}
	done := 0 // bytes of n.Value found so far
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
	if quoted {
		at++
	}
	for done < offset {
		if at < 0 || at >= len(source) {
			return 0, false
		}
		width, text := scalarStep(source[at:], n.Style)
		if !strings.HasPrefix(n.Value[done:], text) || text == "" {
			return 0, false
		}
		at += width
		done += len(text)
	}
	return at + 1, true
}

// scalarStep reads one character of a scalar as written and returns how many
// characters of the file it takes and what it stands for.
func scalarStep(source []rune, style yaml.Style) (width int, text string) {
	switch {
	case style&yaml.SingleQuotedStyle != 0 && source[0] == '\'':
		if len(source) > 1 && source[1] == '\'' {
			return 2, "'"
		}
		return 0, ""
	case style&yaml.DoubleQuotedStyle != 0 && source[0] == '\\':
		return escapeStep(source)
	}
	return 1, string(source[:1])
}

// escapeStep reads one escape of a double-quoted scalar (YAML 1.2.2 §5.7).
func escapeStep(source []rune) (width int, text string) {
	if len(source) < 2 {
		return 0, ""
	}
	simple := map[rune]string{'0': "\x00", 'a': "\a", 'b': "\b", 't': "\t", 'n': "\n", 'v': "\v", 'f': "\f",
		'r': "\r", 'e': "\x1b", ' ': " ", '"': "\"", '/': "/", '\\': "\\", 'N': "\u0085", '_': "\u00a0", 'L': "\u2028", 'P': "\u2029"}
	if s, ok := simple[source[1]]; ok {
		return 2, s
	}
	n, ok := map[rune]int{'x': 2, 'u': 4, 'U': 8}[source[1]]
	if !ok || len(source) < 2+n {
		return 0, ""
	}
	code, err := strconv.ParseUint(string(source[2:2+n]), 16, 32)
	if err != nil || !utf8.ValidRune(rune(code)) {
		return 0, ""
	}
	return 2 + n, string(rune(code))
}

// String names the place for logs.
func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Line, p.Column) }
