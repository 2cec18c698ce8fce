package mqtt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"sluice/sources"
	"sluice/sources/register"
)

// Readable reports whether values of t can be taken from messages.
func Readable(t register.Type) bool {
	switch t {
	case register.BCD16, register.BCD32, register.SunSSF:
		return false
	}
	return t >= register.Bool && t < register.SunSSF
}

// parseJSON returns the document that payload is, with numbers kept as they
// are written.
func parseJSON(payload []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	var doc any
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the payload is empty")
		}
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not JSON: something follows the value")
	}
	return doc, nil
}

// reading is a value as it was read: bad with a reason and the trouble in
// words, or good.
type reading struct {
	value   sources.Value
	reason  sources.Reason
	trouble string // "" for a value that is merely not available
}

func (r reading) good() bool { return r.reason == sources.ReasonNone }

func wrongType(p *Point, what string) reading {
	name := register.Point{Type: p.Type, Bytes: p.Bytes}.TypeName()
	return reading{reason: sources.ReasonType, trouble: what + " is not a " + name}
}

// read turns what stands at the path of p, as parseJSON gives it, into a value.
func (p *Point) read(v any) reading {
	switch v := v.(type) {
	case nil:
		return reading{reason: sources.ReasonInvalid}
	case bool:
		if p.Type == register.Bool {
			return reading{value: sources.Bool(v)}
		}
		return wrongType(p, strconv.FormatBool(v))
	case json.Number:
		return p.readText(v.String())
	case string:
		return p.readText(v)
	}
	return wrongType(p, "an object or a list")
}

// readText turns a text into a value: a payload, or a number or text of JSON.
func (p *Point) readText(text string) reading {
	trimmed := strings.TrimSpace(text)
	if p.isInvalid(trimmed) {
		return reading{reason: sources.ReasonInvalid}
	}
	if p.Type == register.String {
		if len(text) > int(p.Bytes) {
			return wrongType(p, fmt.Sprintf("a text of %d bytes", len(text)))
		}
		return reading{value: sources.String(strings.ToValidUTF8(text, "\uFFFD"))}
	}
	if notAvailable[strings.ToLower(trimmed)] {
		return reading{reason: sources.ReasonInvalid}
	}
	value, ok := sources.Value{}, false
	switch p.Type {
	case register.Bool:
		value, ok = readBool(trimmed)
	case register.Float32, register.Float64:
		value, ok = readFloat(trimmed, p.Type)
	default:
		value, ok = readWhole(trimmed, p.Type)
	}
	if !ok {
		return wrongType(p, describe(trimmed))
	}
	return reading{value: value}
}

// describe quotes the beginning of a text that is no value.
func describe(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if r := []rune(text); len(r) > 24 {
		text = string(r[:24]) + "…"
	}
	return strconv.Quote(text)
}

// notAvailable are the words that stand for no value where a number or a truth
// value should be.
var notAvailable = map[string]bool{"": true, "null": true, "nan": true, "none": true, "n/a": true, "na": true,
	"unknown": true, "unavailable": true, "undefined": true}

// isInvalid reports whether text is one of the markers of p: the same text, or
// the same number.
func (p *Point) isInvalid(text string) bool {
	for _, marker := range p.Invalid {
		if text == marker {
			return true
		}
		m, err1 := strconv.ParseFloat(marker, 64)
		f, err2 := strconv.ParseFloat(text, 64)
		if err1 == nil && err2 == nil && m == f && p.Type != register.String {
			return true
		}
	}
	return false
}

// readBool reads the words that devices have for on and off.
func readBool(text string) (sources.Value, bool) {
	switch strings.ToLower(text) {
	case "true", "on", "1", "yes":
		return sources.Bool(true), true
	case "false", "off", "0", "no":
		return sources.Bool(false), true
	}
	return sources.Value{}, false
}

// readFloat reads a decimal number. Infinities and what float32 cannot hold are
// none; ParseFloat alone would also take hexadecimal numbers and underscores.
func readFloat(text string, t register.Type) (sources.Value, bool) {
	bits := 64
	if t == register.Float32 {
		bits = 32
	}
	f, err := strconv.ParseFloat(text, bits)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) || strings.ContainsAny(text, "xX_pP") {
		return sources.Value{}, false
	}
	if bits == 32 {
		return sources.Float32(float32(f)), true
	}
	return sources.Float64(f), true
}

// readWhole reads a whole number in the range of t. 21.0 and 1e3 are whole.
func readWhole(text string, t register.Type) (sources.Value, bool) {
	bits := 8 * register.Point{Type: t}.Size()
	switch t {
	case register.Int16, register.Int32, register.Int64:
		i, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			f, whole := wholeFloat(text)
			i = int64(f)
			if limit := math.Ldexp(1, bits-1); !whole || f < -limit || f >= limit {
				return sources.Value{}, false
			}
		}
		return sources.Int64(i), true
	}
	u, err := strconv.ParseUint(strings.TrimPrefix(text, "+"), 10, bits)
	if err != nil {
		f, whole := wholeFloat(text)
		u = uint64(max(f, 0))
		if !whole || f < 0 || f >= math.Ldexp(1, bits) {
			return sources.Value{}, false
		}
	}
	return sources.Uint64(u), true
}

// wholeFloat reads a decimal number that has nothing behind the point. Digits
// alone are for whoever called: they did not fit.
func wholeFloat(text string) (float64, bool) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Abs(f) > 1<<53 || f != math.Trunc(f) || !strings.ContainsAny(text, ".eE") || strings.ContainsAny(text, "xX_pP") {
		return 0, false
	}
	return f, true
}

// The times that a message may name: not before this product, and not later
// than our own clock by more than clocks differ.
const (
	earliest  = 1577836800 // 2020-01-01, seconds since 1970
	latest    = 9e9        // a year 2255, which int64 still holds in nanoseconds
	tolerance = 5 * time.Minute
)

// readTime reads a moment: RFC 3339, or seconds, milliseconds, microseconds or
// nanoseconds since 1970, told apart by their size.
func readTime(v any) (time.Time, error) {
	text := ""
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = strings.TrimSpace(v)
	default:
		return time.Time{}, errors.New("the time is neither a number nor a text")
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return time.Time{}, fmt.Errorf("the time %s is not as in 2026-11-21T17:00:00Z, with its zone, and no number since 1970", describe(text))
		}
		if s := at.Unix(); s < earliest || s >= latest {
			return time.Time{}, impossible(text)
		}
		return at, nil
	}
	unit := time.Second
	for _, smaller := range []time.Duration{time.Millisecond, time.Microsecond, time.Nanosecond} {
		if math.Abs(f) >= 1e11*float64(time.Second/unit) {
			unit = smaller
		}
	}
	perSecond := float64(time.Second / unit)
	if !(f/perSecond >= earliest && f/perSecond < latest) {
		return time.Time{}, impossible(text)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil { // no digit lost
		return time.Unix(0, n*int64(unit)), nil
	}
	return time.Unix(0, int64(f*float64(unit))), nil
}

func impossible(text string) error {
	return fmt.Errorf("the time %s is no moment since 2020", describe(text))
}
