package births

import "strings"

// ReadAs returns the filter whose read rights decide over a filter or topic
// below $sparkplug: reading a copy needs the right to read the original.
// ok is false for everything else. "$sparkplug/#" asks for spBv1.0/#.
func ReadAs(filter string) (original string, ok bool) {
	rest, found := strings.CutPrefix(filter, "$sparkplug/")
	if !found {
		return "", false
	}
	level, rest, more := strings.Cut(rest, "/")
	switch {
	case level == "#":
		return namespace + "#", true
	case level != "certificates" && level != "+":
		return "", false
	case !more, rest == "#":
		return namespace + "#", true
	}
	if rest, wild := strings.CutPrefix(rest, "+/"); wild {
		return namespace + rest, true
	}
	if rest == "+" {
		return namespace + "#", true
	}
	return rest, strings.HasPrefix(rest, namespace)
}
