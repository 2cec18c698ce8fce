package mapping

import (
	"fmt"
	"strconv"
	"strings"

	"sluice/configs"
	"sluice/sources/register"
)

// finding is something wrong in a text: where in it, what, and the remedy.
type finding struct {
	offset  int
	warning bool
	code    string
	message string
	fix     string
}

// token is a word of a short form with its place in bytes.
type token struct {
	text   string
	offset int
}

// tokens splits a text at blanks.
func tokens(s string) []token {
	var all []token
	for i := 0; i < len(s); {
		if isBlank(s[i]) {
			i++
			continue
		}
		start := i
		for i < len(s) && !isBlank(s[i]) {
			i++
		}
		all = append(all, token{s[start:i], start})
	}
	return all
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// address is a place in a device: a table and a PDU address.
type address struct {
	table register.Table
	pdu   uint16
}

var tableWords = map[string]register.Table{
	"coil": register.Coil, "discrete": register.DiscreteInput,
	"holding": register.HoldingRegister, "input": register.InputRegister,
}

// tableNames are the words above in the order people know them.
var tableNames = []string{"input", "holding", "coil", "discrete"}

// parseAddress reads the address at the beginning of words: a table word and a
// number, or a manual's reference of five or six digits. It returns how many
// words it took; 0 if there is no address to be made out. base is what the
// first register is called, 0 or 1; with baseSaid the user has said so.
func parseAddress(words []token, base int, baseSaid bool) (a address, used int, problems []finding) {
	first := words[0]
	if c := first.text[0]; c >= '0' && c <= '9' {
		a, f := parseReference(first)
		return a, 1, f
	}
	table, known := tableWords[first.text]
	if !known {
		return a, 0, []finding{unknownTable(first)}
	}
	if len(words) == 1 {
		return a, 0, []finding{{offset: first.offset + len(first.text), code: CodeAddress,
			message: first.text + " is not followed by an address", fix: "write " + first.text + " and the address: " + first.text + " 100"}}
	}
	number := words[1]
	n, failure := configs.ReadUint(number.text, 32)
	if failure != nil {
		return a, 2, []finding{{offset: number.offset, code: CodeAddress, message: "address " + failure.Message, fix: failure.Fix}}
	}
	a, f := wordAddress(table, number, n, base, baseSaid)
	return a, 2, f
}

// unknownTable explains a first word that is no table.
func unknownTable(t token) finding {
	f := finding{offset: t.offset, code: CodeAddress, message: "unknown table " + quote(t.text), fix: configs.DidYouMean(t.text, tableNames)}
	switch strings.ToLower(t.text) {
	case "hr", "fc3", "4x", "holding_register", "holdingregister":
		f.fix = "write holding"
	case "ir", "fc4", "3x", "read", "input_register", "inputregister":
		f.fix = "write input"
	case "di", "fc2", "1x", "discrete_input", "contact":
		f.fix = "write discrete"
	case "co", "fc1", "0x", "coils":
		f.fix = "write coil"
	case "register", "reg":
		f.fix = "say which table: holding or input"
	}
	return f
}

// wordAddress turns the number behind a table word into a PDU address.
func wordAddress(table register.Table, number token, n uint64, base int, baseSaid bool) (address, []finding) {
	manual, isReference := referenceNumber(table, number.text)
	if n < uint64(base) {
		return address{}, []finding{{offset: number.offset, code: CodeAddress, message: fmt.Sprintf("%s %d does not exist: with base: 1 addresses begin at 1", table, n)}}
	}
	pdu := n - uint64(base)
	if pdu > 65535 {
		f := finding{offset: number.offset, code: CodeAddress, message: fmt.Sprintf("address %d is beyond 65535", n)}
		if isReference {
			f.fix = fmt.Sprintf("the manual's %d is %s %d", n, table, manual+base)
		}
		return address{}, []finding{f}
	}
	a := address{table, uint16(pdu)}
	if !isReference || baseSaid {
		return a, nil
	}
	return a, []finding{{offset: number.offset, warning: true, code: CodeReference,
		message: fmt.Sprintf("%s %d is zero-based address %d; the manual's %d is usually %s %d", table, n, n, n, table, manual),
		fix:     fmt.Sprintf("write %d without the word %s if the manual says so, or base: 0 for the device if %d is meant", n, table, n)}}
}

// referenceNumber tells whether the digits look like a manual's reference for
// the table (40053 for holding), and the PDU address that would be.
func referenceNumber(table register.Table, digits string) (pdu int, ok bool) {
	lead := map[register.Table]byte{register.HoldingRegister: '4', register.InputRegister: '3', register.DiscreteInput: '1'}[table]
	if (len(digits) != 5 && len(digits) != 6) || digits[0] != lead {
		return 0, false
	}
	n, err := strconv.Atoi(digits[1:])
	return n - 1, err == nil && n >= 1 && n <= 65536
}

// parseReference reads a manual's reference: one digit for the table, and four
// or five for the register counted from 1 (40201 and 400201 are holding 200).
func parseReference(t token) (address, []finding) {
	fail := func(message, fix string) (address, []finding) {
		return address{}, []finding{{offset: t.offset, code: CodeAddress, message: message, fix: fix}}
	}
	digits := t.text
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return fail("address "+quote(digits)+" does not say its table", "put the table before it: input, holding, coil or discrete")
		}
	}
	if len(digits) != 5 && len(digits) != 6 {
		return fail("address "+digits+" does not say its table", "write input "+digits+", holding "+digits+
			", coil "+digits+" or discrete "+digits+"; a bare number is a manual's reference of five or six digits, such as 40201")
	}
	table, ok := map[byte]register.Table{'0': register.Coil, '1': register.DiscreteInput, '3': register.InputRegister, '4': register.HoldingRegister}[digits[0]]
	if !ok {
		return fail("reference "+digits+" begins with no table's digit", "manuals use 0 coil, 1 discrete, 3 input, 4 holding; else put the table before it: holding "+digits)
	}
	n, err := strconv.Atoi(digits[1:])
	switch {
	case err != nil || n > 65536:
		return fail("reference "+digits+" is beyond register 65536", "")
	case n == 0:
		return fail("reference "+digits+" does not exist: references count from 1", "write "+digits[:len(digits)-1]+"1, or "+table.String()+" 0")
	}
	return address{table, uint16(n - 1)}, nil
}

// reference returns the address as manuals write it, six digits.
func (a address) reference() string {
	lead := map[register.Table]int{register.Coil: 0, register.DiscreteInput: 1, register.InputRegister: 3, register.HoldingRegister: 4}[a.table]
	return fmt.Sprintf("%d%05d", lead, int(a.pdu)+1)
}

func quote(s string) string {
	if r := []rune(s); len(r) > 40 {
		s = string(r[:40]) + "…"
	}
	return strconv.Quote(s)
}
