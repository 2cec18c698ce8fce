package state

import (
	"io"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/localbroker/spool"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func mustOpen(t testing.TB, dir string, cfg Config) *Store {
	t.Helper()
	s, err := Open(dir, cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustApply(t testing.TB, s *Store, ops ...Op) {
	t.Helper()
	if err := s.Apply(ops...); err != nil {
		t.Fatal(err)
	}
}

// sample is one session with everything, named by name.
func sample(name string) (Saved, []Op) {
	one := Saved{
		Session: Session{ClientID: name, User: "pump", Version: 5, Expiry: NeverExpires, Cursor: "s17"},
		Age:     90 * time.Second,
		Will: &Will{ClientID: name, Topic: "will/" + name, Payload: []byte{0, 1}, Props: []byte{1, 1}, QoS: 1,
			Retain: true, Expiry: 60, Delay: 1<<32 - 1},
		Subscriptions: []Subscription{
			{ClientID: name, Filter: "#", QoS: 2, NoLocal: true, RetainHandling: 2, ID: 268_435_455, Since: 1 << 63},
			{ClientID: name, Filter: "$share/g/a/+", QoS: 1, RetainAsPublished: true},
			{ClientID: name, Filter: "a/" + strings.Repeat("x", 60_000), QoS: 0},
		},
		Received: []uint16{1, 65_535},
		Released: map[uint16]uint64{7: 70_000, 8: 1<<64 - 1},
	}
	ops := []Op{PutSession(one.Session), PutAge(name, one.Age), PutWill(*one.Will)}
	for _, sub := range one.Subscriptions {
		ops = append(ops, PutSubscription(sub))
	}
	for _, id := range one.Received {
		ops = append(ops, PutReceived(name, id))
	}
	for id, seq := range one.Released {
		ops = append(ops, PutReleased(name, id, seq))
	}
	return one, ops
}

func TestSessionsComeBackWhole(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Config{Level: spool.Sync})
	names := []string{"a", "a1", "b", strings.Repeat("long", 5_000)}
	var want []Saved
	for _, name := range names {
		one, ops := sample(name)
		mustApply(t, s, ops...)
		want = append(want, one)
	}
	// b loses everything; a begins anew.
	mustApply(t, s, DeleteSession("b")...)
	mustApply(t, s, append(DeleteSession("a"), PutSession(want[0].Session), PutSubscription(Subscription{ClientID: "a", Filter: "x"}))...)
	want[0] = Saved{Session: want[0].Session, Subscriptions: []Subscription{{ClientID: "a", Filter: "x"}}}
	mustApply(t, s, DeleteWill("a1"), DeleteSubscription("a1", "#"), DeleteReceived("a1", 1), DeleteReleased("a1", 7))
	want[1].Will, want[1].Received, want[1].Released = nil, []uint16{65_535}, map[uint16]uint64{8: 1<<64 - 1}
	want[1].Subscriptions = want[1].Subscriptions[1:]
	want = append(want[:2], want[3])

	got, err := s.LoadSessions()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	mustApply(t, s, PutMark(7))
	mustApply(t, s, PutMark(1<<63))
	if seq, err := s.LoadMark(); seq != 1<<63 || err != nil {
		t.Errorf("mark %d, %v", seq, err)
	}
	if n := s.Stats().Skipped; n != 0 {
		t.Errorf("%d records skipped", n)
	}
}

func TestRetainedComeBackWhole(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Config{Level: spool.Sync})
	want := []Retained{
		{Topic: "a", Payload: []byte("1"), QoS: 1, Origin: "pump", Expiry: 60, Stored: time.Unix(1_790_000_000, 5).UTC(), Trusted: true},
		{Topic: "a/b", Payload: []byte{}, Props: []byte{1, 0}},
		{Topic: "z/" + strings.Repeat("y/", 10_000), Payload: make([]byte, 200_000), QoS: 2, Stored: time.Unix(-5, 0).UTC()},
	}
	want[1].Payload = nil // there is no difference
	for _, r := range want {
		mustApply(t, s, PutRetained(r))
	}
	mustApply(t, s, PutRetained(Retained{Topic: "gone"}), DeleteRetained("gone"))
	var got []Retained
	if err := s.LoadRetained(func(r Retained) error { got = append(got, r); return nil }); err != nil {
		t.Fatal(err)
	}
	// A topic whose key holds a hash is sorted behind those that do not.
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%.300v\nwant\n%.300v", got, want)
	}
}

// FuzzRecords: what is read is written back the same, and nothing panics.
func FuzzRecords(f *testing.F) {
	_, ops := sample("a")
	_, long := sample(strings.Repeat("l", longName+1))
	for _, op := range append(append(ops, long...), PutMark(7),
		PutRetained(Retained{Topic: "t", Payload: []byte("p"), Stored: time.Unix(1, 1)})) {
		f.Add(string(op.Bucket), op.Key, op.Value)
	}
	f.Fuzz(func(t *testing.T, bucket string, key, value []byte) {
		op, err := again(Bucket(bucket), key, value)
		if err == nil && (string(op.Key) != string(key) || string(op.Value) != string(value)) {
			t.Errorf("%s: %x = %x came back as %x = %x", bucket, key, value, op.Key, op.Value)
		}
	})
}

// again decodes a record and encodes it.
func again(bucket Bucket, key, value []byte) (Op, error) {
	switch bucket {
	case Sessions:
		r, err := decodeSession(key, value)
		return PutSession(r), err
	case Ages:
		id, age, err := decodeAge(key, value)
		return PutAge(id, age), err
	case Wills:
		r, err := decodeWill(key, value)
		return PutWill(r), err
	case Subscriptions:
		r, err := decodeSubscription(key, value)
		return PutSubscription(r), err
	case Received:
		id, n, _, err := decodeIdentifier(key, value, false)
		return PutReceived(id, n), err
	case Released:
		id, n, seq, err := decodeIdentifier(key, value, true)
		return PutReleased(id, n, seq), err
	case Marks:
		seq, err := decodeMark(key, value)
		return PutMark(seq), err
	case RetainedTopic:
		r, err := decodeRetained(key, value)
		return PutRetained(r), err
	}
	return Op{}, errRecord
}
