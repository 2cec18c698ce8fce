package topics

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// model is an index that tries every subscription.
type model map[string]map[string]Subscription // by subscriber, then filter

func (m model) match(topic string) (direct map[string]Hit[string], shared map[string][]string) {
	direct, shared = map[string]Hit[string]{}, map[string][]string{}
	for who, subs := range m {
		for filter, sub := range subs {
			inner, group, _ := Unshared(filter)
			switch {
			case !covers(inner, topic):
			case group != "":
				shared[filter] = append(shared[filter], who)
			default:
				h, ok := direct[who]
				h.NoLocal = sub.NoLocal && (h.NoLocal || !ok)
				h.Who, h.QoS, h.RetainAsPublished = who, max(h.QoS, sub.QoS), h.RetainAsPublished || sub.RetainAsPublished
				if sub.ID != 0 {
					h.IDs = append(h.IDs, sub.ID)
					slices.Sort(h.IDs)
				}
				direct[who] = h
			}
		}
	}
	return direct, shared
}

func (m model) count() (n int) {
	for _, subs := range m {
		n += len(subs)
	}
	return n
}

// TestIndexAgainstModel changes an index and a model at random and compares
// what they say.
func TestIndexAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	names := paths([]string{"a", "b", "", "$s"}, 3)
	var filters []string
	for _, f := range paths([]string{"a", "b", "", "$s", "+", "#"}, 3) {
		if FilterValid(f) {
			filters = append(filters, f, "$share/g/"+f, "$share/h/"+f)
		}
	}
	filters = slices.DeleteFunc(filters, func(f string) bool { return !FilterValid(f) })
	var x Index[string]
	m := model{}
	for step := range 6000 {
		who, filter := fmt.Sprint("c", r.IntN(40)), filters[r.IntN(len(filters))]
		generation := x.Generation()
		changed := true
		switch r.IntN(8) {
		default:
			sub := Subscription{Filter: filter, QoS: byte(r.IntN(3)), NoLocal: r.IntN(2) == 0, RetainAsPublished: r.IntN(2) == 0, ID: uint32(r.IntN(4))}
			_, want := m[who][filter]
			if m[who] == nil {
				m[who] = map[string]Subscription{}
			}
			m[who][filter] = sub
			if existed := x.Subscribe(who, sub); existed != want {
				t.Fatalf("Subscribe: existed %v", existed)
			}
		case 0, 1:
			_, changed = m[who][filter]
			delete(m[who], filter)
			if existed := x.Unsubscribe(who, filter); existed != changed {
				t.Fatalf("Unsubscribe: existed %v", existed)
			}
		case 2:
			changed = len(m[who]) > 0
			delete(m, who)
			x.Remove(who)
		}
		if (x.Generation() != generation) != changed {
			t.Fatalf("step %d: generation %d after %d, changed %v", step, x.Generation(), generation, changed)
		}
		compare(t, &x, m, names[r.IntN(len(names))])
	}
	for who := range m {
		if got := x.Of(who); len(got) != len(m[who]) || !slices.IsSortedFunc(got, func(a, b Subscription) int { return strings.Compare(a.Filter, b.Filter) }) {
			t.Errorf("Of(%s): %v", who, got)
		}
		x.Remove(who)
	}
	if len(x.root.children) != 0 || len(x.of) != 0 || x.Count() != 0 {
		t.Errorf("left behind: %v, %v, %d", x.root.children, x.of, x.Count())
	}
}

func compare(t *testing.T, x *Index[string], m model, topic string) {
	t.Helper()
	direct, shared := m.match(topic)
	got := x.Match(topic)
	if len(got.Direct) != len(direct) || len(got.Shared) != len(shared) || x.Count() != m.count() {
		t.Fatalf("%q: %+v, want %v %v", topic, got, direct, shared)
	}
	for _, h := range got.Direct {
		if !reflect.DeepEqual(h, direct[h.Who]) {
			t.Fatalf("%q: %+v, want %+v", topic, h, direct[h.Who])
		}
	}
	groups := map[string]int{}
	for _, members := range got.Shared {
		groups[groupOf(members)]++
	}
	for _, who := range shared {
		slices.Sort(who)
		if key := strings.Join(who, " "); groups[key] == 0 {
			t.Fatalf("%q: no group of %s among %v", topic, key, groups)
		} else {
			groups[key]--
		}
	}
}

func groupOf(members []Hit[string]) string {
	var who []string
	for _, h := range members {
		who = append(who, h.Who)
	}
	slices.Sort(who)
	return strings.Join(who, " ")
}

// TestSharedOrder checks that the members of a group come in the order in
// which they subscribed, and that a list given out stays what it was.
func TestSharedOrder(t *testing.T) {
	var x Index[string]
	for _, who := range []string{"c", "a", "b"} {
		x.Subscribe(who, Subscription{Filter: "$share/g/t", QoS: 1})
	}
	before := x.Match("t").Shared[0]
	x.Subscribe("c", Subscription{Filter: "$share/g/t", QoS: 2, ID: 9})
	x.Unsubscribe("a", "$share/g/t")
	after := x.Match("t").Shared[0]
	if before[0].Who != "c" || before[0].QoS != 1 || before[1].Who != "a" || before[2].Who != "b" {
		t.Errorf("before: %+v", before)
	}
	if len(after) != 2 || after[0].Who != "c" || after[0].QoS != 2 || !slices.Equal(after[0].IDs, []uint32{9}) || after[1].Who != "b" {
		t.Errorf("after: %+v", after)
	}
}

// TestSameIDTwice checks that each subscription brings its identifier
// [MQTT-3.3.4-5].
func TestSameIDTwice(t *testing.T) {
	var x Index[int]
	x.Subscribe(1, Subscription{Filter: "a/+", ID: 7})
	x.Subscribe(1, Subscription{Filter: "a/#", ID: 7})
	x.Subscribe(1, Subscription{Filter: "#", ID: 3})
	if got := x.Match("a/b").Direct[0].IDs; !slices.Equal(got, []uint32{3, 7, 7}) {
		t.Errorf("identifiers %v", got)
	}
}

// TestIndexConcurrently is for the race detector.
func TestIndexConcurrently(t *testing.T) {
	var x Index[int]
	var wg sync.WaitGroup
	for who := range 8 {
		wg.Go(func() {
			for i := range 300 {
				x.Subscribe(who, Subscription{Filter: fmt.Sprintf("a/%d/#", i%10), ID: 1})
				x.Subscribe(who, Subscription{Filter: "$share/g/a/+/b", ID: 1})
				m := x.Match(fmt.Sprintf("a/%d/b", i%10))
				if len(m.Direct) == 0 || len(m.Shared) != 1 {
					t.Errorf("%+v", m)
				}
				x.Of(who)
				x.Unsubscribe(who, fmt.Sprintf("a/%d/#", (i+1)%10))
				_ = x.Generation() + uint64(x.Count())
			}
		})
	}
	wg.Wait()
	for who := range 8 {
		x.Remove(who)
	}
	if x.Count() != 0 {
		t.Errorf("%d left", x.Count())
	}
}

// TestManySubscriptions checks that a match looks at few of 100,000
// subscriptions, also where they all end at one node.
func TestManySubscriptions(t *testing.T) {
	var x Index[int]
	for i := range 100_000 {
		x.Subscribe(i, Subscription{Filter: fmt.Sprintf("plant/%d/device/%d/power", i%100, i)})
	}
	x.Subscribe(-1, Subscription{Filter: "plant/+/device/+/power"})
	if n := testing.AllocsPerRun(100, func() {
		if got := x.Match("plant/7/device/107/power"); len(got.Direct) != 2 {
			t.Fatalf("%+v", got)
		}
	}); n > 8 {
		t.Errorf("%v allocations", n)
	}
	for i := range 100_000 {
		x.Subscribe(i, Subscription{Filter: "all"})
	}
	if got := x.Match("all"); len(got.Direct) != 100_000 {
		t.Errorf("%d", len(got.Direct))
	}
	for i := range 100_000 {
		x.Remove(i)
	}
	if x.Count() != 1 {
		t.Errorf("%d left", x.Count())
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var x Index[int]
			for i := range n {
				x.Subscribe(i, Subscription{Filter: fmt.Sprintf("plant/%d/device/%d/power", i%100, i)})
			}
			x.Subscribe(-1, Subscription{Filter: "plant/#"})
			b.ReportAllocs()
			for b.Loop() {
				x.Match("plant/7/device/7/power")
			}
		})
	}
}

func BenchmarkSubscribe(b *testing.B) {
	var x Index[int]
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Subscribe(i, Subscription{Filter: fmt.Sprintf("plant/%d/device/%d/power", i%100, i)})
	}
}
