package configs

import (
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The bounds of what Decode takes. A file of one megabyte holds some twenty
// thousand points in the short form.
const (
	// MaxFileSize is the largest file in bytes that Decode reads.
	MaxFileSize = 4 << 20
	// maxAliasNodes bounds how many values may come out of aliases, which can
	// multiply a small file into a huge one.
	maxAliasNodes = 100_000
	maxMergeDepth = 8
	maxDepth      = 100
	maxProblems   = 500
)

// NodeDecoder is implemented by types that read themselves from a file, where
// a field may be written in more than one way.
type NodeDecoder interface {
	// DecodeNode reads n into the receiver. Problems go to n.
	DecodeNode(n Node)
}

// Scoped is implemented by structs whose problems hurt only themselves. What
// goes wrong inside one gets its scope as Problem.Device. It is called after
// the struct was decoded; "" makes the problems those of the whole file.
type Scoped interface{ ProblemScope() string }

// Decode reads the YAML file data into the struct that into points to, and
// returns every problem at once, in the order of the file. file is the name to
// show in them. The Document is never nil.
//
// Keys are the yaml tags of the fields; untagged fields are not read, and the
// fields of a struct tagged ",inline" are read as if they were the outer
// one's. A key that is in no field is a problem, save that at the top of the
// file keys that begin with "x-" are left alone, as a place for anchors.
// Numbers, durations and sizes are read as they are written: 010, 1_000, 1,5
// and yes are refused with the reason instead of being guessed at. Defaults
// are set before a struct is read (Defaulter) and it is validated after
// (Validator). Where there was a problem the field keeps its default.
//
// It never panics for what is in data; it does for a type it cannot fill.
func Decode(file string, data []byte, into any) (*Document, []Problem) {
	doc := &Document{File: file}
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() || target.Elem().Kind() != reflect.Struct {
		panic("configs: Decode wants a pointer to a struct")
	}
	d := &decoder{doc: doc}
	setDefaults(target.Elem())
	d.parse(data)
	if doc.root != nil {
		d.value(doc.root, "", target.Elem(), 0)
	}
	for i := range d.found {
		if !d.found[i].problem.Warning {
			doc.failed = append(doc.failed, failure{d.found[i].path, d.found[i].problem.Message})
		}
	}
	problems := make([]Problem, len(d.found))
	for i := range d.found {
		problems[i] = d.found[i].problem
	}
	return doc, Sort(problems)
}

// decoder is one run of Decode.
type decoder struct {
	doc   *Document
	found []found
	// inAlias is above 0 while what is read comes out of an alias; aliasNodes
	// counts the values read so.
	inAlias, aliasNodes int
}

type found struct {
	path    string
	problem Problem
}

func (d *decoder) report(path string, pos Position, p Problem) {
	if len(d.found) < maxProblems {
		p = d.doc.Problem(pos, p)
		if isSecret(path) {
			p.Excerpt = maskAt(p.Excerpt, p.Column)
		}
		d.found = append(d.found, found{path, p})
	}
}

func (d *decoder) reportNode(path string, n *yaml.Node, code, message, fix string) {
	d.report(path, position(n), Problem{Code: code, Message: message, Fix: fix})
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
	pathType     = reflect.TypeFor[Path]()
)

// value reads n into v, which is settable.
func (d *decoder) value(n *yaml.Node, path string, v reflect.Value, depth int) {
	if depth > maxDepth {
		d.reportNode(path, n, CodeTooLarge, "nested too deep", "")
		return
	}
	if n.Kind == yaml.AliasNode {
		d.inAlias++
		defer func() { d.inAlias-- }()
		n = n.Alias
	}
	if d.inAlias > 0 && !d.countAlias(n, path) {
		return
	}
	if d.taggedWrongly(n, path) {
		return
	}
	if decoder, ok := v.Addr().Interface().(NodeDecoder); ok {
		decoder.DecodeNode(Node{yaml: n, path: path, d: d, depth: depth})
		return
	}
	if v.Kind() == reflect.Pointer {
		fresh := reflect.New(v.Type().Elem())
		setDefaults(fresh.Elem())
		before := len(d.found)
		d.value(n, path, fresh.Elem(), depth+1)
		if len(d.found) == before || fresh.Elem().Kind() == reflect.Struct {
			v.Set(fresh)
		}
		return
	}
	if isNull(n) {
		d.null(n, path, v)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, path, v, depth)
	case reflect.Map:
		d.mapping(n, path, v, depth)
	case reflect.Slice:
		d.sequence(n, path, v, depth)
	default:
		d.scalar(n, path, v)
	}
}

// countAlias counts a value that came out of an alias. It returns false beyond
// the bound, and reports the first time.
func (d *decoder) countAlias(n *yaml.Node, path string) bool {
	d.aliasNodes++
	if d.aliasNodes == maxAliasNodes+1 {
		d.reportNode(path, n, CodeTooLarge, "aliases multiply into more than "+strconv.Itoa(maxAliasNodes)+" values", "write the values out, or use a profile")
	}
	return d.aliasNodes <= maxAliasNodes
}

// null handles a key without a value: nothing said for lists and maps, a
// problem for the rest.
func (d *decoder) null(n *yaml.Node, path string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Map, reflect.Slice:
	case reflect.Struct:
		d.validate(path, v)
	default:
		d.reportNode(path, n, CodeNoValue, quoteKey(path)+" has no value", "write "+wanted(v)+", or remove the line")
	}
}

// isNull reports whether n is an empty value or a plain null.
func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 &&
		(n.Value == "" || n.Value == "~" || n.Value == "null")
}

// taggedWrongly refuses explicit tags such as !!int or !include.
func (d *decoder) taggedWrongly(n *yaml.Node, path string) bool {
	if n.Style&yaml.TaggedStyle == 0 {
		return false
	}
	d.reportNode(path, n, CodeYAMLTag, "the YAML tag "+n.Tag+" is not used here", "remove it")
	return true
}

// structure reads the keys of a mapping into the fields of a struct.
func (d *decoder) structure(n *yaml.Node, path string, v reflect.Value, depth int) {
	before := len(d.found)
	if n.Kind != yaml.MappingNode {
		d.wrongKind(n, path, v)
		return
	}
	fields := fieldsOf(v)
	seen := map[string]bool{}
	d.pairs(n, path, func(key, value *yaml.Node) {
		field, ok := fields.byKey[key.Value]
		if !ok {
			if path == "" && strings.HasPrefix(key.Value, "x-") {
				return
			}
			fix := DidYouMean(key.Value, fields.keys)
			if under := fields.under(key.Value); under != "" {
				fix = "it belongs under " + under + ":"
			}
			if n.Style&yaml.FlowStyle != 0 && plainInt.MatchString(key.Value) && isNull(value) {
				fix = "in { } a comma ends the value: write decimals with a point, as in 0." + key.Value
			}
			d.reportNode(Join(path, key.Value), key, CodeUnknownKey, "unknown key "+strconv.Quote(key.Value)+inWhat(path), fix)
			return
		}
		seen[key.Value] = true
		d.value(value, Join(path, key.Value), field, depth+1)
	})
	for _, key := range fields.keys {
		if field := fields.byKey[key]; !seen[key] && field.Kind() == reflect.Struct {
			d.validateDeep(Join(path, key), field)
		}
	}
	for _, inline := range fields.inline {
		d.validate(path, inline)
	}
	d.validate(path, v)
	if scoped, ok := v.Addr().Interface().(Scoped); ok && path != "" {
		scope := scoped.ProblemScope()
		for i := before; i < len(d.found); i++ {
			d.found[i].problem.Device = scope
		}
	}
}

// mapping reads a mapping into a Go map with string keys.
func (d *decoder) mapping(n *yaml.Node, path string, v reflect.Value, depth int) {
	if n.Kind != yaml.MappingNode {
		d.wrongKind(n, path, v)
		return
	}
	t := v.Type()
	if v.IsNil() {
		v.Set(reflect.MakeMap(t))
	}
	d.pairs(n, path, func(key, value *yaml.Node) {
		element := reflect.New(t.Elem()).Elem()
		setDefaults(element)
		d.value(value, Join(path, key.Value), element, depth+1)
		v.SetMapIndex(reflect.ValueOf(key.Value).Convert(t.Key()), element)
	})
}

// sequence reads a list into a slice, replacing a default that was there.
func (d *decoder) sequence(n *yaml.Node, path string, v reflect.Value, depth int) {
	if n.Kind != yaml.SequenceNode {
		d.wrongKind(n, path, v)
		return
	}
	if d.inAlias == 0 || d.aliasNodes+len(n.Content) <= maxAliasNodes {
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	} else {
		d.aliasNodes += len(n.Content)
		d.reportNode(path, n, CodeTooLarge, "aliases multiply into too many values", "")
		return
	}
	for i, entry := range n.Content {
		element := v.Index(i)
		setDefaults(element)
		d.value(entry, Index(path, i), element, depth+1)
	}
}

// pairs calls f for each key of a mapping: its own in order, refusing the
// second of a kind, and then those merged into it that it does not have.
func (d *decoder) pairs(n *yaml.Node, path string, f func(key, value *yaml.Node)) {
	lines := map[string]int{}
	d.ownPairs(n, path, lines, f)
	d.mergedPairs(n, path, lines, 0, f)
}

func (d *decoder) ownPairs(n *yaml.Node, path string, lines map[string]int, f func(key, value *yaml.Node)) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if isMerge(key) {
			continue
		}
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			d.reportNode(path, key, CodeKind, "a key must be a word, not "+kindOf(key), "")
			continue
		}
		if first, twice := lines[key.Value]; twice {
			d.reportNode(Join(path, key.Value), key, CodeDuplicateKey, "key "+strconv.Quote(key.Value)+" is here a second time",
				"the first is in line "+strconv.Itoa(first)+"; remove one")
			continue
		}
		lines[key.Value] = key.Line
		f(key, value)
	}
}

func (d *decoder) mergedPairs(n *yaml.Node, path string, seen map[string]int, depth int, f func(key, value *yaml.Node)) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !isMerge(key) {
			continue
		}
		sources := mergeSources(value)
		if len(sources) == 0 || depth >= maxMergeDepth {
			d.reportNode(path, key, CodeAlias, "the merge key << cannot be followed", "it takes a mapping or an alias of one: <<: *name")
			continue
		}
		d.inAlias++
		for _, from := range sources {
			if d.aliasNodes > maxAliasNodes {
				break // reported where the bound was passed
			}
			for j := 0; j+1 < len(from.Content); j += 2 {
				k := from.Content[j]
				if _, have := seen[k.Value]; have || isMerge(k) || k.Kind != yaml.ScalarNode {
					continue
				}
				seen[k.Value] = k.Line
				f(k, from.Content[j+1])
			}
			if d.countAlias(key, path) {
				d.mergedPairs(from, path, seen, depth+1, f)
			}
		}
		d.inAlias--
	}
}

func (d *decoder) wrongKind(n *yaml.Node, path string, v reflect.Value) {
	fix := ""
	got := kindOf(n)
	switch {
	case n.Kind == yaml.ScalarNode && isSecret(path):
		got = "a text"
	case n.Kind == yaml.ScalarNode && v.Kind() == reflect.Slice:
		fix = "write [" + n.Value + "]"
	case n.Value == "true" && v.Kind() == reflect.Struct:
		fix = "write {} for the defaults, or give its keys"
	case n.Kind == yaml.ScalarNode && v.Kind() == reflect.Struct:
		fix = fieldsOf(v).sample(path)
	case n.Kind == yaml.MappingNode && v.Kind() == reflect.Slice:
		fix = "begin each entry with \"- \""
	case n.Kind == yaml.SequenceNode && v.Kind() == reflect.String:
		fix = "write one value, without [ ]"
	}
	d.reportNode(path, n, CodeKind, quoteKey(path)+" takes "+wanted(v)+", not "+got, fix)
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if isNull(n) {
			return "nothing"
		}
		return strconv.Quote(shorten(n.Value))
	}
	return "this"
}

func shorten(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

// quoteKey names the last step of a path for a message.
func quoteKey(path string) string {
	if path == "" {
		return "the file"
	}
	if strings.HasSuffix(path, "]") && !strings.HasSuffix(path, `"]`) {
		return "entry " + path
	}
	return strconv.Quote(path[strings.LastIndexByte(path, '.')+1:])
}

// inWhat names what a key stands in: ` in "devices[2]"`.
func inWhat(path string) string {
	if path == "" {
		return ""
	}
	return " in " + path
}
