package configs

import (
	"reflect"
	"slices"
	"strings"
)

// structFields are the keys of a struct with the fields they fill.
type structFields struct {
	byKey  map[string]reflect.Value
	keys   []string // sorted
	inline []reflect.Value
}

func fieldsOf(v reflect.Value) structFields {
	f := structFields{byKey: map[string]reflect.Value{}}
	f.add(v)
	slices.Sort(f.keys)
	return f
}

// add adds the fields of a struct. It panics when two have the same key.
func (f *structFields) add(v reflect.Value) {
	t := v.Type()
	for i := range t.NumField() {
		key, options, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			f.inline = append(f.inline, v.Field(i))
			f.add(v.Field(i))
		case key == "" || key == "-" || !t.Field(i).IsExported():
		default:
			if _, twice := f.byKey[key]; twice {
				panic("configs: two fields of " + t.String() + " have the key " + key)
			}
			f.byKey[key] = v.Field(i)
			f.keys = append(f.keys, key)
		}
	}
}

// under returns the key of the section that has key, "" if there is none or more than
// one.
func (f structFields) under(key string) (section string) {
	for _, k := range f.keys {
		t := f.byKey[k].Type()
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			continue
		}
		inner := fieldsOf(reflect.New(t).Elem())
		if _, has := inner.byKey[key]; !has {
			continue
		}
		if section != "" {
			return ""
		}
		section = k
	}
	return section
}

// sample shows how a section of few keys is written.
func (f structFields) sample(path string) string {
	if len(f.keys) == 0 || len(f.keys) > 6 {
		return "give its keys, one below the other"
	}
	return "give its keys: " + path[strings.LastIndexByte(path, '.')+1:] + ": { " + strings.Join(f.keys, ": …, ") + ": … }"
}
