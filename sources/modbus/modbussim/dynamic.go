package modbussim

import (
	"fmt"
	"math"

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

// Generate defines the registers of p and lets g compute their raw value at
// each read, rounded for integer types and held within the range of the type.
// p may be of any type but text. All registers of a request are of one moment.
func (u *Unit) Generate(p register.Point, g Generator) error {
	words := encodeNumber(p, 0)
	if words == nil {
		return fmt.Errorf("generate in unit %d: type %d cannot be computed", u.id, p.Type)
	}
	return u.define(p.Table, p.Address, len(words), &dynamicValue{value: func() []uint16 {
		return encodeNumber(p, g.At(max(0, u.server.cfg.Now().Sub(u.server.epoch))))
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

// encodeNumber returns the registers of v as type and order of p say, or nil
// for types that are no numbers. Integers are rounded and held in range.
func encodeNumber(p register.Point, v float64) []uint16 {
	size, bits := 1, uint64(0)
	switch p.Type {
	case register.Bool:
		if v != 0 {
			bits = 1
		}
	case register.Int16, register.SunSSF:
		bits = uint64(int64(hold(v, math.MinInt16, math.MaxInt16)))
	case register.Uint16, register.Bits16:
		bits = uint64(hold(v, 0, math.MaxUint16))
	case register.BCD16:
		bits = bcd(uint64(hold(v, 0, 9999)))
	case register.Int32:
		size, bits = 2, uint64(int64(hold(v, math.MinInt32, math.MaxInt32)))
	case register.Uint32, register.Bits32:
		size, bits = 2, uint64(hold(v, 0, math.MaxUint32))
	case register.BCD32:
		size, bits = 2, bcd(uint64(hold(v, 0, 99999999)))
	case register.Float32:
		size, bits = 2, uint64(math.Float32bits(float32(v)))
	case register.Int64:
		size, bits = 4, uint64(int64(hold(v, math.MinInt64, 1<<63-1024)))
	case register.Uint64:
		size, bits = 4, uint64(hold(v, 0, 1<<64-2048))
	case register.Float64:
		size, bits = 4, math.Float64bits(v)
	default:
		return nil
	}
	return arrange(bits, size, p.Order)
}

// hold rounds v and keeps it between lowest and highest; NaN becomes lowest.
func hold(v, lowest, highest float64) float64 {
	if math.IsNaN(v) {
		return lowest
	}
	return min(max(math.Round(v), lowest), highest)
}

// bcd returns n in binary coded decimals.
func bcd(n uint64) (bits uint64) {
	for shift := 0; n > 0; shift += 4 {
		bits |= n % 10 << shift
		n /= 10
	}
	return bits
}

// arrange returns the lowest size words of bits as they go over the wire.
func arrange(bits uint64, size int, o register.Order) []uint16 {
	words := make([]uint16, size)
	for i := range words {
		at := size - 1 - i
		if o == register.CDAB || o == register.DCBA {
			at = i
		}
		words[at] = uint16(bits >> (16 * i))
		if o == register.BADC || o == register.DCBA {
			words[at] = words[at]<<8 | words[at]>>8
		}
	}
	return words
}
