package sparkplug

import (
	"strings"
	"testing"
	"time"

	"sluice/sources"
)

// kindOf returns the message type in a topic.
func kindOf(topic string) string { return strings.Split(topic, "/")[2] }

// kinds returns the types of the messages on the wire, such as "NBIRTH DBIRTH/pump".
func (r *rig) kinds() string {
	var list []string
	for i := range r.wire {
		levels := strings.Split(r.wire[i].Topic, "/")
		list = append(list, strings.Join(append(levels[2:3:3], levels[4:]...), "/"))
	}
	return strings.Join(list, " ")
}

func TestNodeSessionInOrder(t *testing.T) {
	r := newRig(t, nil)
	r.scan(1)
	r.connect("a", "")
	r.drain()
	r.now = r.now.Add(time.Second)
	r.scan(2)
	r.drain()
	r.close()
	r.fit()
	if got, want := r.kinds(), "NBIRTH DBIRTH/meter DBIRTH/pump DDATA/meter DDATA/pump DDATA/meter DDATA/pump NDEATH"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	data := r.wireOf("DDATA")
	if !data[0].Metrics[0].Historical || data[2].Metrics[0].Historical {
		t.Error("what stood in the log at the birth is history, what came later is not")
	}
}

func TestNodeDeviceDiesAfterItsSamples(t *testing.T) {
	r := newRig(t, nil)
	r.scan(1)
	r.device("pump", false)
	r.connect("a", "")
	r.drain()
	if got, want := r.kinds(), "NBIRTH DBIRTH/meter DBIRTH/pump DDATA/meter DDATA/pump DDEATH/pump"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r.wire = nil
	r.askRebirth()
	if got, want := r.kinds(), "NBIRTH DBIRTH/meter"; got != want {
		t.Errorf("a dead device stays dead: got %s, want %s", got, want)
	}
	r.wire = nil
	r.record(r.points[2], sources.Value{}, sources.Bad)
	r.drain()
	if got := r.kinds(); got != "" || r.node.Stats().Dead != 1 {
		t.Errorf("a dead device says nothing: got %s", got)
	}
	r.record(r.points[2], sources.Bool(true), sources.Good)
	r.drain()
	if got, want := r.kinds(), "DBIRTH/pump DDATA/pump DDEATH/pump"; got != want {
		t.Errorf("a value of a dead device: got %s, want %s", got, want)
	}
	r.wire = nil
	r.device("pump", true)
	if got, want := r.kinds(), "DBIRTH/pump"; got != want {
		t.Errorf("a device that is back: got %s, want %s", got, want)
	}
	r.fit()
}
