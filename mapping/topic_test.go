package mapping

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTopics(t *testing.T) {
	p := &Point{Site: "s", Device: "d", Name: "a/b", UnitID: 7, Group: "g", Tags: []Tag{{"area", "hall-2"}, {"odd", "x#"}}}
	topic, err := ParseTopic("v1/{site}/{gateway}/{device}/{unit_id}/{group}/{tag.area}/{point}/end")
	if err != nil {
		t.Fatal(err)
	}
	topic = topic.WithGateway("gw")
	if got := string(topic.Append(nil, p)); got != "v1/s/gw/d/7/g/hall-2/a/b/end" {
		t.Errorf("got %q", got)
	}
	if err := topic.Check(p); err != nil {
		t.Error(err)
	}
	if !topic.Uses("point") || topic.Uses("nothing") {
		t.Error("Uses is wrong")
	}
	for template, want := range map[string]string{
		"{tag.nothing}/x": "no tag", "x/{tag.odd}": "wildcard", "{gateway}/x": "no name",
	} {
		topic, err := ParseTopic(template)
		if err != nil {
			t.Fatal(err)
		}
		if err := topic.Check(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", template, err, want)
		}
	}
}

func TestTopicsThatAreRefused(t *testing.T) {
	for template, offset := range map[string]int{
		"": 0, "$SYS/x": 0, "a/+/b": 2, "a/#": 2, "a//b": 2, "/a": 0, "a/": 1, "a\x00b": 1, "a\u0085": 1, "a\ufffe": 1, "a\xff": 0,
		"{pont}/x": 0, "a/{point": 2, "a}/b": 1, "{tag.}": 0, strings.Repeat("a", 65536): 0,
	} {
		_, err := ParseTopic(template)
		var topicErr *TopicError
		if !errors.As(err, &topicErr) || topicErr.Offset != offset {
			t.Errorf("%.20q: %v, want offset %d", template, err, offset)
		}
	}
}

func FuzzTopic(f *testing.F) {
	for _, seed := range []string{DefaultTopic, "{tag.x}/{unit_id}", "a/{", "}", "$a", "{site}{point}", "a/+"} {
		f.Add(seed)
	}
	p := &Point{Site: "s", Device: "d", Name: "p", Group: "g", Tags: []Tag{{"x", "y"}}}
	f.Fuzz(func(t *testing.T, template string) {
		topic, err := ParseTopic(template)
		if err != nil {
			return
		}
		topic = topic.WithGateway("gw")
		if topic.Check(p) != nil {
			return
		}
		got := string(topic.Append(nil, p))
		if got == "" || strings.ContainsAny(got, "+#\x00") || got[0] == '$' || len(got) > maxTopic || !utf8.ValidString(got) ||
			strings.Contains("/"+got+"/", "//") {
			t.Errorf("%q gives %q", template, got)
		}
	})
}
