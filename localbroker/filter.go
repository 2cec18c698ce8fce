package localbroker

import "strings"

// matches reports whether the topic filter covers the topic name, level by
// level [MQTT-4.7.1]. Wildcards at the first level do not cover topics that
// begin with $ [MQTT-4.7.2-1]. Both must be well-formed. It allocates nothing.
func matches(filter, topic string) bool { return overlaps(filter, topic) }

// overlaps reports whether there is a topic name that both filters cover. A
// topic name is a filter that covers itself only, so overlaps(filter, topic)
// is the match of a topic.
func overlaps(a, b string) bool {
	if wildFirst(a) && dollar(b) || wildFirst(b) && dollar(a) {
		return false
	}
	for {
		la, restA, moreA := strings.Cut(a, "/")
		lb, restB, moreB := strings.Cut(b, "/")
		if la == "#" || lb == "#" {
			return true
		}
		if la != lb && la != "+" && lb != "+" {
			return false
		}
		if !moreA || !moreB {
			// "sport/#" covers "sport" too [MQTT-4.7.1-2].
			return moreA == moreB || moreA && restA == "#" || moreB && restB == "#"
		}
		a, b = restA, restB
	}
}

// wildFirst reports whether the first level of a filter is a wildcard.
func wildFirst(filter string) bool {
	return filter != "" && (filter[0] == '+' || filter[0] == '#')
}

// dollar reports whether topic belongs to the server: $SYS and its kind.
func dollar(topic string) bool { return topic != "" && topic[0] == '$' }

// matchesAny reports whether one of the filters overlaps filter.
func matchesAny(filters []string, filter string) bool {
	for _, f := range filters {
		if overlaps(f, filter) {
			return true
		}
	}
	return false
}

// unshared takes "$share/group/filter" apart: the filter itself, and whether
// it was shared. mochi takes the prefix in any case of letters, so do we.
// ok is false if the group or the filter is missing or the group has a
// wildcard [MQTT-4.8.2-1] [MQTT-4.8.2-2].
func unshared(filter string) (inner string, shared, ok bool) {
	prefix, rest, found := strings.Cut(filter, "/")
	if !strings.EqualFold(prefix, "$share") {
		return filter, false, true
	}
	group, inner, more := strings.Cut(rest, "/")
	ok = found && more && group != "" && inner != "" && !strings.ContainsAny(group, "+#")
	return inner, true, ok
}

// filterValid reports whether filter is well-formed: not empty, a wildcard
// alone in its level, # at the end only [MQTT-4.7.1-1] [MQTT-4.7.1-2].
func filterValid(filter string) bool {
	inner, _, ok := unshared(filter)
	if !ok || inner == "" {
		return false
	}
	for {
		level, rest, more := strings.Cut(inner, "/")
		if len(level) > 1 && strings.ContainsAny(level, "+#") || level == "#" && more {
			return false
		}
		if !more {
			return true
		}
		inner = rest
	}
}

// nameValid reports whether topic is a topic name: not empty, no wildcard, no
// NUL [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-3.3.2-2].
func nameValid(topic string) bool {
	return topic != "" && !strings.ContainsAny(topic, "+#\x00")
}
