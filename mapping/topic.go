package mapping

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The topics that hold where nobody says otherwise.
const (
	// DefaultTopic is that of a point.
	DefaultTopic = "{site}/{device}/{point}"
	// DefaultDeviceTopic is that of a message for a whole device.
	DefaultDeviceTopic = "{site}/{device}"
	// DefaultDroppedTopic is where drops are told.
	DefaultDroppedTopic = "{site}/dropped"
)

// maxTopic is the longest topic in bytes [MQTT-4.7.3-3].
const maxTopic = 65535

// Topic is a topic template ready for use: text with {site}, {gateway},
// {device}, {point}, {unit_id}, {group} and {tag.x} in it. The zero Topic
// appends nothing. A Topic does not change and may be shared.
type Topic struct {
	template string
	parts    []topicPart
	gateway  string
}

// topicPart is a piece of text, or a token.
type topicPart struct {
	token topicToken
	text  string // the text, or the key of a tag
}

type topicToken uint8

const (
	tokenText topicToken = iota
	tokenSite
	tokenGateway
	tokenDevice
	tokenPoint
	tokenUnitID
	tokenGroup
	tokenTag
)

var topicTokens = map[string]topicToken{"site": tokenSite, "gateway": tokenGateway, "device": tokenDevice,
	"point": tokenPoint, "unit_id": tokenUnitID, "group": tokenGroup}

// TopicError says what is wrong in a template, and where.
type TopicError struct {
	Offset  int // bytes into the template
	Message string
	Fix     string
}

// Error returns the message.
func (e *TopicError) Error() string { return e.Message }

// ParseTopic parses a template. The error is a *TopicError.
func ParseTopic(template string) (Topic, error) {
	t := Topic{template: template}
	if err := checkTopicText(template); err != nil {
		return Topic{}, err
	}
	for i := 0; i < len(template); {
		open := strings.IndexByte(template[i:], '{')
		if open < 0 {
			open = len(template) - i
		}
		if stray := strings.IndexByte(template[i:i+open], '}'); stray >= 0 {
			return Topic{}, &TopicError{i + stray, "a } without a { before it", "remove it"}
		}
		if open > 0 {
			t.parts = append(t.parts, topicPart{text: template[i : i+open]})
			i += open
			continue
		}
		end := strings.IndexByte(template[i:], '}')
		if end < 0 {
			return Topic{}, &TopicError{i, "the { is not closed", "add a }"}
		}
		part, err := parseToken(template[i+1:i+end], i)
		if err != nil {
			return Topic{}, err
		}
		t.parts = append(t.parts, part)
		i += end + 1
	}
	return t, nil
}

// checkTopicText checks what no token can mend.
func checkTopicText(s string) error {
	switch {
	case s == "":
		return &TopicError{0, "the topic is empty", "for example " + DefaultTopic}
	case s[0] == '$':
		return &TopicError{0, "topics that begin with $ belong to the broker", "begin with a letter"}
	case len(s) > maxTopic:
		return &TopicError{0, "the topic is longer than 65535 bytes", ""}
	case !utf8.ValidString(s):
		return &TopicError{0, "the topic is not UTF-8", ""}
	}
	for i, r := range s {
		switch {
		case r == '+' || r == '#':
			return &TopicError{i, string(r) + " is a wildcard and cannot be in a topic", "remove it"}
		case r < 0x20 || r >= 0x7f && r < 0xa0 || isNonCharacter(r):
			return &TopicError{i, "a control character cannot be in a topic", "remove it"}
		}
	}
	if i := strings.Index("/"+s+"/", "//"); i >= 0 {
		return &TopicError{min(i, len(s)-1), "a level of the topic is empty", "remove the extra /"}
	}
	return nil
}

// isNonCharacter reports the code points that [MQTT-1.5.4] lets a receiver
// close the connection for.
func isNonCharacter(r rune) bool {
	return r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef
}

func parseToken(name string, offset int) (topicPart, error) {
	if token, ok := topicTokens[name]; ok {
		return topicPart{token: token}, nil
	}
	if key, ok := strings.CutPrefix(name, "tag."); ok && key != "" {
		return topicPart{token: tokenTag, text: key}, nil
	}
	fix := "known: {site} {gateway} {device} {point} {unit_id} {group} {tag.x}"
	return topicPart{}, &TopicError{offset, "unknown token {" + name + "}", fix}
}

// WithGateway returns the topic with {gateway} filled in.
func (t Topic) WithGateway(name string) Topic {
	t.gateway = name
	return t
}

// String returns the template.
func (t Topic) String() string { return t.template }

// IsZero reports whether there is no template.
func (t Topic) IsZero() bool { return len(t.parts) == 0 }

// Uses reports whether the template contains the token, such as "point".
func (t Topic) Uses(token string) bool {
	return slices.ContainsFunc(t.parts, func(p topicPart) bool { return p.token != tokenText && p.token == topicTokens[token] })
}

// Append appends the topic of p to dst. A tag that p does not have appends
// nothing; Check finds that beforehand.
func (t Topic) Append(dst []byte, p *Point) []byte {
	for i := range t.parts {
		dst = t.appendPart(dst, i, p)
	}
	return dst
}

func (t Topic) appendPart(dst []byte, i int, p *Point) []byte {
	switch part := &t.parts[i]; part.token {
	case tokenText:
		return append(dst, part.text...)
	case tokenSite:
		return append(dst, p.Site...)
	case tokenGateway:
		return append(dst, t.gateway...)
	case tokenDevice:
		return append(dst, p.Device...)
	case tokenPoint:
		return append(dst, p.Name...)
	case tokenUnitID:
		return strconv.AppendUint(dst, uint64(p.UnitID), 10)
	case tokenGroup:
		return append(dst, p.Group...)
	case tokenTag:
		return append(dst, p.tag(part.text)...)
	}
	return dst
}

// Filter returns the topic filter that covers the topic of p and those of all
// points of the site whose names have as many levels: what differs between
// points is a +.
func (t Topic) Filter(p *Point) string {
	var filter []byte
	for i := range t.parts {
		start := len(filter)
		filter = t.appendPart(filter, i, p)
		if k := t.parts[i].token; k != tokenText && k != tokenSite && k != tokenGateway {
			slashes := strings.Count(string(filter[start:]), "/")
			filter = append(append(filter[:start], '+'), strings.Repeat("/+", slashes)...)
		}
	}
	levels := strings.Split(string(filter), "/")
	for i := range levels {
		if strings.Contains(levels[i], "+") { // a + stands alone [MQTT-4.7.1-3]
			levels[i] = "+"
		}
	}
	return strings.Join(levels, "/")
}

// Check returns why the topic cannot be used for p: a tag or group that p does
// not have, or values that make an empty level or a wildcard. The error is a
// *TopicError.
func (t Topic) Check(p *Point) error {
	for i := range t.parts {
		switch part := &t.parts[i]; {
		case part.token == tokenTag && p.tag(part.text) == "":
			return &TopicError{0, fmt.Sprintf("%s has no tag %q for {tag.%s}", p.path(), part.text, part.text), "add it under tags"}
		case part.token == tokenGroup && p.Group == "":
			return &TopicError{0, p.path() + " is in no group for {group}", "add group to the point or its device"}
		case part.token == tokenGateway && t.gateway == "":
			return &TopicError{0, "the gateway has no name for {gateway}", "add gateway to the site file"}
		}
	}
	topic := string(t.Append(nil, p))
	if err := checkTopicText(topic); err != nil {
		return &TopicError{0, fmt.Sprintf("topic %q of %s: %s", topic, p.path(), err.Error()), ""}
	}
	return nil
}

func (p *Point) tag(key string) string {
	for i := range p.Tags {
		if p.Tags[i].Key == key {
			return p.Tags[i].Value
		}
	}
	return ""
}

// path names the point for messages.
func (p *Point) path() string { return p.Device + "/" + p.Name }
