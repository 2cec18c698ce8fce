package publish

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"sluice/mapping"
	"sluice/sources"
	"sluice/sparkplug"
)

// sinkVariable makes the test binary a sink for the benchmarks, in a process
// of its own so that its CPU time is not ours.
const sinkVariable = "SLUICE_TEST_SINK"

func TestMain(m *testing.M) {
	if os.Getenv(sinkVariable) != "" {
		if err := sink(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// sink acknowledges everything one client sends, and ends with it. It prints
// its address first.
func sink() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	c, err := l.Accept()
	if err != nil {
		return err
	}
	r, w := bufio.NewReaderSize(c, 1<<16), bufio.NewWriterSize(c, 1<<16)
	var body []byte
	for {
		first, err := r.ReadByte()
		if err != nil {
			return nil // the client has gone
		}
		length, _, err := readLength(r)
		if err != nil {
			return err
		}
		body = append(body[:0], make([]byte, length)...)
		if _, err := io.ReadFull(r, body); err != nil {
			return nil
		}
		switch first >> 4 {
		case 1:
			_, err = w.Write([]byte{0x20, 2, 0, 0})
		case 3:
			topic := int(body[0])<<8 | int(body[1])
			_, err = w.Write([]byte{0x40, 2, body[2+topic], body[3+topic]})
		case 8: // every filter of an edge node
			codes := []byte{0x90, 2, body[0], body[1]}
			for rest := body[2:]; len(rest) > 0; rest = rest[3+int(rest[0])<<8+int(rest[1]):] {
				codes = append(codes, 1)
				codes[1]++
			}
			_, err = w.Write(codes)
		case 12:
			_, err = w.Write([]byte{0xd0, 0})
		case 14:
			return nil
		}
		if err != nil {
			return err
		}
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
}

// benchLog gives out n records in polls of 50 and takes acknowledgements.
type benchLog struct {
	poll  []mapping.Record
	seq   uint64
	n     uint64
	acked uint64
	done  chan struct{}
}

func (l *benchLog) Rewind(bool) error { return nil }

func (l *benchLog) Next(ctx context.Context, live bool, _ int) ([]mapping.Record, error) {
	if live || l.seq >= l.n {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for i := range l.poll {
		l.poll[i].Seq, l.poll[i].Scan = l.seq+uint64(i)+1, l.seq+1
	}
	l.seq += uint64(len(l.poll))
	return l.poll, nil
}

func (l *benchLog) Ack(first, last uint64) error {
	if l.acked += last - first + 1; l.acked == l.n {
		close(l.done)
	}
	return nil
}

// BenchmarkUpstream delivers to a sink in another process. One operation is
// one record; CPU-s/1M is our own process time for a million records.
func BenchmarkUpstream(b *testing.B) {
	for _, payload := range []string{payloadJSON, payloadJSONDevice, payloadSparkplug} {
		for _, qos := range []int{1, 0} {
			if qos == 1 && payload == payloadSparkplug {
				continue // its data is QoS 0
			}
			b.Run(fmt.Sprintf("%s/qos%d", payload, qos), func(b *testing.B) { benchUpstream(b, payload, qos) })
		}
	}
}

func benchUpstream(b *testing.B, payload string, qos int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sinkVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	cfg := plainConfig(func(c *Config) {
		c.Servers, c.Payload, c.QoS, c.Drain = []string{"mqtt://" + address[:len(address)-1]}, payload, qos, "unlimited"
	})
	log := &benchLog{n: uint64(b.N+49) / 50 * 50, done: make(chan struct{})}
	for i := range 50 {
		log.poll = append(log.poll, mapping.Record{
			Point: &mapping.Point{Site: "plant-7", Device: "main-meter", Name: fmt.Sprintf("voltage_l%d", i), Unit: "V", Kind: sources.KindFloat32},
			Value: sources.Float32(231.4), Quality: sources.Good, Stamp: sources.Stamp{Wall: time.Now().UnixNano(), Trusted: true}})
	}
	var session Session
	if payload == payloadSparkplug {
		session, err = benchNode(log)
	} else {
		session, err = NewPlain(cfg, PlainOptions{Site: "plant-7"})
	}
	if err != nil {
		b.Fatal(err)
	}
	up, err := New(cfg, log, session, Options{Site: "plant-7", MachineID: "m"})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := cpuTime(b)
	b.ResetTimer()
	go func() { ended <- up.Run(ctx) }()
	<-log.done
	b.StopTimer()
	runtime.ReadMemStats(&after)
	b.ReportMetric((cpuTime(b)-cpu)*1e6/float64(b.N), "CPU-s/1M")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(up.Stats().BytesOut)/float64(b.N), "bytes/record")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N), "allocs/record")
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		b.Error(err)
	}
}

// benchNode is an edge node of the points in log.
func benchNode(log *benchLog) (Session, error) {
	cfg := sparkplug.Config{Group: "plant-7", Node: "gw"}
	cfg.SetDefaults()
	var points []*mapping.Point
	for i := range log.poll {
		points = append(points, log.poll[i].Point)
	}
	return sparkplug.New(cfg, sparkplug.Options{Points: points, Now: time.Now, Sequence: &counter{}, Servers: 1,
		End: func() uint64 { return 1 }, Current: func() []mapping.Record { return nil }})
}

// cpuTime returns the CPU time of this process in seconds.
func cpuTime(b *testing.B) float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}
