package publish

import (
	"strings"

	"sluice/mapping"
)

// Passes says whether the filter lets the point through. Results are kept
// per point by the session, as points are few and records are many.
func (f *Filter) Passes(p *mapping.Point) bool {
	name := p.Device + "/" + p.Name
	return (len(f.Include) == 0 || anyGlob(f.Include, name)) && !anyGlob(f.Exclude, name)
}

func anyGlob(globs []string, name string) bool {
	for _, g := range globs {
		if !strings.Contains(g, "/") {
			g += "/*" // a device: all its points
		}
		if glob(g, name) {
			return true
		}
	}
	return false
}

// glob matches name against a pattern in which * stands for any characters,
// none and slashes included, and ? for one.
func glob(pattern, name string) bool {
	star, mark := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0: // let the last * take one character more
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
