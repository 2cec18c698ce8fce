package configs

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// wanted says in words what a field takes.
func wanted(v reflect.Value) string {
	switch v.Type() {
	case durationType:
		return "a duration such as 500ms or 10s"
	case sizeType:
		return "a size such as 64MiB"
	case pathType:
		return "the path of a file"
	}
	switch v.Kind() {
	case reflect.Struct, reflect.Map:
		return "keys with values"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Pointer:
		return wanted(reflect.Zero(v.Type().Elem()))
	}
	return "a number"
}

// scalar reads a text as written into a field of a basic type. It panics for a
// field of another type, which is a mistake in the program.
func (d *decoder) scalar(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		d.wrongKind(n, path, v)
		return
	}
	var failure *ValueError
	switch kind := v.Kind(); {
	case v.Type() == durationType:
		var t time.Duration
		if t, failure = ReadDuration(n.Value); failure == nil {
			v.SetInt(int64(t))
		}
	case v.Type() == sizeType:
		var s Size
		if s, failure = ReadSize(n.Value); failure == nil {
			v.SetInt(int64(s))
		}
	case v.Type() == pathType:
		v.SetString(string(besideFile(d.doc.File, n.Value)))
	case kind == reflect.String:
		v.SetString(n.Value)
	case kind == reflect.Bool:
		var b bool
		if b, failure = ReadBool(n.Value); failure == nil {
			v.SetBool(b)
		}
	case v.CanInt():
		var i int64
		if i, failure = ReadInt(n.Value, v.Type().Bits()); failure == nil {
			v.SetInt(i)
		}
	case v.CanUint():
		var u uint64
		if u, failure = ReadUint(n.Value, v.Type().Bits()); failure == nil {
			v.SetUint(u)
		}
	case v.CanFloat():
		var f float64
		if f, failure = ReadFloat(n.Value); failure == nil {
			v.SetFloat(f)
		}
	default:
		panic("configs: cannot decode into " + v.Type().String())
	}
	if failure != nil && isSecret(path) {
		failure = &ValueError{failure.Code, quoteKey(path) + " takes " + wanted(v), ""}
	}
	if failure != nil {
		if failure.Code == CodeNumber && failure.Fix == "" {
			failure.Fix = "write a number, such as 10"
		}
		d.reportNode(path, n, failure.Code, failure.Message, failure.Fix)
	}
}

// ValueError says why a text cannot be read as a value, and what to write.
type ValueError struct{ Code, Message, Fix string }

// Error returns the message.
func (e *ValueError) Error() string { return e.Message }

var (
	plainInt   = regexp.MustCompile(`^[+-]?(0|[1-9][0-9]*)$`)
	hexInt     = regexp.MustCompile(`^0x[0-9a-fA-F]+$`)
	zeroInt    = regexp.MustCompile(`^[+-]?0[0-9]+$`)
	plainFloat = regexp.MustCompile(`^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$`)
	commaFloat = regexp.MustCompile(`^[+-]?[0-9]+,[0-9]+$`)
	withUnit   = regexp.MustCompile(`^([+-]?[0-9]+([.][0-9]+)?) ?[^0-9., ]`)
	grouped    = regexp.MustCompile(`^[+-]?[0-9][0-9_' ]*[0-9]([.][0-9]+)?$`)
)

// ReadInt reads a whole number as written, decimal or 0x, that fits in bits.
func ReadInt(s string, bits int) (int64, *ValueError) {
	if hexInt.MatchString(s) || plainInt.MatchString(s) {
		i, err := strconv.ParseInt(s, 0, bits)
		if err != nil {
			most := uint64(1)<<(bits-1) - 1
			return 0, &ValueError{CodeNumberRange, s + " is too large", "it must be between " +
				strconv.FormatInt(-int64(most)-1, 10) + " and " + strconv.FormatUint(most, 10)}
		}
		return i, nil
	}
	return 0, notNumber(s, true)
}

// ReadUint reads a whole number from 0 up as written, decimal or 0x, that fits
// in bits.
func ReadUint(s string, bits int) (uint64, *ValueError) {
	if hexInt.MatchString(s) || plainInt.MatchString(s) {
		u, err := strconv.ParseUint(strings.TrimPrefix(s, "+"), 0, bits)
		if err != nil {
			most := ^uint64(0) >> (64 - bits)
			return 0, &ValueError{CodeNumberRange, s + " is out of range", "it must be between 0 and " + strconv.FormatUint(most, 10)}
		}
		return u, nil
	}
	return 0, notNumber(s, true)
}

// ReadFloat reads a number as written. NaN and infinities are refused.
func ReadFloat(s string) (float64, *ValueError) {
	if zeroInt.MatchString(s) || !plainFloat.MatchString(s) {
		if hexInt.MatchString(s) {
			u, err := ReadUint(s, 64)
			return float64(u), err
		}
		return 0, notNumber(s, false)
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, &ValueError{CodeNumberRange, s + " is too large", ""}
	}
	return f, nil
}

// notNumber explains why s is not taken for a number.
func notNumber(s string, whole bool) *ValueError {
	e := &ValueError{Code: CodeNumber, Message: strconv.Quote(shorten(s)) + " is not a number"}
	switch {
	case zeroInt.MatchString(s):
		e.Message = s + " begins with 0, which some programs read as octal"
		e.Fix = "write it without the leading zero, or as 0x in hexadecimal"
	case commaFloat.MatchString(s):
		e.Fix = "use a decimal point: " + strings.Replace(s, ",", ".", 1)
	case strings.ContainsAny(s, "_' ") && grouped.MatchString(s):
		e.Fix = "write it without separators: " + strings.NewReplacer("_", "", "'", "", " ", "").Replace(s)
	case whole && plainFloat.MatchString(s):
		e.Message, e.Fix = s+" is not a whole number", "write a number without decimals"
	case strings.HasPrefix(s, "0o"), strings.HasPrefix(s, "0b"):
		e.Fix = "write it in decimal or as 0x in hexadecimal"
	case withUnit.MatchString(s):
		e.Fix = "write the number alone: " + withUnit.FindStringSubmatch(s)[1]
	}
	return e
}

// ReadBool reads true or false.
func ReadBool(s string) (bool, *ValueError) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	e := &ValueError{Code: CodeBool, Message: strconv.Quote(shorten(s)) + " is not true or false", Fix: "write true or false"}
	switch strings.ToLower(s) {
	case "yes", "on", "y", "1", "true":
		e.Fix = "write true"
	case "no", "off", "n", "0", "false":
		e.Fix = "write false"
	}
	return false, e
}

// ReadDuration is ParseDuration with the remedy for what people write instead.
func ReadDuration(s string) (time.Duration, *ValueError) {
	d, err := ParseDuration(s)
	if err == nil {
		return d, nil
	}
	e := &ValueError{Code: CodeDuration, Message: err.Error(), Fix: "write a number and its unit: 500ms, 10s, 5m, 1h, 30d"}
	compact := strings.ToLower(strings.ReplaceAll(s, " ", ""))
	number := strings.TrimRight(compact, "abcdefghijklmnopqrstuvwxyz")
	switch unit := compact[len(number):]; {
	case !plainDecimal(number):
		if commaFloat.MatchString(number) {
			e.Fix = "use a decimal point: " + strings.Replace(compact, ",", ".", 1)
		}
	case unit == "":
		e.Message = s + " has no unit of time"
		e.Fix = "write " + s + "s for seconds, or " + s + "ms for milliseconds"
	case strings.HasPrefix("seconds", unit), unit == "secs":
		e.Fix = "write " + number + "s"
	case strings.HasPrefix("minutes", unit), unit == "mins":
		e.Fix = "write " + number + "m"
	case strings.HasPrefix("hours", unit), unit == "hrs", unit == "hr":
		e.Fix = "write " + number + "h"
	case strings.HasPrefix("days", unit):
		e.Fix = "write " + number + "d"
	case strings.HasPrefix("milliseconds", unit), unit == "msec":
		e.Fix = "write " + number + "ms"
	}
	return 0, e
}

// ReadSize is ParseSize with the remedy for what people write instead.
func ReadSize(s string) (Size, *ValueError) {
	size, err := ParseSize(s)
	if err == nil {
		return size, nil
	}
	e := &ValueError{Code: CodeSize, Message: err.Error(), Fix: "write a number and its unit: 100kB, 64MiB, 2GiB"}
	number := strings.TrimRight(strings.ReplaceAll(s, " ", ""), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	if unit := strings.TrimPrefix(strings.ReplaceAll(s, " ", ""), number); plainDecimal(number) {
		switch strings.ToLower(unit) {
		case "":
			e.Fix = "write " + number + "B, " + number + "kB or " + number + "MiB"
		case "k", "kb", "kib":
			e.Fix = "write " + number + "KiB"
		case "m", "mb", "mib":
			e.Fix = "write " + number + "MiB"
		case "g", "gb", "gib":
			e.Fix = "write " + number + "GiB"
		}
	}
	return 0, e
}
