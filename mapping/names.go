package mapping

import (
	"strings"
)

// isNameSign tells the signs of names: what is safe in a topic, a file name and a
// metric on every platform.
func isNameSign(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

const maxName = 128

// nameProblem returns what is wrong with a name; slashes are allowed in points.
func nameProblem(name string, slash bool) (message, fix string) {
	switch {
	case name == "":
		return "the name is empty", ""
	case len(name) > maxName:
		return "the name is longer than 128 letters", ""
	}
	for i := range len(name) {
		if isNameSign(name[i]) || slash && name[i] == '/' {
			continue
		}
		if better := cleanName(name, slash); better != "" {
			fix = "for example " + better
		}
		return "name " + quote(name) + " may hold a-z, 0-9, _ and - only", fix
	}
	if slash && strings.Contains("/"+name+"/", "//") {
		return "name " + quote(name) + " has an empty level", "remove the extra /"
	}
	return "", ""
}

// cleanName makes a name that is allowed from one that is not.
func cleanName(name string, slash bool) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case r < 0x80 && isNameSign(byte(r)) || slash && r == '/':
			b.WriteRune(r)
		case r == ' ' || r == '.' || r == '/':
			b.WriteByte('_')
		}
	}
	return strings.Trim(b.String(), "_/")
}

func checkName(r *reporter, at place, what, name string) bool {
	message, fix := nameProblem(name, false)
	if name == "" {
		message, fix = what+" has no name", "add "+nameKey(what)+": my-name"
	}
	if message == "" {
		return true
	}
	r.fail(at, CodeName, message, fix)
	return false
}

func checkPointName(r *reporter, at place, name string) {
	if message, fix := nameProblem(name, true); message != "" {
		r.failKey(at, CodeName, message, fix)
	}
}

// matches reports whether a point's name fits a pattern with * for any letters,
// those of a slash included.
func matches(pattern, name string) bool {
	if !strings.Contains(pattern, "*") {
		return pattern == name
	}
	pieces := strings.Split(pattern, "*")
	if !strings.HasPrefix(name, pieces[0]) {
		return false
	}
	name = name[len(pieces[0]):]
	for _, piece := range pieces[1 : len(pieces)-1] {
		i := strings.Index(name, piece)
		if i < 0 {
			return false
		}
		name = name[i+len(piece):]
	}
	return strings.HasSuffix(name, pieces[len(pieces)-1])
}

// nameKey returns the key that names a thing.
func nameKey(what string) string {
	if what == "device" {
		return "name"
	}
	return what
}
