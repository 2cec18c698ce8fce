package modbussim

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sluice/sources/register"
)

// Block is a run of registers in a dump file.
type Block struct {
	Unit    uint8 // 1 to 247
	Table   register.Table
	Address uint16
	Words   []uint16
}

// DumpError is one mistake in a dump file.
type DumpError struct {
	File      string
	Line, Col int // counted from 1; Col in bytes
	Text      string
}

// Error returns file:line:col: text.
func (e *DumpError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Text)
}

// maxDumpErrors bounds how many mistakes ParseDump lists.
const maxDumpErrors = 20

// ParseDump reads a dump file: lines of a table, a 0-based address, and the
// values from there on.
//
//	# a comment, to the end of the line
//	unit 3                        what follows is of unit 3; without: unit 1
//	holding 100 2300 -5 65535     decimal, -32768 to 65535
//	holding 0x0064 08FC FFFB      after an address with 0x: hexadecimal words
//	coil 0 1 0 1                  bits: 0 or 1
//
// Tables are coil, discrete, holding and input. An address may be given once
// only. The error joins a *DumpError for each mistake, up to 20; file is the
// name that they show.
func ParseDump(file string, data []byte) ([]Block, error) {
	p := dumpParser{file: file, unit: 1, seen: make(map[dumpCell]int)}
	for number, line := range strings.Split(string(data), "\n") {
		if len(p.errs) >= maxDumpErrors {
			break
		}
		p.number = number + 1
		line, _, _ = strings.Cut(line, "#")
		p.line(fields(line))
	}
	return p.blocks, errors.Join(p.errs...)
}

// Load sets the registers of blocks and adds units that do not exist yet.
func (s *Server) Load(blocks []Block) error {
	for _, b := range blocks {
		u := s.Unit(b.Unit)
		if u == nil {
			var err error
			if u, err = s.AddUnit(b.Unit, UnitConfig{}); err != nil {
				return err
			}
		}
		if err := u.Set(b.Table, b.Address, b.Words...); err != nil {
			return err
		}
	}
	return nil
}

// field is a word of a line and where it stands.
type field struct {
	text string
	col  int
}

// fields splits a line at blanks; a carriage return counts as one.
func fields(line string) (words []field) {
	start := -1
	for i := 0; i <= len(line); i++ {
		blank := i == len(line) || strings.IndexByte(" \t\r", line[i]) >= 0
		switch {
		case !blank && start < 0:
			start = i
		case blank && start >= 0:
			words = append(words, field{line[start:i], start + 1})
			start = -1
		}
	}
	return words
}

// dumpCell is one register of a dump.
type dumpCell struct {
	unit    uint8
	table   register.Table
	address int
}

type dumpParser struct {
	file   string
	number int
	unit   uint8
	seen   map[dumpCell]int // the line each register was given in
	blocks []Block
	errs   []error
}

func (p *dumpParser) fail(at field, format string, args ...any) {
	p.errs = append(p.errs, &DumpError{File: p.file, Line: p.number, Col: at.col, Text: fmt.Sprintf(format, args...)})
}

func (p *dumpParser) line(words []field) {
	if len(words) == 0 {
		return
	}
	if words[0].text == "unit" {
		p.selectUnit(words)
		return
	}
	t, err := register.ParseTable(words[0].text)
	if err != nil {
		p.fail(words[0], "%q is not unit, coil, discrete, holding or input", words[0].text)
		return
	}
	if len(words) < 3 {
		p.fail(words[len(words)-1], "a line is: %v ADDRESS VALUE...", t)
		return
	}
	addr, err := parseWord(words[1].text)
	if err != nil {
		p.fail(words[1], "address %q is not 0 to 65535, decimal or with 0x", words[1].text)
		return
	}
	p.values(Block{Unit: p.unit, Table: t, Address: addr}, words[2:], strings.HasPrefix(words[1].text, "0x"))
}

func (p *dumpParser) selectUnit(words []field) {
	if len(words) != 2 {
		p.fail(words[0], "a line is: unit NUMBER")
		return
	}
	n, err := strconv.ParseUint(words[1].text, 10, 8)
	if err != nil || n < 1 || n > 247 {
		p.fail(words[1], "unit %q is not 1 to 247", words[1].text)
		return
	}
	p.unit = uint8(n)
}

func (p *dumpParser) values(b Block, words []field, hex bool) {
	for i, word := range words {
		cell := dumpCell{b.Unit, b.Table, int(b.Address) + i}
		v, problem := dumpValue(word.text, b.Table, hex)
		first, again := p.seen[cell]
		switch {
		case problem != "":
			p.fail(word, "%s", problem)
			return
		case cell.address > 0xFFFF:
			p.fail(word, "address %d is beyond 65535", cell.address)
			return
		case again:
			p.fail(word, "%v %d of unit %d has a value from line %d", cell.table, cell.address, cell.unit, first)
			return
		}
		p.seen[cell] = p.number
		b.Words = append(b.Words, v)
	}
	p.blocks = append(p.blocks, b)
}

// dumpValue reads a value, or says what is wrong with it.
func dumpValue(text string, t register.Table, hex bool) (v uint16, problem string) {
	if t.IsBit() {
		if text != "0" && text != "1" {
			return 0, fmt.Sprintf("%q is not 0 or 1", text)
		}
		return uint16(text[0] - '0'), ""
	}
	if hex {
		n, err := strconv.ParseUint(text, 16, 16)
		if err != nil || len(text) > 4 {
			return 0, fmt.Sprintf("%q is not a hexadecimal word of 1 to 4 digits", text)
		}
		return uint16(n), ""
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < -32768 || n > 65535 {
		return 0, fmt.Sprintf("%q is not a number from -32768 to 65535", text)
	}
	return uint16(n), ""
}
