package link

import (
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/tarm/serial"
)

// tarmPort is tarm/serial made to keep deadlines as well as it can: a
// goroutine reads, and hands on what comes. DESIGN.md has the figures.
type tarmPort struct {
	*serial.Port
	chunks   chan []byte
	end      chan error
	deadline time.Time
}

// openTarm polls every 100 ms, the least that tarm can do, as Close would
// otherwise wait for the next byte. tarm reports a poll without bytes and a
// hang-up alike as io.EOF; only the time between two tells them apart.
func openTarm(path string) (*tarmPort, error) {
	p, err := serial.OpenPort(&serial.Config{Name: path, Baud: 9600, ReadTimeout: time.Millisecond})
	if err != nil {
		return nil, err
	}
	t := &tarmPort{Port: p, chunks: make(chan []byte, 64), end: make(chan error, 1)}
	go func() {
		buf := make([]byte, 512)
		for {
			start := time.Now()
			n, err := p.Read(buf)
			switch {
			case n > 0:
				t.chunks <- append([]byte(nil), buf[:n]...)
			case errors.Is(err, io.EOF) && time.Since(start) > 50*time.Millisecond:
			default:
				t.end <- err
				return
			}
		}
	}()
	return t, nil
}

func (t *tarmPort) SetReadDeadline(at time.Time) error { t.deadline = at; return nil }

func (t *tarmPort) Read(b []byte) (int, error) {
	timer := time.NewTimer(time.Until(t.deadline))
	defer timer.Stop()
	select {
	case chunk := <-t.chunks:
		return copy(b, chunk), nil
	case err := <-t.end:
		return 0, err
	case <-timer.C:
		return 0, os.ErrDeadlineExceeded
	}
}

// BenchmarkPort prints how late a deadline of 5 ms is, how long a hang-up stays
// unnoticed, and how long after Close the port is really free, for our port and
// for tarm/serial.
func BenchmarkPort(b *testing.B) {
	type reader interface {
		io.ReadCloser
		SetReadDeadline(time.Time) error
	}
	ports := map[string]func(path string) (reader, error){
		"own": func(path string) (reader, error) {
			c := Config{Serial: path}
			c.SetDefaults()
			return openSerial(&c)
		},
		"tarm": func(path string) (reader, error) { return openTarm(path) },
	}
	for _, name := range []string{"own", "tarm"} {
		b.Run(name, func(b *testing.B) {
			var late, hangup []time.Duration
			buf := make([]byte, 16)
			for b.Loop() {
				d := openPTY(b, answerRTU)
				p, err := ports[name](d.path)
				if err != nil {
					b.Fatal(err)
				}
				at := time.Now().Add(5 * time.Millisecond)
				if err := p.SetReadDeadline(at); err != nil {
					b.Fatal(err)
				}
				if _, err := p.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
					b.Fatal(err)
				}
				late = append(late, time.Since(at))
				if err := p.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				d.unplug()
				if _, err := p.Read(buf); errors.Is(err, os.ErrDeadlineExceeded) {
					b.Fatal("the hang-up was not noticed within a second")
				}
				hangup = append(hangup, time.Since(start))
				_ = p.Close()
			}
			for metric, d := range map[string][]time.Duration{"late": late, "hangup": hangup} {
				slices.Sort(d)
				b.ReportMetric(ms(d[len(d)/2]), "ms-"+metric+"-median")
				b.ReportMetric(ms(d[len(d)*95/100]), "ms-"+metric+"-95%")
			}
			d := openPTY(b, answerRTU)
			p, err := ports[name](d.path)
			if err != nil {
				b.Fatal(err)
			}
			if err := p.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
				b.Fatal(err)
			}
			_, _ = p.Read(buf) // so that a reading goroutine is at work
			start := time.Now()
			_ = p.Close()
			for { // the last reader of the file has gone when it is no longer open
				if n, err := openHere(d.path); err != nil || n <= 1 {
					break
				}
			}
			b.ReportMetric(ms(time.Since(start)), "ms-to-release")
		})
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// openHere counts the open files of this process that are path. One is that of
// the peer.
func openHere(path string) (n int, err error) {
	files, err := os.ReadDir("/proc/self/fd")
	for _, file := range files {
		if target, err := os.Readlink("/proc/self/fd/" + file.Name()); err == nil && target == path {
			n++
		}
	}
	return n, err
}
