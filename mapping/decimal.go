package mapping

import (
	"math"
	"strconv"
	"strings"

	"sluice/configs"
)

// decimal is the number mant·10^-places, as a person wrote it. Kept apart from
// float64, so that 2314 times 0.1 is 231.4 and not 231.40000000000003.
type decimal struct {
	mant   int64
	places int // digits behind the point, -maxPlaces to maxPlaces
}

// maxPlaces is the largest power of ten that a float64 holds exactly.
const maxPlaces = 22

var (
	one  = decimal{mant: 1}
	zero = decimal{}
)

// parseDecimal reads a number as written: 0.1, -40, 1e-3, 0x10 for whole ones.
// Numbers with more digits than fit are refused.
func parseDecimal(s string) (decimal, *configs.ValueError) {
	if _, err := configs.ReadFloat(s); err != nil {
		return zero, err
	}
	if strings.HasPrefix(s, "0x") {
		u, err := configs.ReadInt(s, 64)
		return decimal{mant: u}, err
	}
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	fraction = strings.TrimRight(fraction, "0")
	d := decimal{places: len(fraction)}
	var err error
	if d.mant, err = strconv.ParseInt(whole+fraction, 10, 64); err != nil || d.mant == math.MinInt64 {
		return zero, &configs.ValueError{Code: configs.CodeNumberRange, Message: s + " has too many digits", Fix: "fifteen digits are the most that can be kept"}
	}
	if exponent != "" {
		e, err := strconv.Atoi(exponent)
		if err != nil {
			return zero, &configs.ValueError{Code: configs.CodeNumberRange, Message: s + " is out of range"}
		}
		d.places -= e
	}
	if d = d.normal(); d.places < -maxPlaces || d.places > maxPlaces {
		return zero, &configs.ValueError{Code: configs.CodeNumberRange, Message: s + " is out of range"}
	}
	return d, nil
}

// normal removes zeros at the end, and turns negative places into digits where
// they fit.
func (d decimal) normal() decimal {
	if d.mant == 0 {
		return zero
	}
	for d.places > 0 && d.mant%10 == 0 {
		d.mant, d.places = d.mant/10, d.places-1
	}
	for d.places < 0 && d.mant < math.MaxInt64/10 && d.mant > math.MinInt64/10 {
		d.mant, d.places = d.mant*10, d.places+1
	}
	return d
}

// float returns the nearest float64.
func (d decimal) float() float64 {
	if d.places >= 0 {
		return float64(d.mant) / pow10(d.places)
	}
	return float64(d.mant) * pow10(-d.places)
}

// integral reports whether d is a whole number that fits in an int64.
func (d decimal) integral() bool { return d.places == 0 }

// String returns d as written in a points list.
func (d decimal) String() string { return strconv.FormatFloat(d.float(), 'f', -1, 64) }

var powersOfTen = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14,
	1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// pow10 returns 10^n exactly for n from 0 to maxPlaces, and else the nearest.
func pow10(n int) float64 {
	if n >= 0 && n < len(powersOfTen) {
		return powersOfTen[n]
	}
	return math.Pow10(n)
}

// mulInt returns a·b and whether it fits.
func mulInt(a, b int64) (int64, bool) {
	if a == 0 || b == 0 {
		return 0, true
	}
	c := a * b
	return c, c/b == a && !(a == -1 && b == math.MinInt64) && !(b == -1 && a == math.MinInt64)
}

// addInt returns a+b and whether it fits.
func addInt(a, b int64) (int64, bool) {
	c := a + b
	return c, (c > a) == (b > 0)
}
