package modbussim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice/sources/register"
)

// argument is the set of arguments a fault name may be followed by.
type argument uint8

const (
	argNone  argument = 0
	argDelay argument = 1 << iota
	argCount
	argCode
)

// ParseFault reads a rule as written on the command line:
//
//	[unit=N] [TABLE [ADDR[-ADDR]]] FAULT [ARGUMENT] [WHEN ...]
//
// TABLE is coil, discrete, holding or input; ADDR a 0-based address, decimal or
// with 0x. FAULT is a name of FaultKind; its ARGUMENT, which may be left out,
// is a duration such as 2s, a count or an exception code, whichever applies.
// WHEN is "every N", "nth N", "times N", "rate 0.05" or "rate 5%", "seed N".
// Examples:
//
//	unit=3 holding 100 late 2s every 10
//	input 0-9 exception 6 times 3
//	random 300ms rate 5% seed 1
func ParseFault(text string) (Fault, error) {
	p := faultParser{words: strings.Fields(text)}
	err := p.parse()
	if err == nil {
		err = p.fault.validate()
	}
	if err != nil {
		return Fault{}, fmt.Errorf("fault rule %q: %w", text, err)
	}
	return p.fault, nil
}

// faultParser takes words from the left.
type faultParser struct {
	words []string
	fault Fault
}

func (p *faultParser) next() string {
	if len(p.words) == 0 {
		return ""
	}
	word := p.words[0]
	p.words = p.words[1:]
	return word
}

func (p *faultParser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

func (p *faultParser) parse() error {
	if id, found := strings.CutPrefix(p.peek(), "unit="); found {
		n, err := strconv.ParseUint(id, 10, 8)
		if err != nil || n < 1 || n > 247 {
			return fmt.Errorf("unit %q is not 1 to 247", id)
		}
		p.fault.Unit = uint8(n)
		p.next()
	}
	if t, err := register.ParseTable(p.peek()); err == nil {
		p.fault.Table = t
		p.next()
		if err := p.addresses(); err != nil {
			return err
		}
	}
	if err := p.kind(); err != nil {
		return err
	}
	for len(p.words) > 0 {
		if err := p.when(); err != nil {
			return err
		}
	}
	return nil
}

// addresses reads ADDR or ADDR-ADDR if there is one.
func (p *faultParser) addresses() error {
	word := p.peek()
	if word == "" || word[0] < '0' || word[0] > '9' {
		return nil
	}
	p.next()
	first, last, isRange := strings.Cut(word, "-")
	if !isRange {
		last = first
	}
	a, errFirst := parseWord(first)
	b, errLast := parseWord(last)
	if errFirst != nil || errLast != nil || b < a {
		return fmt.Errorf("%q is not an address 0 to 65535 or a range of them", word)
	}
	p.fault.Address, p.fault.Quantity = a, int(b)-int(a)+1
	return nil
}

func (p *faultParser) kind() error {
	name := p.next()
	for kind, k := range faultKinds {
		if name != "" && k.name == name {
			p.fault.Kind = FaultKind(kind)
			return p.arguments(k.args)
		}
	}
	names := make([]string, 0, len(faultKinds))
	for _, k := range FaultKinds() {
		names = append(names, k.String())
	}
	return fmt.Errorf("%q is no fault; there are %s", name, strings.Join(names, ", "))
}

// arguments reads what may follow the name of a fault.
func (p *faultParser) arguments(args argument) error {
	for word := p.peek(); word != "" && word[0] >= '0' && word[0] <= '9'; word = p.peek() {
		n, errNumber := strconv.ParseUint(word, 10, 16)
		d, errDelay := time.ParseDuration(word)
		switch {
		case errNumber == nil && args&argCount != 0:
			p.fault.Count = int(n)
			args &^= argCount
		case errNumber == nil && args&argCode != 0 && n >= 1 && n <= 255:
			p.fault.Code = uint8(n)
			args &^= argCode
		case errNumber != nil && errDelay == nil && args&argDelay != 0:
			p.fault.Delay = d
			args &^= argDelay
		default:
			return fmt.Errorf("fault %v cannot take the argument %q", p.fault.Kind, word)
		}
		p.next()
	}
	return nil
}

func (p *faultParser) when() error {
	word, value := p.next(), p.next()
	if word == "rate" {
		return p.rate(value)
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n == 0 && word != "seed" {
		return fmt.Errorf("%q %q is not a number of 1 or more", word, value)
	}
	switch word {
	case "every":
		p.fault.Every = n
	case "nth":
		p.fault.Nth = n
	case "times":
		p.fault.Times = n
	case "seed":
		p.fault.Seed = n
	default:
		return fmt.Errorf("%q is not every, nth, times, rate or seed", word)
	}
	return nil
}

func (p *faultParser) rate(value string) error {
	number, percent := strings.CutSuffix(value, "%")
	rate, err := strconv.ParseFloat(number, 64)
	if percent {
		rate /= 100
	}
	if err != nil || !(rate > 0 && rate <= 1) {
		return fmt.Errorf("rate %q is not above 0 and up to 1 or 100%%", value)
	}
	p.fault.Rate = rate
	return nil
}

// parseWord reads 0 to 65535, decimal or with 0x.
func parseWord(text string) (uint16, error) {
	base := 10
	if hex, found := strings.CutPrefix(text, "0x"); found {
		text, base = hex, 16
	}
	n, err := strconv.ParseUint(text, base, 16)
	return uint16(n), err
}
