package modbussim

import (
	"math"
	"math/rand/v2"
	"time"
)

// Generator computes a value from the time since Config.Epoch. It gives the
// same value for the same time always, so that tests can foretell it.
type Generator interface {
	// At returns the value after elapsed, which is not negative.
	At(elapsed time.Duration) float64
}

// Ramp grows steadily from Start, or falls with a negative PerSecond. With
// Step it moves in multiples of Step, as counters do; with Wrap it goes back
// to Start after having grown by Wrap.
type Ramp struct {
	Start, PerSecond float64
	Step, Wrap       float64 // 0: smooth, without end
}

// At returns the value of the ramp after elapsed.
func (r Ramp) At(elapsed time.Duration) float64 {
	grown := elapsed.Seconds() * r.PerSecond
	if r.Step > 0 {
		grown = math.Trunc(grown/r.Step) * r.Step
	}
	if r.Wrap > 0 {
		grown = math.Mod(grown, r.Wrap)
	}
	return r.Start + grown
}

// Sine swings around Mean, with noise that changes each second and stays
// within plus and minus Noise.
type Sine struct {
	Mean, Amplitude, Noise float64
	Period                 time.Duration // 0 means no swing
	Phase                  float64       // in turns, 0 to 1
	Seed                   uint64        // of the noise
}

// At returns the value after elapsed: within Amplitude+Noise of Mean.
func (s Sine) At(elapsed time.Duration) float64 {
	v := s.Mean
	if s.Period > 0 {
		turns := float64(elapsed%s.Period)/float64(s.Period) + s.Phase
		v += s.Amplitude * math.Sin(2*math.Pi*turns)
	}
	if s.Noise != 0 {
		second := uint64(elapsed / time.Second)
		v += s.Noise * (2*rand.New(rand.NewPCG(s.Seed, second)).Float64() - 1)
	}
	return v
}

// Raw returns what a device shows of g in a register with a scale and an
// offset: value = raw * scale + offset. A scale of 0 counts as 1.
func Raw(g Generator, scale, offset float64) Generator {
	if scale == 0 {
		scale = 1
	}
	return raw{g, scale, offset}
}

type raw struct {
	of            Generator
	scale, offset float64
}

// At returns the raw value after elapsed.
func (r raw) At(elapsed time.Duration) float64 { return (r.of.At(elapsed) - r.offset) / r.scale }
