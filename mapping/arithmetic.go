package mapping

import (
	"math"

	"sluice/sources"
)

// arithmetic turns raw values into engineering values:
//
//	out = round(raw · scale · 10^factor + offset)
//
// Whole raw values are reckoned in whole numbers over a power of ten, with one
// division at the end, so that the result is the float64 nearest to the true
// decimal. The kind of the result is fixed for a point:
//
//	raw          scale and offset      result
//	any          1 and 0, no rounding  as raw
//	whole        whole, no factor      int64; uint64 if neither can be negative
//	whole        else                  float64
//	float32      any                   float32: more digits would not be true
//	float64      any                   float64
type arithmetic struct {
	identity   bool
	out        sources.Kind
	scale      decimal
	offset     decimal
	withFactor bool
	round      *int
}

// newArithmetic returns the arithmetic for raw values of a kind. scale, offset
// and round are nil where not said.
func newArithmetic(raw sources.Kind, scale, offset *decimal, round *int, withFactor bool) arithmetic {
	a := arithmetic{scale: one, offset: zero, withFactor: withFactor, round: round, out: raw}
	if scale != nil {
		a.scale = *scale
	}
	if offset != nil {
		a.offset = *offset
	}
	whole := raw == sources.KindInt64 || raw == sources.KindUint64
	if whole && round != nil && *round >= 0 && a.scale.integral() && a.offset.integral() && !withFactor {
		a.round = nil // whole numbers have nothing to round
	}
	a.identity = a.scale == one && a.offset == zero && a.round == nil && !withFactor
	switch {
	case a.identity || !whole:
	case withFactor || a.round != nil || !a.scale.integral() || !a.offset.integral():
		a.out = sources.KindFloat64
	case a.scale.mant < 0 || a.offset.mant < 0:
		a.out = sources.KindInt64
	}
	return a
}

// apply returns the engineering value of raw; factor is the power of ten of a
// scale factor, -10 to 10, and 0 without one. It returns false for what does
// not fit in the result.
func (a *arithmetic) apply(raw sources.Value, factor int) (sources.Value, bool) {
	if a.identity || !raw.IsNumber() {
		return raw, true
	}
	switch raw.Kind() {
	case sources.KindFloat32:
		f := float32(a.rounded(a.reckonFloat(raw.AsFloat64(), factor)))
		return sources.Float32(f), !math.IsInf(float64(f), 0)
	case sources.KindFloat64:
		f := a.rounded(a.reckonFloat(raw.AsFloat64(), factor))
		return sources.Float64(f), !math.IsInf(f, 0)
	}
	if a.out == sources.KindFloat64 {
		return sources.Float64(a.rounded(a.reckonWhole(raw, factor))), true
	}
	if raw.Kind() == sources.KindUint64 && raw.AsUint64() > math.MaxInt64 {
		return sources.Value{}, false
	}
	scaled, ok := mulInt(raw.AsInt64(), a.scale.mant)
	sum, fits := addInt(scaled, a.offset.mant)
	if a.out == sources.KindUint64 {
		return sources.Uint64(uint64(sum)), ok && fits && sum >= 0
	}
	return sources.Int64(sum), ok && fits
}

// maxExact is the largest whole number up to which float64 holds every one.
const maxExact = 1 << 53

// reckonWhole computes raw·scale·10^factor + offset over a common power of ten.
func (a *arithmetic) reckonWhole(raw sources.Value, factor int) float64 {
	if raw.Kind() == sources.KindInt64 || raw.AsUint64() <= math.MaxInt64 {
		places := a.scale.places - factor
		common := max(places, a.offset.places, 0)
		if up, upOffset := common-places, common-a.offset.places; up <= 18 && upOffset <= 18 && common <= maxPlaces {
			n, ok1 := mulInt(raw.AsInt64(), a.scale.mant)
			n, ok2 := mulInt(n, int64(pow10(up)))
			o, ok3 := mulInt(a.offset.mant, int64(pow10(upOffset)))
			n, ok4 := addInt(n, o)
			if ok1 && ok2 && ok3 && ok4 && n <= maxExact && n >= -maxExact {
				return float64(n) / pow10(common)
			}
		}
	}
	return a.reckonFloat(raw.AsFloat64(), factor)
}

// reckonFloat computes the same in floating point.
func (a *arithmetic) reckonFloat(raw float64, factor int) float64 {
	places := a.scale.places - factor
	f := raw * float64(a.scale.mant)
	if places >= 0 {
		f /= pow10(places)
	} else {
		f *= pow10(-places)
	}
	return f + a.offset.float()
}

func (a *arithmetic) rounded(f float64) float64 {
	if a.round == nil {
		return f
	}
	n := *a.round
	if n < 0 {
		return math.Round(f/pow10(-n)) * pow10(-n)
	}
	if r := math.Round(f*pow10(n)) / pow10(n); !math.IsInf(r, 0) && !math.IsNaN(r) {
		return r
	}
	return f // too large to have digits behind the point
}
