package mapping

import (
	"strconv"
	"strings"

	"sluice/configs"
	"sluice/sources"
	"sluice/sources/register"
)

// typeNames are the words for types in a points list, with an example length.
var typeNames = func() []string {
	names := register.TypeNames()
	for i := range names {
		names[i] = strings.Replace(names[i], "(N)", "(14)", 1)
	}
	return names
}()

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
	t, bytes, err := register.ParseType(word)
	if err == nil {
		return t, bytes, nil
	}
	e := &configs.ValueError{Code: CodeType, Message: "unknown type " + quote(word), Fix: configs.DidYouMean(word, typeNames)}
	other, known := otherTypeWords[strings.ToLower(word)]
	switch {
	case strings.HasPrefix(word, "string("):
		e.Message = "the length in " + quote(word) + " must be 1 to " + strconv.Itoa(register.MaxStringBytes) + " bytes"
		e.Fix = "write string(14) for 14 letters in 7 registers"
	case strings.EqualFold(word, "string"):
		e.Fix = "write the length in bytes too: string(14)"
	case known:
		e.Fix = "write " + other
	}
	return 0, 0, e
}

// isType reports whether a word is a type.
func isType(word string) bool {
	_, _, err := register.ParseType(word)
	return err == nil
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
	if order, err := register.ParseOrder(word); err == nil {
		return order, nil
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
