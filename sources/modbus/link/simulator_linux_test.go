package link

import (
	"context"
	"fmt"
	"testing"
	"time"

	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// BenchmarkSimulatorLineUse is BenchmarkLineUse with the simulator at the other
// end of a paced pseudo-terminal, as `sluice simulate` opens it. The goals are
// 1.05 at 9600 and 1.15 at 115200 Bd.
func BenchmarkSimulatorLineUse(b *testing.B) {
	for _, baud := range []int{9600, 115200} {
		b.Run(fmt.Sprint(baud), func(b *testing.B) {
			sim := modbussim.New(modbussim.Config{})
			if _, err := sim.AddUnit(1, modbussim.UnitConfig{AllZero: true, Think: deviceTime}); err != nil {
				b.Fatal(err)
			}
			pty, err := sim.OpenPTY(modbussim.LineConfig{Baud: baud, Format: "8N1"})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() { ended <- sim.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-ended; err != nil {
					b.Error(err)
				}
			}()
			l, err := New(Config{Serial: pty.Path(), Baud: baud})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			measureLineUse(b, l)
		})
	}
}

// measureLineUse reads 125 registers again and again and reports the time of a
// transaction over what the wire and the device need.
func measureLineUse(b *testing.B, l *Link) {
	b.Helper()
	read := func() {
		if _, err := l.Read(b.Context(), 1, register.HoldingRegister, 0, 125, 0); err != nil {
			b.Fatal(err)
		}
	}
	read()
	start, n := time.Now(), 0
	for b.Loop() {
		read()
		n++
	}
	each := time.Since(start) / time.Duration(n)
	b.ReportMetric(float64(each)/float64(263*l.Line().CharTime+deviceTime), "x/wire+device")
	b.ReportMetric(float64(each.Microseconds())/1000, "ms/transaction")
}
