package link

import (
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestSerialStructIsThatOfTheKernel(t *testing.T) {
	var s serialStruct
	got := [...]uintptr{unsafe.Offsetof(s.flags), unsafe.Offsetof(s.closingWait), unsafe.Offsetof(s.iomemBase),
		unsafe.Offsetof(s.portHigh), unsafe.Offsetof(s.iomapBase), unsafe.Sizeof(s)}
	want := [...]uintptr{16, 40, 44, 52, 56, 60} // by linux/serial.h, as gcc lays it out
	if unsafe.Sizeof(uintptr(0)) == 8 {
		want = [...]uintptr{16, 40, 48, 60, 64, 72}
	}
	if got != want {
		t.Errorf("offsets and size %v, want %v", got, want)
	}
}

// TestLowLatencyIsOptional: a terminal that does not know it says so, and
// still opens.
func TestLowLatencyIsOptional(t *testing.T) {
	d := openPTY(t, answerRTU)
	p, err := openSerial(&Config{Serial: d.path, Baud: DefaultBaud, Format: DefaultFormat})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if err := p.(*serialPort).control(setLowLatency); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("got %v, want ENOTTY", err)
	}
}

func TestLowLatencyByDefault(t *testing.T) {
	var c Config
	c.SetDefaults()
	if c.LowLatency == nil || !*c.LowLatency {
		t.Error("not set")
	}
	off := false
	c = Config{LowLatency: &off}
	if c.SetDefaults(); *c.LowLatency {
		t.Error("set although turned off")
	}
}
