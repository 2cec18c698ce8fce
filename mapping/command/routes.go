package command

import (
	"fmt"
	"slices"
	"strings"

	"sluice/mapping"
)

// Routes leads messages on the command topics of an upstream to points, and
// their answers back. It does not change and may be shared.
type Routes struct {
	whole   bool
	rest    bool
	timed   bool
	topics  map[string][]place
	filters []string
	answers []string // filters of the topics of answers
	// set and result are the ends of a command topic and of the one of its
	// answer, if that is all they differ in; "" if not.
	set, result string
	// above are the topics one level above those of points, set taken off.
	above map[string]bool
}

// place is a point that a command topic leads to.
type place struct{ device, point, result string }

// RoutesOptions say which topics are whose.
type RoutesOptions struct {
	Points  []*mapping.Point // those that may be spoken of
	Gateway string           // for {gateway}
	// Templates returns those of the topics on which commands for p come and are
	// answered.
	Templates func(p *mapping.Point) (set, result string)
	// Whole says that a command topic is for several points: the command names
	// the point, and the device if the topic does not tell it.
	Whole bool
	// Rest lets further levels follow a command topic.
	Rest bool
	// Timed has each command say sent or expires.
	Timed bool
}

// NewRoutes returns the routes. The error, a *mapping.TopicError, is about the
// first topic that cannot be used or would lead to two points.
func NewRoutes(o RoutesOptions) (*Routes, error) {
	r := &Routes{whole: o.Whole, rest: o.Rest, timed: o.Timed, topics: make(map[string][]place), above: make(map[string]bool)}
	parsed := templates{gateway: o.Gateway, known: make(map[string]mapping.Topic)}
	for i, p := range o.Points {
		set, result := o.Templates(p)
		to, filter, err := parsed.fill(set, p)
		if err != nil {
			return nil, err
		}
		back, answers, err := parsed.fill(result, p)
		if err != nil {
			return nil, err
		}
		if there := r.topics[to]; len(there) > 0 && !o.Whole {
			return nil, &mapping.TopicError{Message: fmt.Sprintf("%s/%s and %s/%s have the command topic %q",
				there[0].device, there[0].point, p.Device, p.Name, to), Fix: "put {device} and {point} into the template"}
		}
		r.topics[to] = append(r.topics[to], place{p.Device, p.Name, back})
		if o.Rest {
			filter += "/#"
		}
		if !slices.Contains(r.filters, filter) {
			r.filters = append(r.filters, filter)
		}
		if !slices.Contains(r.answers, answers) {
			r.answers = append(r.answers, answers)
		}
		if from, to := ends(set, result); i == 0 {
			r.set, r.result = from, to
		} else if from != r.set || to != r.result {
			r.set, r.result = "", ""
		}
	}
	for topic := range r.topics {
		r.above[parent(strings.TrimSuffix(topic, r.set))] = !o.Whole
	}
	slices.Sort(r.filters)
	slices.Sort(r.answers)
	if err := r.nested(); err != nil {
		return nil, err
	}
	return r, nil
}

// nested returns an error if, with further levels behind it, a command topic
// could be that of another point.
func (r *Routes) nested() error {
	for topic := range r.topics {
		if above := parent(topic); r.rest && len(r.find(above)) > 0 {
			return &mapping.TopicError{Message: fmt.Sprintf("the command topic %q is below that of another point, behind which anything may follow", topic),
				Fix: "leave out the /#, or {point}"}
		}
	}
	return nil
}

// templates are those that were parsed.
type templates struct {
	gateway string
	known   map[string]mapping.Topic
}

// fill fills in a template for p; filter is what covers the topics that others
// have by it.
func (k *templates) fill(template string, p *mapping.Point) (topic, filter string, err error) {
	t, known := k.known[template]
	if !known {
		if t, err = mapping.ParseTopic(template); err != nil {
			return "", "", err
		}
		t = t.WithGateway(k.gateway)
		k.known[template] = t
	}
	if err := t.Check(p); err != nil {
		return "", "", err
	}
	return string(t.Append(nil, p)), t.Filter(p), nil
}

// ends returns what follows the levels that two templates begin with, unless a
// token is in it.
func ends(set, result string) (from, to string) {
	same := 0
	for same < min(len(set), len(result)) && set[same] == result[same] {
		same++
	}
	same = strings.LastIndexByte(set[:same], '/')
	if same < 0 || strings.ContainsRune(set[same:]+result[same:], '{') {
		return "", ""
	}
	return set[same:], result[same:]
}

// Filters returns the topic filters that cover the command topics: few, and the
// same whatever points there are, but for names with slashes.
func (r *Routes) Filters() []string { return r.filters }

// Answers returns filters that cover the topics on which is answered.
func (r *Routes) Answers() []string { return r.answers }

// Results returns the topics on which is answered.
func (r *Routes) Results() []string {
	var all []string
	for _, places := range r.topics {
		for _, p := range places {
			all = append(all, p.result)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Read makes a Request of a message, without its Origin, and returns the topic
// on which to answer it; "" if there is none. What is wrong with the message
// stands in the Request: it is refused by Service. ok is false for what is no
// command to us: a message without payload, which only takes back a retained one,
// and one on a topic of no point, unless it is beside that of a point: it may be
// for another gateway.
func (r *Routes) Read(topic string, payload []byte, retained bool) (q Request, answer string, ok bool) {
	if len(payload) == 0 {
		return q, "", false
	}
	q = ParseJSON(payload, false)
	q.Retained, q.Timed, q.Named = retained, r.timed, r.whole
	places := r.find(topic)
	if len(places) == 0 {
		base, is := strings.CutSuffix(topic, r.set)
		q.Device, q.Point = "", topic
		return q, base + r.result, is && r.set != "" && r.above[parent(base)]
	}
	answer = places[0].result
	if !r.whole {
		q.Device, q.Point = places[0].device, places[0].point
		return q, answer, true
	}
	for _, p := range places {
		if p.result != answer { // nobody could tell which
			answer = ""
			break
		}
	}
	fit := slices.DeleteFunc(slices.Clone(places), func(p place) bool {
		return p.point != q.Point || q.Device != "" && p.device != q.Device
	})
	switch {
	case len(fit) == 1:
		q.Device, q.Point = fit[0].device, fit[0].point
		return q, fit[0].result, true
	case q.Wrong == "" && q.Point == "":
		q.Wrong = `the command does not say "point", and its topic is for several`
	case q.Wrong == "" && len(fit) > 1:
		q.Wrong = `the command does not say "device", and its topic is for several`
	}
	// A point that is elsewhere is none here.
	q.Device, q.Point = "", strings.TrimPrefix(q.Device+"/"+q.Point, "/")
	return q, answer, true
}

// parent returns a topic without its last level.
func parent(topic string) string { return topic[:max(0, strings.LastIndexByte(topic, '/'))] }

// find returns the points that a topic leads to.
func (r *Routes) find(topic string) []place {
	for {
		if places := r.topics[topic]; len(places) > 0 {
			return places
		}
		if topic = parent(topic); !r.rest || topic == "" {
			return nil
		}
	}
}
