package mapping

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/configs"
	"sluice/sources/register"
)

// shortForm is a point parsed from its one-line form:
//
//	<table> <address> <type> [order] [unit] [*scale] [+offset|-offset]
//	        [every N] [deadband N|N%] [force N] [round N] [range A..B] [counter] [retain]
//	<reference> <type> ...
//
// What follows the type may stand in any order. Bit tables need no type.
type shortForm struct {
	fields   fields
	offsets  map[string]int // where settings stand, by the key of the long form
	problems []finding
	words    []token
	next     int
}

var shortKeywords = []string{"every", "deadband", "force", "round", "range", "counter", "retain"}

// parseShort parses a short form. base and baseSaid are the device's.
func parseShort(text string, base int, baseSaid bool) *shortForm {
	s := &shortForm{offsets: map[string]int{}, words: tokens(text)}
	if len(s.words) == 0 {
		s.fail(0, CodeNoAddress, "the point is empty", `write what to read: "input 0 float32 V"`)
		return s
	}
	a, used, problems := parseAddress(s.words, base, baseSaid)
	s.problems = append(s.problems, problems...)
	if used == 0 {
		return s
	}
	s.offsets["at"] = s.words[min(used, len(s.words))-1].offset
	if a.table != 0 {
		s.fields.address = &a
	}
	s.next = used
	s.typeWord(a)
	for s.next < len(s.words) {
		s.word()
	}
	return s
}

func (s *shortForm) fail(offset int, code, message, fix string) {
	s.problems = append(s.problems, finding{offset: offset, code: code, message: message, fix: fix})
}

func (s *shortForm) failValue(offset int, prefix string, e *configs.ValueError) {
	s.fail(offset, e.Code, prefix+e.Message, e.Fix)
}

// typeWord takes the type behind the address. Bits may leave it out.
func (s *shortForm) typeWord(a address) {
	if s.next >= len(s.words) || s.isSetting(s.words[s.next]) {
		if a.table.IsBit() {
			s.fields.kind = register.Bool
		} else {
			last := s.words[s.next-1]
			s.fail(last.offset+len(last.text), CodeType, "the type is missing", "write one behind the address: "+strings.Join(typeNames, ", "))
		}
		return
	}
	t := s.words[s.next]
	kind, bytes, failure := parseType(t.text)
	if failure != nil {
		if a.table.IsBit() && configs.Suggest(t.text, typeNames) == "" && otherTypeWords[strings.ToLower(t.text)] == "" {
			s.fields.kind = register.Bool // what follows is no type at all
			return
		}
		s.failValue(t.offset, "", failure)
		s.next++
		return
	}
	s.offsets["as"] = t.offset
	s.fields.kind, s.fields.bytes = kind, bytes
	s.next++
}

// isSetting reports whether a word can only belong behind the type.
func (s *shortForm) isSetting(t token) bool {
	for _, k := range shortKeywords {
		if t.text == k {
			return true
		}
	}
	return strings.IndexByte("*+-", t.text[0]) >= 0
}

// word takes the next setting.
func (s *shortForm) word() {
	t := s.words[s.next]
	s.next++
	switch first := t.text[0]; {
	case first == '*':
		s.number("scale", t, "*")
	case (first == '+' || first == '-') && (len(t.text) > 1 || s.next < len(s.words)):
		s.number("offset", t, t.text[:1])
	case isOrder(t.text):
		order, _ := parseOrder(t.text) // it is one of the four
		if s.once("order", t) {
			s.fields.order = &order
		}
	case t.text == "counter" || t.text == "retain":
		s.flag(t)
	case s.isSetting(t):
		s.keyword(t)
	default:
		s.unit(t)
	}
}

func isOrder(word string) bool {
	_, failure := parseOrder(word)
	return failure == nil
}

// once notes where a setting stands, and refuses it the second time.
func (s *shortForm) once(key string, t token) bool {
	if _, twice := s.offsets[key]; twice {
		s.fail(t.offset, CodeWord, "a second "+key+": "+quote(t.text), "keep one")
		return false
	}
	s.offsets[key] = t.offset
	return true
}

func (s *shortForm) flag(t token) {
	yes := true
	key, field := "kind", &s.fields.counter
	if t.text == "retain" {
		key, field = "retain", &s.fields.retain
	}
	if s.once(key, t) {
		*field = &yes
	}
}

// number takes *scale, +offset or -offset; a blank behind the sign is allowed.
func (s *shortForm) number(key string, t token, sign string) {
	text, offset := t.text[1:], t.offset+1
	if text == "" {
		if s.next >= len(s.words) {
			s.fail(t.offset, CodeScale, "no number follows "+sign, "")
			return
		}
		text, offset = s.words[s.next].text, s.words[s.next].offset
		s.next++
	}
	if strings.IndexByte("+-", text[0]) >= 0 && sign != "*" {
		s.fail(offset, CodeScale, "two signs before "+key, "keep one")
		return
	}
	value, failure := parseDecimal(text)
	if failure != nil {
		s.failValue(offset, key+" ", failure)
		return
	}
	if sign == "-" {
		value.mant = -value.mant
	}
	if !s.once(key, token{text, offset}) {
		return
	}
	if key == "scale" {
		s.fields.scale = &value
	} else {
		s.fields.offset = &value
	}
}

// keyword takes a word with a value behind it.
func (s *shortForm) keyword(t token) {
	if s.next >= len(s.words) {
		s.fail(t.offset+len(t.text), CodeWord, t.text+" is not followed by a value", "for example: "+shortExamples[t.text])
		return
	}
	value := s.words[s.next]
	s.next++
	if !s.once(t.text, value) {
		return
	}
	switch t.text {
	case "every", "force":
		d, failure := configs.ReadDuration(value.text)
		if failure != nil {
			s.failValue(value.offset, "", failure)
			return
		}
		s.interval(t.text, d)
	case "deadband":
		d, failure := parseDeadband(value.text)
		if failure != nil {
			s.failValue(value.offset, "", failure)
			return
		}
		s.fields.deadband = &d
	case "round":
		n, failure := configs.ReadInt(value.text, 32)
		if failure != nil {
			s.failValue(value.offset, "round ", failure)
			return
		}
		digits := int(n)
		s.fields.round = &digits
	case "range":
		s.limits(value)
	}
}

func (s *shortForm) interval(key string, d time.Duration) {
	if key == "every" {
		s.fields.every = &d
	} else {
		s.fields.force = &d
	}
}

var shortExamples = map[string]string{"every": "every 60s", "force": "force 5m", "deadband": "deadband 0.5",
	"round": "round 1", "range": "range 0..300"}

// limits takes A..B.
func (s *shortForm) limits(t token) {
	low, high, ok := strings.Cut(t.text, "..")
	if !ok {
		s.fail(t.offset, CodeInvalidValue, "range "+quote(t.text)+" has no two ends", "write range 0..300")
		return
	}
	var ends [2]float64
	for i, text := range []string{low, high} {
		v, failure := configs.ReadFloat(text)
		if failure != nil {
			s.failValue(t.offset, "range ", failure)
			return
		}
		ends[i] = v
	}
	s.fields.limits = &ends
}

// unit takes any other word as the unit, unless it was meant as something else.
func (s *shortForm) unit(t token) {
	if f, wrong := notUnit(t); wrong {
		s.problems = append(s.problems, f)
		if shortExamples[nearKeyword(t.text)] != "" {
			s.next++ // its value
		}
		return
	}
	if _, have := s.offsets["unit"]; have {
		s.fail(t.offset, CodeWord, quote(t.text)+" means nothing here; the unit is already "+quote(*s.fields.unit),
			configs.DidYouMean(t.text, append(shortKeywords, orderNames...)))
		return
	}
	s.offsets["unit"] = t.offset
	s.fields.unit = &t.text
}

// notUnit recognises words at the place of a unit that were meant otherwise.
func notUnit(t token) (finding, bool) {
	f := finding{offset: t.offset, code: CodeWord}
	first, _ := utf8.DecodeRuneInString(t.text)
	rest := strings.TrimLeft(t.text, "x×/")
	_, isNumber := parseDecimal(rest)
	switch word := strings.ToLower(t.text); {
	case looksLikeOrder(t.text):
		f.code, f.message, f.fix = CodeOrder, "unknown byte order "+quote(t.text), orderFix
	case isNumber == nil && rest == t.text:
		f.message, f.fix = "the number "+t.text+" alone means nothing here", "write *"+t.text+" for a scale or +"+t.text+" for an offset"
	case isNumber == nil && t.text[0] == '/':
		f.message, f.fix = "a division is written as a scale", "for /10 write *0.1"
	case isNumber == nil:
		f.message, f.fix = "a scale begins with *", "write *"+rest
	case isType(t.text) || strings.HasPrefix(t.text, "string("):
		f.message, f.fix = "a second type: "+quote(t.text), "keep one"
	case word == "scale" || word == "offset" || word == "unit" || word == "order":
		f.message = quote(t.text) + " is a key of the long form"
		f.fix = map[string]string{"scale": "here a scale is written *0.1", "offset": "here an offset is written +5 or -5",
			"unit": "here the unit stands alone", "order": "here the order stands alone: CDAB"}[word]
	case nearKeyword(t.text) != "":
		f.message, f.fix = "unknown word "+quote(t.text), "did you mean \""+nearKeyword(t.text)+"\"?"
	case !unicode.IsLetter(first) && !strings.ContainsRune("°%‰", first) && !strings.HasPrefix(t.text, "1/") || !printable(t.text):
		f.message, f.fix = quote(t.text)+" means nothing here", "units begin with a letter, ° or %"
	default:
		return finding{}, false
	}
	return f, true
}

// nearKeyword returns the keyword a longer word was meant as.
func nearKeyword(word string) string {
	if len(word) < 4 {
		return ""
	}
	return configs.Suggest(word, shortKeywords)
}

// printable reports whether a unit can be shown as it is.
func printable(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) || strings.ContainsRune("{}\"", r) {
			return false
		}
	}
	return utf8.RuneCountInString(s) <= 24
}
