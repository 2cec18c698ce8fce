package configs

import (
	"reflect"

	"go.yaml.in/yaml/v3"
)

// Node is a value in a file, as a NodeDecoder sees it. Aliases have been
// followed.
type Node struct {
	yaml  *yaml.Node
	path  string
	d     *decoder
	depth int
}

// Path returns where the node stands: "devices[2].points.power".
func (n Node) Path() string { return n.path }

// Text returns a scalar as it is written, without quotes, and false for lists,
// mappings and empty values.
func (n Node) Text() (string, bool) {
	if n.yaml.Kind != yaml.ScalarNode || isNull(n.yaml) {
		return "", false
	}
	return n.yaml.Value, true
}

// IsMapping reports whether the node is keys with values.
func (n Node) IsMapping() bool { return n.yaml.Kind == yaml.MappingNode }

// IsList reports whether the node is a list.
func (n Node) IsList() bool { return n.yaml.Kind == yaml.SequenceNode }

// IsEmpty reports whether there is a key but no value.
func (n Node) IsEmpty() bool { return isNull(n.yaml) }

// Describe says what the node is, for messages: "a list", `"text"`.
func (n Node) Describe() string { return kindOf(n.yaml) }

// Decode reads the node into the variable that into points to, by the rules of
// the package's Decode. The type must not decode itself by calling this on its
// own node.
func (n Node) Decode(into any) {
	v := reflect.ValueOf(into).Elem()
	setDefaults(v)
	n.d.value(n.yaml, n.path, v, n.depth+1)
}

// Each calls f for every key of a mapping in the order of the file, merged
// ones last. It reports a problem for anything that is not a mapping; an empty
// value has no keys.
func (n Node) Each(f func(key string, value Node)) {
	if isNull(n.yaml) {
		return
	}
	if n.yaml.Kind != yaml.MappingNode {
		n.Report(CodeKind, quoteKey(n.path)+" takes keys with values, not "+kindOf(n.yaml), "")
		return
	}
	n.d.pairs(n.yaml, n.path, func(key, value *yaml.Node) {
		path := Join(n.path, key.Value)
		if value.Kind == yaml.AliasNode {
			n.d.inAlias++
			defer func() { n.d.inAlias-- }()
			value = value.Alias
		}
		if n.d.inAlias > 0 && !n.d.countAlias(value, path) || n.d.taggedWrongly(value, path) {
			return
		}
		f(key.Value, Node{yaml: value, path: path, d: n.d, depth: n.depth + 1})
	})
}

// Report adds an error at the node.
func (n Node) Report(code, message, fix string) {
	n.d.reportNode(n.path, n.yaml, code, message, fix)
}

// Entry is one key of an Ordered mapping.
type Entry[T any] struct {
	Key   string
	Value T
}

// Ordered is a mapping that keeps the order of the file.
type Ordered[T any] []Entry[T]

// DecodeNode reads a mapping.
func (o *Ordered[T]) DecodeNode(n Node) {
	n.Each(func(key string, value Node) {
		e := Entry[T]{Key: key}
		value.Decode(&e.Value)
		*o = append(*o, e)
	})
}

// Get returns the value of key and whether there is one.
func (o Ordered[T]) Get(key string) (T, bool) {
	for i := range o {
		if o[i].Key == key {
			return o[i].Value, true
		}
	}
	var zero T
	return zero, false
}
