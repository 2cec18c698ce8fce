package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"sluice/localbroker/spool"
)

func torture() bool { return os.Getenv("SLUICE_TORTURE") == "1" }

func count(slice, full int) int {
	if torture() {
		return full
	}
	return slice
}

// specimen is a file with branches, leaves, overflow pages, unused pages and
// inline buckets, as it was before and after its last transaction.
type specimen struct {
	before, after        []byte
	recordsThen, records map[string]string
	ever                 map[string]bool // key = value, of all that was ever there
}

func newSpecimen(t testing.TB) *specimen {
	t.Helper()
	dir, rng := t.TempDir(), rand.New(rand.NewPCG(1, 2))
	s := mustOpen(t, dir, Config{Level: spool.Sync})
	sp := &specimen{records: map[string]string{}, ever: map[string]bool{}}
	_, ops := sample("client")
	groups := [][]Op{ops}
	for range 60 {
		groups = append(groups, someOps(rng))
	}
	for i := range 40 {
		r := Retained{Topic: fmt.Sprintf("site/device/%04d", i*7919%1000), Payload: make([]byte, 20+i%7*300)}
		groups = append(groups, []Op{PutRetained(r), PutReceived("client", uint16(i))})
	}
	for _, ops := range groups {
		sp.recordsThen = maps.Clone(sp.records)
		sp.before = readFile(t, filepath.Join(dir, fileName))
		mustApply(t, s, ops...)
		model(sp.records, ops)
		for k, v := range sp.records {
			sp.ever[k+"="+v] = true
		}
	}
	closeStore(t, s)
	sp.after = readFile(t, filepath.Join(dir, fileName))
	return sp
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// survey reads b as restore does. what is "as it is", "older" or "parts".
func (sp *specimen) survey(t testing.TB, b []byte) (records map[string]string, what string) {
	im := readImage(bytes.NewReader(b), int64(len(b)))
	for i, m := range im.metas {
		records = map[string]string{}
		v, err := im.walk(m, func(bucket Bucket, key, value []byte) error {
			records[string(bucket)+"\x00"+string(key)] = string(value)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if v.intact() {
			return records, []string{"as it is", "older"}[min(i, 1)]
		}
	}
	return records, "parts"
}

// judge fails if records were never there, or if they are called intact and
// are not.
func (sp *specimen) judge(t testing.TB, name string, records map[string]string, what string) {
	t.Helper()
	for k, v := range records {
		if !sp.ever[k+"="+v] {
			t.Fatalf("%s: %q was never there", name, k)
		}
	}
	switch {
	case what == "as it is" && !maps.Equal(records, sp.records) && !maps.Equal(records, sp.recordsThen),
		what == "older" && !maps.Equal(records, sp.recordsThen):
		t.Fatalf("%s: called %s, and %d records of %d", name, what, len(records), len(sp.records))
	}
}

// TestEveryByte: whatever byte is wrong, nothing is read that was never there,
// and no damage goes unnoticed.
func TestEveryByte(t *testing.T) {
	sp := newSpecimen(t)
	b, seen := bytes.Clone(sp.after), map[string]int{}
	for i := 0; i < len(b); i += count(331, 1) {
		for _, bit := range []byte{1, 0x80} {
			b[i] ^= bit
			records, what := sp.survey(t, b)
			sp.judge(t, fmt.Sprintf("byte %d", i), records, what)
			seen[what]++
			b[i] ^= bit
		}
	}
	t.Logf("%d bytes: %v", len(b), seen)
	if seen["parts"] == 0 || seen["as it is"] == 0 {
		t.Error("not all cases were met")
	}
}

func TestEveryLength(t *testing.T) {
	sp := newSpecimen(t)
	for n := 0; n <= len(sp.after); n += count(2039, 67) {
		records, what := sp.survey(t, sp.after[:n])
		sp.judge(t, fmt.Sprintf("%d bytes", n), records, what)
	}
}

// TestTornTransaction: of the sectors of the last transaction any part may be
// on the disk. As long as fsync is no lie, that is the state before or after.
func TestTornTransaction(t *testing.T) {
	sp := newSpecimen(t)
	const sector = 512
	old := append(bytes.Clone(sp.before), make([]byte, len(sp.after)-len(sp.before))...)
	var data, metas []int
	for at := 0; at < len(old); at += sector {
		if !bytes.Equal(old[at:at+sector], sp.after[at:at+sector]) {
			if at < 2*boltPageSize {
				metas = append(metas, at)
			} else {
				data = append(data, at)
			}
		}
	}
	if len(metas) != 1 || len(data) < 3 {
		t.Fatalf("%d sectors of meta pages and %d of others", len(metas), len(data))
	}
	rng, seen := rand.New(rand.NewPCG(3, 4)), map[string]int{}
	for range count(500, 100_000) {
		b, honest := bytes.Clone(old), rng.IntN(2) == 0
		missing := 0
		for _, at := range data {
			if rng.IntN(2) == 0 {
				copy(b[at:], sp.after[at:at+sector])
			} else {
				missing++
			}
		}
		if !honest || missing == 0 { // the meta page is written when the data is there
			copy(b[metas[0]:], sp.after[metas[0]:metas[0]+rng.IntN(sector+1)])
		}
		records, what := sp.survey(t, b)
		sp.judge(t, "torn", records, what)
		if honest && what != "as it is" || what == "parts" {
			t.Fatalf("%s, fsync honest: %v", what, honest)
		}
		seen[fmt.Sprint(what, ", honest ", honest)]++
	}
	t.Log(seen)
}

// TestAPageThatWasNotWritten: an old page in the place of a new one is whole in
// itself, and found all the same.
func TestAPageThatWasNotWritten(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Config{Level: spool.Sync})
	for i := range 400 {
		mustApply(t, s, PutReceived("a client with a long name", uint16(i)))
	}
	sp := &specimen{records: all(t, s), ever: map[string]bool{}}
	var files [][]byte
	for n := range 12 {
		op := PutReleased("c", 1, uint64(n))
		more := PutRetained(Retained{Topic: "t", Expiry: uint32(n), Payload: make([]byte, 1500)})
		mustApply(t, s, op, more)
		model(sp.records, []Op{op, more})
		for k, v := range sp.records {
			sp.ever[k+"="+v] = true
		}
		files = append(files, readFile(t, filepath.Join(dir, fileName)))
	}
	closeStore(t, s)
	last, stale := files[len(files)-1], 0
	for _, old := range files[:len(files)-1] {
		for at := 2 * boltPageSize; at < len(old); at += boltPageSize {
			b := bytes.Clone(last)
			copy(b[at:at+boltPageSize], old[at:])
			records, what := sp.survey(t, b)
			if what == "as it is" && !maps.Equal(records, sp.records) {
				t.Fatalf("page %d is old and nobody noticed", at/boltPageSize)
			}
			if what != "as it is" {
				stale++
			}
		}
	}
	if stale == 0 {
		t.Error("no page was ever used again")
	}
}

// injure damages a file in one of many ways.
func injure(rng *rand.Rand, b []byte) (string, []byte) {
	b = bytes.Clone(b)
	page := rng.IntN(len(b)/boltPageSize) * boltPageSize
	other := rng.IntN(len(b)/boltPageSize) * boltPageSize
	switch n := rng.IntN(8); n {
	case 0:
		clear(b[page : page+boltPageSize])
		return "zero page", b
	case 1:
		copy(b[page:page+boltPageSize], b[other:])
		return "page in the place of another", b
	case 2:
		return "cut", b[:rng.IntN(len(b))]
	case 3:
		return "cut at a page", b[:page]
	case 4:
		clear(b[:2*boltPageSize])
		return "no meta page", b
	case 5:
		for i := page; i < page+boltPageSize; i++ {
			b[i] = byte(rng.Uint32())
		}
		return "noise", b
	case 6:
		return "more behind", append(b, make([]byte, rng.IntN(5000))...)
	default:
		for range 1 + rng.IntN(4) {
			b[page+rng.IntN(200)] ^= 1 << rng.IntN(8) // where the numbers are
		}
		return "bits", b
	}
}

// TestDamageIsNoReasonNotToStart: every injured file is opened, what is read
// was there, changes are taken, and the next start finds all in order. With a
// backup nothing is missing.
func TestDamageIsNoReasonNotToStart(t *testing.T) {
	sp, rng := newSpecimen(t), rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 5))
	restored := map[string]int{}
	rounds := count(100, 5_000)
	for i := range rounds {
		dir, cfg := t.TempDir(), Config{Level: spool.Sync}
		how, b := injure(rng, sp.after)
		writeFile(t, filepath.Join(dir, fileName), b)
		if i%2 == 0 {
			cfg = config(t, spool.SyncBackup)
			writeFile(t, filepath.Join(cfg.Backup, fileName), sp.after)
			if i%4 == 0 { // or the backup is
				writeFile(t, filepath.Join(dir, fileName), sp.after)
				writeFile(t, filepath.Join(cfg.Backup, fileName), b)
			}
		}
		s, err := Open(dir, cfg, quiet)
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		records := all(t, s)
		sp.judge(t, how, records, "parts")
		if cfg.Level == spool.SyncBackup && !maps.Equal(records, sp.records) {
			t.Fatalf("%s: %d records of %d, with a backup", how, len(records), len(sp.records))
		}
		restored[strings.TrimLeft(s.Stats().Restored, "0123456789 ")]++
		mustApply(t, s, DeleteReceived("client", 3), PutReceived("client", 60_000))
		closeStore(t, s)
		if cfg.Level == spool.SyncBackup && rng.IntN(2) == 0 { // both are whole now
			if err := os.Remove(filepath.Join(dir, fileName)); err != nil {
				t.Fatal(err)
			}
		}
		s = mustOpen(t, dir, cfg)
		model(records, []Op{DeleteReceived("client", 3), PutReceived("client", 60_000)})
		if got := all(t, s); !maps.Equal(got, records) {
			t.Fatalf("%s: %d records at the next start, want %d", how, len(got), len(records))
		}
		closeStore(t, s)
	}
	t.Log(restored)
	if rounds >= 1_000 && len(restored) < 5 { // a hundred need not meet all
		t.Error("not all cases were met")
	}
}

func writeFile(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// FuzzDamage: what the survey calls in order is safe for bbolt, which panics,
// in part in goroutines of its own, when it is not.
func FuzzDamage(f *testing.F) {
	sp := newSpecimen(f)
	rng := rand.New(rand.NewPCG(6, 7))
	for range 300 { // bits in the headers and the tables of the pages
		at := rng.IntN(len(sp.after)/boltPageSize)*boltPageSize + rng.IntN(64)
		f.Add(binary.LittleEndian.AppendUint32(nil, uint32(at)<<8|1<<rng.IntN(8)))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, changes []byte) {
		b := bytes.Clone(sp.after)
		for ; len(changes) >= 4; changes = changes[4:] {
			n := binary.LittleEndian.Uint32(changes)
			b[int(n>>8)%len(b)] ^= byte(n)
		}
		records, what := sp.survey(t, b)
		sp.judge(t, "fuzzed", records, what)
		if what != "as it is" {
			return
		}
		name := filepath.Join(dir, fileName)
		writeFile(t, name, b)
		db, err := openBolt(name, func(*os.File) {}, true)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		err = db.Update(func(tx *bolt.Tx) error {
			if err := tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
				return b.ForEach(func(_, _ []byte) error { n++; return nil })
			}); err != nil {
				return err
			}
			tr := &transaction{tx: tx, totals: &totals{buckets: map[Bucket]BucketStats{}}}
			return tr.apply([]*group{{ops: []Op{{Kind: DeletePrefix, Bucket: RetainedTopic, Key: []byte("site")}}}}, 0)
		})
		if err != nil || n != len(records)+1 {
			t.Fatalf("%d records, want %d: %v", n, len(records)+1, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
