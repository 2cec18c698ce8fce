package configs

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. In a file it is written with its unit: 64MiB,
// 2GiB, 500kB, 100B; a bare 0 is allowed.
type Size int64

// The units of a Size, longest first so that a suffix is found whole.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// String returns the size in the largest binary unit that divides it: 64MiB.
func (s Size) String() string {
	for _, u := range sizeUnits[:4] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// ParseSize reads a size such as "64MiB". It accepts decimals ("1.5GiB"); the
// result is rounded down to whole bytes. Negative sizes are refused.
func ParseSize(s string) (Size, error) {
	if s == "0" {
		return 0, nil
	}
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		number = strings.TrimRight(number, " ")
		if !plainDecimal(number) {
			return 0, fmt.Errorf("%q is not a number before %s", number, u.name)
		}
		f, err := strconv.ParseFloat(number, 64)
		if err != nil || f*float64(u.bytes) >= math.MaxInt64 {
			return 0, fmt.Errorf("%q is too large", s)
		}
		return Size(f * float64(u.bytes)), nil
	}
	return 0, fmt.Errorf("%q has no unit of size", s)
}

// ParseDuration reads a duration as time.ParseDuration does, and also whole or
// decimal days and weeks: "500ms", "1m30s", "30d", "2w". A bare 0 is allowed,
// any other number without a unit is not.
func ParseDuration(s string) (time.Duration, error) {
	for suffix, unit := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		number, ok := strings.CutSuffix(s, suffix)
		if !ok || !plainDecimal(number) {
			continue
		}
		f, err := strconv.ParseFloat(number, 64)
		if err != nil || f*float64(unit) >= math.MaxInt64 {
			return 0, fmt.Errorf("%q is too long", s)
		}
		return time.Duration(f * float64(unit)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration", s)
	}
	return d, nil
}

// plainDecimal reports whether s is digits, with at most one point inside.
func plainDecimal(s string) bool {
	whole, fraction, point := strings.Cut(s, ".")
	return digits(whole) && (!point || digits(fraction))
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
