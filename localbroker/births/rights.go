package births

import "strings"

// ReadAs returns the filter whose read rights decide over a filter or topic
// below $sparkplug: reading a copy needs the right to read the original.
// "$sparkplug/#" asks for spBv1.0/#. ok is false for everything else, and for
// filters that cover no copy.
func ReadAs(filter string) (original string, ok bool) {
	rest, found := strings.CutPrefix(filter, "$sparkplug/")
	if !found {
		return "", false
	}
	if rest == "#" {
		return namespace + "#", true
	}
	level, rest, _ := strings.Cut(rest, "/")
	if level != "certificates" && level != "+" {
		return "", false
	}
	if rest == "#" {
		return namespace + "#", true
	}
	level, rest, more := strings.Cut(rest, "/")
	if !more || level+"/" != namespace && level != "+" {
		return "", false
	}
	return namespace + rest, true
}
