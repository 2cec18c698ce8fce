package modbussim

import (
	"hash/fnv"
	"strings"
	"time"
)

// PlausibleFor returns values such as a meter in a small factory shows, chosen
// by the engineering unit (V, A, W, kW, Hz, kWh, var, VA, °C, %, and others
// with their prefixes) and by words in the name of the point, such as
// "voltage_l1_l2" or "power_factor". Points of different names move
// differently; the same unit and name give the same values always. A unit that
// is not known gives a value that swings around 50.
func PlausibleFor(unit, name string) Generator {
	name = strings.ToLower(name)
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(name + "|" + unit)) // a hash never fails
	seed := hash.Sum64()
	around := func(mean, swing, noise float64, period time.Duration) Generator {
		return Sine{Mean: mean, Amplitude: swing, Noise: noise, Period: period,
			Phase: float64(seed%1000) / 1000, Seed: seed}
	}
	base, factor := splitPrefix(unit)
	switch base {
	case "V":
		if lineToLine(name) {
			return around(400*factor, 4*factor, 0.5*factor, 10*time.Minute)
		}
		return around(230*factor, 2.5*factor, 0.3*factor, 10*time.Minute)
	case "A":
		if hasWord(name, "neutral", "n") {
			return around(0.4*factor, 0.2*factor, 0.05*factor, 4*time.Minute)
		}
		return around(6*factor, 2*factor, 0.2*factor, 4*time.Minute)
	case "W", "VA":
		return around(plausiblePower(name)*factor, 400*factor, 20*factor, 4*time.Minute)
	case "var":
		return around(0.25*plausiblePower(name)*factor, 100*factor, 10*factor, 4*time.Minute)
	case "Wh", "VAh", "varh", "Ah":
		return plausibleEnergy(base, name, factor)
	case "Hz":
		return around(50*factor, 0.03*factor, 0.01*factor, 90*time.Second)
	}
	return plausibleOther(unit, name, around)
}

// plausibleOther covers what is not electrical power.
func plausibleOther(unit, name string, around func(mean, swing, noise float64, period time.Duration) Generator) Generator {
	switch {
	case unit == "°C" || unit == "degC" || unit == "C":
		return around(24, 3, 0.1, time.Hour)
	case unit == "%" && hasWord(name, "thd"):
		return around(3, 1, 0.2, 10*time.Minute)
	case unit == "%":
		return around(55, 20, 0.5, time.Hour)
	case unit == "°" || unit == "deg":
		return around(15, 5, 0.5, 10*time.Minute)
	case unit == "bar":
		return around(2.5, 0.3, 0.02, 10*time.Minute)
	case unit == "h":
		return Ramp{Start: 8760, PerSecond: 1.0 / 3600}
	case unit == "s":
		return Ramp{PerSecond: 1, Step: 1}
	case unit == "m³" || unit == "m3":
		return Ramp{Start: 1200, PerSecond: 1.0 / 3600}
	case strings.Contains(name, "factor") || hasWord(name, "pf", "cos", "cosphi"):
		return around(0.93, 0.04, 0.005, 4*time.Minute)
	}
	return around(50, 10, 1, 5*time.Minute)
}

// plausiblePower is the mean in W: a phase carries a third of the total.
func plausiblePower(name string) float64 {
	if hasWord(name, "l1", "l2", "l3", "a", "b", "c") {
		return 1400
	}
	return 4200
}

// plausibleEnergy counts up at the mean power; what is exported, at a tenth.
func plausibleEnergy(base, name string, factor float64) Generator {
	perHour := plausiblePower(name)
	switch {
	case base == "varh":
		perHour *= 0.25
	case base == "Ah":
		perHour = 6
	}
	if hasWord(name, "export", "exported", "delivered", "exp") {
		perHour *= 0.1
	}
	return Ramp{Start: 2000 * perHour * factor, PerSecond: perHour * factor / 3600}
}

// lineToLine reports whether the name is of a voltage between two lines.
func lineToLine(name string) bool {
	if hasWord(name, "ll", "l12", "l23", "l31", "line") && !hasWord(name, "neutral") {
		return true
	}
	phases := 0
	for _, phase := range []string{"l1", "l2", "l3"} {
		if hasWord(name, phase) {
			phases++
		}
	}
	return phases == 2
}

// hasWord reports whether one of the words stands in name between anything
// that is no letter and no digit.
func hasWord(name string, words ...string) bool {
	for _, part := range strings.FieldsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}) {
		for _, word := range words {
			if part == word {
				return true
			}
		}
	}
	return false
}

// splitPrefix takes k, M or m from an electrical unit and returns the factor
// that turns a value in the base unit into one in unit.
func splitPrefix(unit string) (base string, factor float64) {
	for prefix, factor := range map[string]float64{"k": 1e-3, "M": 1e-6, "m": 1e3} {
		base, found := strings.CutPrefix(unit, prefix)
		if !found {
			continue
		}
		switch base {
		case "V", "A", "W", "VA", "var", "Wh", "VAh", "varh", "Ah", "Hz":
			return base, factor
		}
	}
	return unit, 1
}
