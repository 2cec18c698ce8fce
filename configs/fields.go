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
