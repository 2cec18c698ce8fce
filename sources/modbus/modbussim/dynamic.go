package modbussim

import (
	"encoding/binary"
	"fmt"
	"math"

	"sluice/sources"
	"sluice/sources/register"
)

// dynamicValue is a value that is computed at each read. The mutex of its unit
// guards it.
type dynamicValue struct {
	value func() []uint16 // the registers as they are now
	next  func()          // called once before each read by a client, or nil
}

// peek returns the registers without counting a read.
func (d *dynamicValue) peek() []uint16 { return d.value() }

// take returns the registers for one read by a client.
func (d *dynamicValue) take() []uint16 {
	if d.next != nil {
		d.next()
	}
	return d.value()
}

// SetPoint defines the registers of p and gives them the value v. An error
// wraps register.ErrValue if v does not fit p.
func (u *Unit) SetPoint(p register.Point, v sources.Value) error {
	words, err := encode(p, v)
	if err != nil {
		return fmt.Errorf("set unit %d: %w", u.id, err)
	}
	return u.Set(p.Table, p.Address, words...)
}

// Generate defines the registers of p and lets g compute their raw value at
// each read, rounded for integer types and held within the range of the type.
// p may be of any type but text. All registers of a request are of one moment.
func (u *Unit) Generate(p register.Point, g Generator) error {
	words, err := encode(p, fit(p.Type, 0))
	if err != nil {
		return fmt.Errorf("generate in unit %d: %w", u.id, err)
	}
	return u.define(p.Table, p.Address, len(words), &dynamicValue{value: func() []uint16 {
		v := g.At(max(0, u.server.cfg.Now().Sub(u.server.epoch)))
		if now, err := encode(p, fit(p.Type, v)); err == nil { // fit makes it fit
			words = now
		}
		return words
	}})
}

// CountReads defines a pair of registers, a uint32 in order ABCD, that counts
// the requests that read one of the two: the first reads 1. So a client, and
// everything behind it, must come to see 1, 2, 3 and so on without gaps. Every
// request to the unit counts, also one whose reply a fault destroys;
// Config.OnRequest tells which.
func (u *Unit) CountReads(t register.Table, addr uint16) error {
	var n uint32
	return u.define(t, addr, 2, &dynamicValue{
		value: func() []uint16 { return []uint16{uint16(n >> 16), uint16(n)} },
		next:  func() { n++ },
	})
}

// define binds quantity addresses to d.
func (u *Unit) define(t register.Table, addr uint16, quantity int, d *dynamicValue) error {
	if err := checkRange(t, addr, quantity); err != nil {
		return fmt.Errorf("define in unit %d: %w", u.id, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.dynamic[t] == nil {
		u.dynamic[t] = make(map[uint16]cell)
	}
	for i := range quantity {
		u.dynamic[t][addr+uint16(i)] = cell{source: d, word: i}
	}
	return nil
}

// encode returns the registers of v, for a table of bits one word 0 or 1.
func encode(p register.Point, v sources.Value) ([]uint16, error) {
	data, err := p.Encode(v)
	if err != nil {
		return nil, err
	}
	if p.Table.IsBit() {
		return []uint16{uint16(data[0])}, nil
	}
	words := make([]uint16, len(data)/2)
	for i := range words {
		words[i] = binary.BigEndian.Uint16(data[2*i:])
	}
	return words, nil
}

// fit returns v as a value that type t can hold: rounded and kept in the range
// of integer types, within the finite numbers of floats. Texts get no value.
func fit(t register.Type, v float64) sources.Value {
	switch t {
	case register.Bool:
		return sources.Bool(v != 0)
	case register.Int16:
		return sources.Int64(int64(hold(v, math.MinInt16, math.MaxInt16)))
	case register.SunSSF:
		return sources.Int64(int64(hold(v, -10, 10)))
	case register.Int32:
		return sources.Int64(int64(hold(v, math.MinInt32, math.MaxInt32)))
	case register.Int64: // the largest float64 below 2^63
		return sources.Int64(int64(hold(v, math.MinInt64, 1<<63-1024)))
	case register.Uint16, register.Bits16:
		return sources.Uint64(uint64(hold(v, 0, math.MaxUint16)))
	case register.Uint32, register.Bits32:
		return sources.Uint64(uint64(hold(v, 0, math.MaxUint32)))
	case register.Uint64: // the largest float64 below 2^64
		return sources.Uint64(uint64(hold(v, 0, 1<<64-2048)))
	case register.BCD16:
		return sources.Uint64(uint64(hold(v, 0, 9999)))
	case register.BCD32:
		return sources.Uint64(uint64(hold(v, 0, 99999999)))
	case register.Float32:
		return sources.Float64(clamp(v, -math.MaxFloat32, math.MaxFloat32))
	case register.Float64:
		return sources.Float64(clamp(v, -math.MaxFloat64, math.MaxFloat64))
	}
	return sources.Value{}
}

// hold rounds v and keeps it between lowest and highest.
func hold(v, lowest, highest float64) float64 { return clamp(math.Round(v), lowest, highest) }

// clamp keeps v between lowest and highest; NaN becomes lowest.
func clamp(v, lowest, highest float64) float64 {
	if math.IsNaN(v) {
		return lowest
	}
	return min(max(v, lowest), highest)
}
