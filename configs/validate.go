package configs

import (
	"reflect"
	"strings"
)

// setDefaults calls SetDefaults on v and the structs inside it by value,
// innermost first, so that an outer struct has the last word.
func setDefaults(v reflect.Value) {
	if v.Kind() != reflect.Struct {
		return
	}
	eachStruct(v, func(_ string, field reflect.Value) { setDefaults(field) })
	if d, ok := v.Addr().Interface().(Defaulter); ok {
		d.SetDefaults()
	}
}

// validateDeep validates a struct that the file does not mention, and what is
// inside it.
func (d *decoder) validateDeep(path string, v reflect.Value) {
	eachStruct(v, func(key string, field reflect.Value) {
		if key != "" {
			d.validateDeep(Join(path, key), field)
		} else {
			d.validateDeep(path, field)
		}
	})
	d.validate(path, v)
}

// eachStruct calls f for every field of v that is a struct; key is "" for an
// inline one.
func eachStruct(v reflect.Value, f func(key string, field reflect.Value)) {
	t := v.Type()
	for i := range t.NumField() {
		key, options, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if v.Field(i).Kind() != reflect.Struct || !t.Field(i).IsExported() || key == "-" {
			continue
		}
		if options == "inline" {
			f("", v.Field(i))
		} else if key != "" {
			f(key, v.Field(i))
		}
	}
}

// validate turns what v finds wrong with itself into problems. A field that
// could not even be read is not complained about twice.
func (d *decoder) validate(path string, v reflect.Value) {
	validator, ok := v.Addr().Interface().(Validator)
	if !ok {
		return
	}
	for _, e := range validator.Validate() {
		at := joinPaths(path, e.Field)
		if e.Field != "" && d.hasErrorAt(at) {
			continue
		}
		code := e.Code
		if code == "" {
			code = CodeSetting
		}
		d.report(at, d.doc.Position(at), Problem{Code: code, Message: e.Message, Fix: e.Fix, Warning: e.Warning})
	}
}

func (d *decoder) hasErrorAt(path string) bool {
	for i := range d.found {
		if !d.found[i].problem.Warning && below(d.found[i].path, path) {
			return true
		}
	}
	return false
}

// joinPaths puts a path below another.
func joinPaths(top, path string) string {
	switch {
	case top == "":
		return path
	case path == "" || path[0] == '[':
		return top + path
	}
	return top + "." + path
}
