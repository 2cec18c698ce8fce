package spool

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/mapping"
)

// image is a folder of files, kept to be damaged again and again.
type image map[string][]byte

func readImage(t testing.TB, dir string) image {
	t.Helper()
	im := image{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path) // both from the same walk
		im[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// on returns a file system in memory that holds the image.
func (im image) on(rng *rand.Rand) *crashFS {
	c := newCrashFS(rng)
	for name, b := range im {
		node := &inode{data: bytes.Clone(b), durable: bytes.Clone(b)}
		c.now["/log/"+name], c.durable["/log/"+name] = node, node
	}
	return c
}

func (im image) segments() (names []string) {
	for name := range im {
		if strings.HasSuffix(name, ".seg") {
			names = append(names, name)
		}
	}
	return names
}

// damaged returns im with one random damage of a segment, and what it was.
func (im image) damaged(rng *rand.Rand) (image, string) {
	out := image{}
	for k, v := range im {
		out[k] = v
	}
	names := im.segments()
	slices.Sort(names)
	name := names[rng.IntN(len(names))]
	b := bytes.Clone(im[name])
	at := rng.IntN(len(b))
	what := ""
	switch rng.IntN(5) {
	case 0:
		b[at] ^= 1 << rng.IntN(8)
		what = "bit"
	case 1:
		b[at] ^= byte(1 + rng.IntN(255))
		what = "byte"
	case 2:
		at = at / 4096 * 4096
		clear(b[at:min(at+4096, len(b))])
		what = "page"
	case 3:
		b = b[:at]
		what = "cut"
	default:
		other := names[rng.IntN(len(names))]
		out[name], out[other] = im[other], im[name]
		return out, fmt.Sprintf("swap %s and %s", name, other)
	}
	out[name] = b
	return out, fmt.Sprintf("%s in %s at %d of %d", what, name, at, len(im[name]))
}

// frames returns where the records of each frame of a segment are.
func frames(t testing.TB, name string, b []byte) (at []int64, seqs []seqRange) {
	t.Helper()
	g := &segment{name: name, size: int64(len(b))}
	if err := g.readHeader(memFile(b)); err != nil {
		t.Fatal(err)
	}
	r := newSegmentReader(memFile(b), g, int64(len(b)), &interner{})
	for {
		ev, err := r.step()
		if err != nil || ev == eventDamage {
			t.Fatal(ev, err)
		}
		if ev == eventEnd {
			return append(at, r.goodEnd), seqs
		}
		at, seqs = append(at, r.frameAt), append(seqs, r.seqs)
	}
}

// TestTortureRandomDamage: a damaged log always starts, delivers nothing that
// was not recorded, nothing out of order, loses at most the frames that were
// hit, and tells how many.
func TestTortureRandomDamage(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 2))
	n := count(60, 1000)
	t.Logf("seed %d, %d damages", seed, n)
	clock, cfg, dir := newClock(), testConfig(Sync), t.TempDir()
	cfg.Max = 64 << 20
	cfg.Level = Buffered
	s := mustOpen(t, dir, cfg, clock)
	mustCursor(t, s, "up")
	total := 0
	for total < 60000 {
		mustAppend(t, s, poll(clock, total, 20))
		total += 20
		clock.pass(time.Second)
		if total%1000 == 0 {
			s.tick()
		}
	}
	closeSpool(t, s)
	im := readImage(t, dir)
	if len(im.segments()) < 4 {
		t.Fatalf("%d segments are too few to damage", len(im.segments()))
	}
	for range n {
		hurt, what := im.damaged(rng)
		if err := checkDamaged(t, im, hurt, hurt.on(rng), cfg, clock, total); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func checkDamaged(t testing.TB, im, hurt image, fsys *crashFS, cfg Config, clock *testClock, total int) error {
	s, err := open("/log", cfg, clock, quiet, fsys)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	values, drops := drain(t, mustCursor(t, s, "up"))
	last := int64(-1)
	for _, v := range values {
		if v <= last || v >= int64(total) {
			return fmt.Errorf("value %d after %d", v, last)
		}
		last = v
	}
	missing, told := total-len(values), 0
	for _, d := range drops {
		if d.Cause != mapping.DropDamage {
			return fmt.Errorf("drop %+v", d)
		}
		told += int(d.Count)
	}
	if missing != told {
		return fmt.Errorf("%d records are missing, %d were told", missing, told)
	}
	if most := hit(t, im, hurt); missing > most {
		return fmt.Errorf("%d records are missing, %d were hit", missing, most)
	}
	if missing > 0 && s.Stats().Damages == 0 {
		return fmt.Errorf("damage was not counted")
	}
	return s.Close()
}

// hit returns how many records are in frames whose bytes differ.
func hit(t testing.TB, im, hurt image) (n int) {
	t.Helper()
	for _, name := range im.segments() {
		a, b := im[name], hurt[name]
		if bytes.Equal(a, b) {
			continue
		}
		if swapped(im, name, b) {
			continue // its content is whole, under another name
		}
		at, seqs := frames(t, name, a)
		for i, r := range seqs {
			from, to := at[i], at[i+1]
			if to > int64(len(b)) || !bytes.Equal(a[from:to], b[from:to]) {
				n += int(r.count())
			}
		}
	}
	return n
}

func swapped(im image, name string, b []byte) bool {
	for other, c := range im {
		if other != name && bytes.Equal(b, c) {
			return true
		}
	}
	return false
}

// TestCopiesOfASegmentTakeLittleMemory: damaged or mended, a segment is never
// held in memory as a whole.
func TestCopiesOfASegmentTakeLittleMemory(t *testing.T) {
	fsys := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	clock, cfg := newClock(), testConfig(SyncBackup)
	cfg.SegmentSize, cfg.Max, cfg.Backup = 1<<20, 64<<20, "/backup"
	s, err := open("/log", cfg, clock, quiet, fsys)
	if err != nil {
		t.Fatal(err)
	}
	mustCursor(t, s, "up")
	for i := range 3000 {
		mustAppend(t, s, poll(clock, i*20, 20))
	}
	closeSpool(t, s)
	for name, node := range fsys.now {
		if strings.HasPrefix(name, "/log/00") {
			node.data[len(node.data)/2] ^= 1
		}
	}
	fsys.onRead = func(name string, _ int64, n int) (int, error) {
		if strings.HasSuffix(name, ".seg") && n > 4*readSize {
			t.Errorf("%d bytes of %s are read at once", n, name)
		}
		return n, nil
	}
	s, err = open("/log", cfg, clock, quiet, fsys)
	if err != nil {
		t.Fatal(err)
	}
	values, drops := drain(t, mustCursor(t, s, "up"))
	wantValues(t, values, upTo(0, 60000))
	if st := s.Stats(); len(drops) > 0 || st.Restored == 0 || st.Quarantined == 0 {
		t.Errorf("drops %v, %+v", drops, st)
	}
	closeSpool(t, s)
}
