package command

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
)

var routePoints = []*mapping.Point{
	{Site: "s", Device: "plc", Name: "setpoint", UnitID: 7},
	{Site: "s", Device: "plc", Name: "alarms/high", UnitID: 7},
	{Site: "s", Device: "fan", Name: "setpoint", UnitID: 8},
}

// newRoutes makes the routes of templates; from tells the topics of values.
func newRoutes(t *testing.T, set, result string, change func(*RoutesOptions)) *Routes {
	t.Helper()
	o := RoutesOptions{Points: routePoints, Gateway: "gw", Timed: true, Templates: func(*mapping.Point) (string, string) { return set, result }}
	if change != nil {
		change(&o)
	}
	r, err := NewRoutes(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func whole(o *RoutesOptions) { o.Whole = true }

// TestRoutes: from a message to its point and to the topic of the answer.
func TestRoutes(t *testing.T) {
	const point, command = "{site}/{device}/{point}", `{"id":"1","value":2}`
	named := newRoutes(t, point+"/set", point+"/result", nil)
	own := newRoutes(t, "cmd/{gateway}/meter-{unit_id}/{point}", "ack/{gateway}/{device}", nil)
	device := newRoutes(t, "{site}/{device}/set", "{site}/{device}/result", whole)
	site := newRoutes(t, "{site}/set", "{site}/result", whole)
	apart := newRoutes(t, "{site}/set", "{site}/result/{device}", whole)
	cloud := newRoutes(t, "c2d/{gateway}", "d2c/{gateway}", func(o *RoutesOptions) { o.Whole, o.Rest = true, true })
	for name, c := range map[string]struct {
		r                             *Routes
		topic, payload                string
		device, point, answer, wrongs string
	}{
		"topic":                {named, "s/plc/setpoint/set", command, "plc", "setpoint", "s/plc/setpoint/result", ""},
		"slash in the name":    {named, "s/plc/alarms/high/set", command, "plc", "alarms/high", "s/plc/alarms/high/result", ""},
		"topic counts":         {named, "s/fan/setpoint/set", `{"id":"1","value":2,"device":"plc","point":"x"}`, "fan", "setpoint", "s/fan/setpoint/result", ""},
		"no such point":        {named, "s/plc/nothing/set", command, "", "s/plc/nothing/set", "s/plc/nothing/result", ""},
		"broken":               {named, "s/plc/setpoint/set", "12.5", "plc", "setpoint", "s/plc/setpoint/result", "not JSON"},
		"within a level":       {own, "cmd/gw/meter-8/setpoint", command, "fan", "setpoint", "ack/gw/fan", ""},
		"device":               {device, "s/plc/set", `{"id":"1","value":2,"point":"alarms/high"}`, "plc", "alarms/high", "s/plc/result", ""},
		"device without point": {device, "s/plc/set", command, "", "", "s/plc/result", `"point"`},
		"point elsewhere":      {device, "s/fan/set", `{"id":"1","value":2,"point":"alarms/high"}`, "", "alarms/high", "s/fan/result", ""},
		"other device":         {device, "s/fan/set", `{"id":"1","value":2,"device":"plc","point":"setpoint"}`, "", "plc/setpoint", "s/fan/result", ""},
		"device and point":     {site, "s/set", `{"id":"1","value":2,"device":"fan","point":"setpoint"}`, "fan", "setpoint", "s/result", ""},
		"one has it":           {site, "s/set", `{"id":"1","value":2,"point":"alarms/high"}`, "plc", "alarms/high", "s/result", ""},
		"two have it":          {site, "s/set", `{"id":"1","value":2,"point":"setpoint"}`, "", "setpoint", "s/result", `"device"`},
		"nobody to tell":       {apart, "s/set", command, "", "", "", `"point"`},
		"somebody to tell":     {apart, "s/set", `{"id":"1","value":2,"device":"fan","point":"setpoint"}`, "fan", "setpoint", "s/result/fan", ""},
		"more levels":          {cloud, "c2d/gw/a=b&c/d", `{"id":"1","value":2,"device":"fan","point":"setpoint"}`, "fan", "setpoint", "d2c/gw", ""},
	} {
		t.Run(name, func(t *testing.T) {
			q, answer, ok := c.r.Read(c.topic, []byte(c.payload), false)
			if !ok || q.Device != c.device || q.Point != c.point || answer != c.answer || !strings.Contains(q.Wrong, c.wrongs) || (c.wrongs == "") != (q.Wrong == "") || !q.Timed {
				t.Errorf("%+v, answer on %q", q, answer)
			}
		})
	}
	for topic, r := range map[string]*Routes{"s/plc/setpoint": named, "s/plc/setpoint/set/x": named, "s/other/setpoint/set": named, "set": named,
		"cmd/gw/meter-9/setpoint": own, "cmd/gw/meter-8/nothing": own, "s/other/set": device, "c2d/other": cloud} {
		if q, _, ok := r.Read(topic, []byte(command), false); ok {
			t.Errorf("%s is taken for a command: %+v", topic, q)
		}
	}
	if _, _, ok := named.Read("s/plc/setpoint/set", nil, false); ok {
		t.Error("taking back a retained message is a command")
	}
	for want, r := range map[string]*Routes{"[s/+/+/+/set s/+/+/set]": named, "[cmd/gw/+/+ cmd/gw/+/+/+]": own, "[s/+/set]": device, "[c2d/gw/#]": cloud} {
		if got := fmt.Sprint(r.Filters()); got != want {
			t.Errorf("filters %s, want %s", got, want)
		}
	}
}

// TestRoutesThatAreRefused: no topic leads to two points.
func TestRoutesThatAreRefused(t *testing.T) {
	nested := []*mapping.Point{{Site: "s", Device: "plc", Name: "a/b"}, {Site: "s", Device: "plc", Name: "a"}}
	_, err := NewRoutes(RoutesOptions{Points: nested, Rest: true, Templates: func(*mapping.Point) (string, string) { return "{device}/{point}", "x" }})
	if err == nil || !strings.Contains(err.Error(), `"plc/a/b" is below that of another`) {
		t.Error(err)
	}
	for set, want := range map[string]string{"{site}/{point}": "plc/setpoint and fan/setpoint have the command topic", "{tag.x}/{device}/{point}": "has no tag",
		"{device}/{pint}": "unknown token", "{site}/#": "wildcard"} {
		_, err := NewRoutes(RoutesOptions{Points: routePoints, Templates: func(*mapping.Point) (string, string) { return set, "x" }})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", set, err, want)
		}
	}
}

// TestAnswersNameThePoint where its topic does not.
func TestAnswersNameThePoint(t *testing.T) {
	r := newRoutes(t, "{site}/set", "{site}/result", whole)
	q, _, _ := r.Read("s/set", []byte(`{"id":"1","value":2,"device":"fan","point":"setpoint"}`), false)
	if got := string((&Result{Request: &q, Code: OK, At: time.UnixMilli(0)}).AppendJSON(nil)); !strings.HasPrefix(got, `{"id":"1","device":"fan","point":"setpoint","ok":true,`) {
		t.Error(got)
	}
}

// TestUntimedAndFloods: what holds for commands that come over an upstream.
func TestUntimedAndFloods(t *testing.T) {
	r := newRig(t, t.TempDir(), &fakeWriter{})
	q := Request{Origin: Origin{Kind: Upstream, Name: "cloud"}, Device: "d", Point: "free", Value: sources.Int64(1), Timed: true, TTL: time.Second}
	for i, c := range []struct {
		change func(*Request)
		want   Code
	}{
		{func(*Request) {}, Untimed},
		{func(q *Request) { q.Timed = false }, OK},
		{func(q *Request) { q.Sent = r.clock.Now().Time() }, OK},
		{func(q *Request) { q.Expires = r.clock.Now().Time().Add(time.Second) }, OK},
		{func(q *Request) { q.Sent = r.clock.Now().Time().Add(-2 * time.Second) }, Expired},
	} {
		q := q
		q.ID = fmt.Sprint(i)
		if c.change(&q); r.do(q).Code != c.want {
			t.Errorf("case %d: want %s", i, c.want)
		}
	}
	r.clock.mu.Lock()
	r.clock.stamp.Trusted = false
	r.clock.mu.Unlock()
	q.Sent, q.ID = r.clock.Now().Time(), "clock"
	if a := r.do(q); a.Code != NoClock || strings.Contains(a.Message, "leave out") {
		t.Errorf("without a clock: %s %s", a.Code, a.Message)
	}
	q.Timed, q.Sent = false, time.Time{}
	codes := map[Code]int{}
	for i := range 2 * upstreamAtOnce {
		q.ID = fmt.Sprint("flood", i)
		codes[r.do(q).Code]++
	}
	other := q
	if other.Origin.Name, other.ID = "other", "x"; r.do(other).Code != OK {
		t.Error("another upstream has to suffer")
	}
	if codes[OK] != upstreamAtOnce-6 || codes[TooFast] != upstreamAtOnce+6 {
		t.Errorf("a flood: %v", codes)
	}
	r.clock.pass(time.Second)
	if q.ID = "later"; r.do(q).Code != OK {
		t.Error("after the flood")
	}
}

// covers reports whether a filter covers a topic.
func covers(filter, topic string) bool {
	f, l := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i >= len(l) || level != "+" && level != l[i] {
			return false
		}
	}
	return len(f) == len(l)
}

// FuzzRoutes: whatever the templates and names, a command topic leads to the point
// it was made for and to no other, and is covered by a filter.
func FuzzRoutes(f *testing.F) {
	f.Add("{site}/{device}/{point}/set", "{site}/{device}/{point}/result", "plc", "a/b", "c", false, false)
	f.Add("c2d/{gateway}", "d2c/{device}", "plc", "a", "b", true, true)
	f.Add("x{unit_id}/{point}-{device}", "x{point}", "p-q", "r", "r-p", false, false)
	f.Fuzz(func(t *testing.T, set, result, device, one, two string, whole, rest bool) {
		points := []*mapping.Point{{Site: "s", Device: device, Name: one, UnitID: 1}, {Site: "s", Device: device, Name: two, UnitID: 1},
			{Site: "s", Device: "other", Name: one, UnitID: 2}}
		r, err := NewRoutes(RoutesOptions{Points: points, Gateway: "gw", Whole: whole, Rest: rest,
			Templates: func(*mapping.Point) (string, string) { return set, result }})
		if err != nil || one == two || device == "other" || strings.Trim(device+one+two, "abcdefghijklmnopqrstuvwxyz0123456789_-/") != "" {
			return
		}
		template, err := mapping.ParseTopic(set)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range points {
			topic := string(template.WithGateway("gw").Append(nil, p))
			if rest {
				topic += "/more"
			}
			q, _, _ := r.Read(topic, fmt.Appendf(nil, `{"id":"1","value":1,"device":%q,"point":%q}`, p.Device, p.Name), false)
			if q.Wrong != "" || q.Device != p.Device || q.Point != p.Name {
				t.Errorf("%q: %+v, want %s/%s", topic, q, p.Device, p.Name)
			}
			if !slices.ContainsFunc(r.Filters(), func(filter string) bool { return covers(filter, topic) }) {
				t.Errorf("no filter of %q covers %q", r.Filters(), topic)
			}
		}
	})
}
