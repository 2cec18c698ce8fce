package mapping

import (
	"strconv"
	"strings"

	"sluice/configs"
	"sluice/sources"
	"sluice/sources/register"
)

// typeNames are the words for types in a points list.
var typeNames = []string{"bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
	"string(14)", "bcd16", "bcd32", "bits16", "bits32", "sunssf"}

var typeWords = map[string]register.Type{
	"bool": register.Bool, "int16": register.Int16, "uint16": register.Uint16, "int32": register.Int32,
	"uint32": register.Uint32, "int64": register.Int64, "uint64": register.Uint64, "float32": register.Float32,
	"float64": register.Float64, "bcd16": register.BCD16, "bcd32": register.BCD32, "bits16": register.Bits16,
	"bits32": register.Bits32, "sunssf": register.SunSSF,
}

// otherTypeWords are what other programs and manuals call the types.
var otherTypeWords = map[string]string{
	"float": "float32", "real": "float32", "fp32": "float32", "single": "float32", "f32": "float32", "float32-ieee": "float32",
	"double": "float64", "fp64": "float64", "f64": "float64", "int": "int16", "uint": "uint16", "word": "uint16", "u16": "uint16",
	"u_word": "uint16", "unsigned": "uint16", "s16": "int16", "short": "int16", "s_word": "int16", "signed": "int16",
	"dword": "uint32", "u32": "uint32", "u_dword": "uint32", "s32": "int32", "long": "int32", "s_dword": "int32",
	"u64": "uint64", "u_qword": "uint64", "s64": "int64", "s_qword": "int64", "boolean": "bool", "bit": "bool", "bcd": "bcd16", "bitfield16": "bits16", "bitfield32": "bits32",
	"enum16": "uint16", "acc32": "uint32", "acc64": "uint64", "text": "string(14)", "string": "string(14)", "float32s": "float32 CDAB",
}

// parseType reads a type word; bytes is the length of a text.
func parseType(word string) (t register.Type, bytes uint8, failure *configs.ValueError) {
	if t, ok := typeWords[word]; ok {
		return t, 0, nil
	}
	if inner, ok := strings.CutPrefix(word, "string("); ok {
		number, closed := strings.CutSuffix(inner, ")")
		n, err := strconv.Atoi(number)
		if closed && err == nil && n >= 1 && n <= 250 {
			return register.String, uint8(n), nil
		}
		return 0, 0, &configs.ValueError{Code: CodeType, Message: "the length in " + quote(word) + " must be 1 to 250 bytes", Fix: "write string(14) for 14 letters in 7 registers"}
	}
	fix := configs.DidYouMean(word, typeNames)
	if other, ok := otherTypeWords[strings.ToLower(word)]; ok {
		fix = "write " + other
		if strings.EqualFold(word, "string") {
			fix = "write the length in bytes too: string(14)"
		}
	}
	return 0, 0, &configs.ValueError{Code: CodeType, Message: "unknown type " + quote(word), Fix: fix}
}

// typeText is the word for the type of p, as a points list has it.
func typeText(p *register.Point) string {
	if p.Type == register.String {
		return "string(" + strconv.Itoa(int(p.Bytes)) + ")"
	}
	for word, t := range typeWords {
		if t == p.Type {
			return word
		}
	}
	return "unknown"
}

// typeWidth returns how many registers a type takes; bits of a bit table count
// as one.
func typeWidth(t register.Type, bytes uint8) int {
	switch t {
	case register.Int32, register.Uint32, register.Float32, register.BCD32, register.Bits32:
		return 2
	case register.Int64, register.Uint64, register.Float64:
		return 4
	case register.String:
		return (int(bytes) + 1) / 2
	}
	return 1
}

// typeKind returns the kind of Value that decoding a type gives.
func typeKind(t register.Type) sources.Kind {
	switch t {
	case register.Bool:
		return sources.KindBool
	case register.Int16, register.Int32, register.Int64, register.SunSSF:
		return sources.KindInt64
	case register.Float32:
		return sources.KindFloat32
	case register.Float64:
		return sources.KindFloat64
	case register.String:
		return sources.KindString
	}
	return sources.KindUint64
}

func isFloat(t register.Type) bool { return t == register.Float32 || t == register.Float64 }

// isWhole reports whether raw values of t are whole numbers.
func isWhole(t register.Type) bool {
	k := typeKind(t)
	return k == sources.KindInt64 || k == sources.KindUint64
}

var orderNames = []string{"ABCD", "CDAB", "BADC", "DCBA"}

const orderFix = "ABCD (as sent), CDAB (words swapped), BADC (bytes swapped), DCBA (both)"

// parseOrder reads a byte order.
func parseOrder(word string) (register.Order, *configs.ValueError) {
	for i, name := range orderNames {
		if word == name {
			return register.Order(i), nil
		}
	}
	return 0, &configs.ValueError{Code: CodeOrder, Message: "unknown byte order " + quote(word), Fix: orderFix}
}

// looksLikeOrder reports whether a word at the place of a unit was rather meant
// as a byte order.
func looksLikeOrder(word string) bool {
	w := strings.ToLower(word)
	switch w {
	case "little", "big", "le", "be", "lsw", "msw", "swap", "swapped", "little-endian", "big-endian", "littleendian",
		"bigendian", "word-swap", "byte-swap", "wordswap", "byteswap", "ab", "ba":
		return true
	}
	return len(w) == 4 && strings.ContainsRune(w, 'a') && strings.ContainsRune(w, 'b') &&
		strings.ContainsRune(w, 'c') && strings.ContainsRune(w, 'd')
}
