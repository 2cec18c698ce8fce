// Package topics knows topic names, topic filters and who subscribed to what
// [MQTT-4.7]. Names and filters go in; matches come out. It never reads a
// packet, never delivers a message and never holds one.
package topics

import (
	"strings"
	"unicode/utf8"
)

// Subscription is one topic filter and its options [MQTT-3.8.3].
type Subscription struct {
	Filter            string // as asked for, with $share/group/ before it
	QoS               byte   // 0, 1 or 2: the most that is delivered
	NoLocal           bool   // not the subscriber's own messages
	RetainAsPublished bool   // the retain flag of a live message is passed on
	RetainHandling    byte   // 0 send retained messages, 1 only if new, 2 never
	ID                uint32 // subscription identifier, 1 to 268,435,455; 0 none
}

// Matches reports whether the topic filter covers the topic name, level by
// level [MQTT-4.7.1]. Wildcards at the first level do not cover topics that
// begin with $ [MQTT-4.7.2-1]. Both must be well-formed, the filter without
// $share. It allocates nothing.
func Matches(filter, topic string) bool { return Overlaps(filter, topic) }

// Overlaps reports whether there is a topic name that both filters cover. A
// topic name is a filter that covers itself only, so Overlaps(filter, topic)
// is the match of a topic.
func Overlaps(a, b string) bool {
	if wildFirst(a) && Dollar(b) || wildFirst(b) && Dollar(a) {
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

// MatchesAny reports whether one of the filters overlaps filter.
func MatchesAny(filters []string, filter string) bool {
	for _, f := range filters {
		if Overlaps(f, filter) {
			return true
		}
	}
	return false
}

// wildFirst reports whether the first level of a filter is a wildcard.
func wildFirst(filter string) bool {
	return filter != "" && (filter[0] == '+' || filter[0] == '#')
}

// Dollar reports whether topic belongs to the server: $SYS and its kind.
func Dollar(topic string) bool { return topic != "" && topic[0] == '$' }

// Unshared takes "$share/group/filter" apart: the filter itself and the group,
// which is empty for a filter that is not shared. ok is false if the group or
// the filter is missing or the group has a wildcard [MQTT-4.8.2-1]
// [MQTT-4.8.2-2].
func Unshared(filter string) (inner, group string, ok bool) {
	prefix, rest, found := strings.Cut(filter, "/")
	if prefix != "$share" {
		return filter, "", true
	}
	group, inner, more := strings.Cut(rest, "/")
	ok = found && more && group != "" && inner != "" && !strings.ContainsAny(group, "+#")
	return inner, group, ok
}

// FilterValid reports whether filter, shared or not, is well-formed: UTF-8
// without NUL, not empty, a wildcard alone in its level, # at the end only
// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2]. How long it is
// is not its matter.
func FilterValid(filter string) bool {
	inner, _, ok := Unshared(filter)
	if !ok || inner == "" || !text(filter) {
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

// NameValid reports whether topic is a topic name: UTF-8 without NUL, not
// empty, no wildcard [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-3.3.2-2].
func NameValid(topic string) bool {
	return topic != "" && !strings.ContainsAny(topic, "+#") && text(topic)
}

func text(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}
