package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
)

// slots is a small file that is overwritten in place: it needs no space on a
// full disk, and one of its two slots is always whole.
//
//	0       4            12       16        20          slot 1 at 4096
//	┌───────┬────────────┬────────┬─────────┬─────────┐ ┌───────────── ...
//	│ magic │ generation │ length │ CRC-32C │ payload │ │ the other slot
//	│ u32   │ u64        │ u32    │ u32     │         │ │
//	└───────┴────────────┴────────┴─────────┴─────────┘ └───────────── ...
//
// The CRC covers generation, length and payload. Writes between two syncs all
// go to the slot that is not the last synced one, so a power cut tears only
// that. The intact slot of the higher generation counts.
type slots struct {
	fs         fileSystem
	name       string
	magic      uint32
	f          file
	generation uint64
	safe       int  // the slot that was synced last
	dirty      bool // the other one has been written since
}

const (
	slotSize       = 4096
	slotHeaderSize = 20
	maxPayload     = slotSize - slotHeaderSize
)

// openSlots opens or prepares name. It returns the newest intact payload, nil
// if there is none, and how many of the two slots were intact.
func openSlots(fsys fileSystem, name string, magic uint32) (s *slots, payload []byte, intact int, err error) {
	s = &slots{fs: fsys, name: name, magic: magic}
	b, err := readAll(fsys, name, 2*slotSize) // an unreadable slot reads as zeros
	if isNotExist(err) {
		return s, nil, 0, nil
	}
	if err != nil {
		return s, nil, 0, diskError("read", name, err)
	}
	for i := range 2 {
		if len(b) <= i*slotSize {
			break
		}
		generation, p, ok := parseSlot(b[i*slotSize:min(len(b), (i+1)*slotSize)], magic)
		if !ok {
			continue
		}
		intact++
		if payload == nil || generation > s.generation {
			payload, s.generation, s.safe = p, generation, i
		}
	}
	if intact == 0 {
		return s, nil, 0, nil
	}
	if s.f, err = fsys.Open(name, false); err != nil {
		return s, payload, intact, diskError("open", name, err)
	}
	return s, payload, intact, nil
}

func parseSlot(b []byte, magic uint32) (generation uint64, payload []byte, ok bool) {
	if len(b) < slotHeaderSize || binary.LittleEndian.Uint32(b) != magic {
		return 0, nil, false
	}
	generation = binary.LittleEndian.Uint64(b[4:])
	length := binary.LittleEndian.Uint32(b[12:])
	if uint64(length) > uint64(len(b)-slotHeaderSize) {
		return 0, nil, false
	}
	payload = b[slotHeaderSize : slotHeaderSize+length]
	crc := crc32.Update(crc32.Checksum(b[4:16], castagnoli), castagnoli, payload)
	return generation, payload, crc == binary.LittleEndian.Uint32(b[16:])
}

func appendSlot(dst []byte, magic uint32, generation uint64, payload []byte) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	dst = binary.LittleEndian.AppendUint64(dst, generation)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	crc := crc32.Update(crc32.Checksum(dst[start+4:], castagnoli), castagnoli, payload)
	return append(binary.LittleEndian.AppendUint32(dst, crc), payload...)
}

// write puts payload into the unsafe slot: it survives the process, and after
// sync the power. A file that does not exist yet, or failed, is made anew and
// is synced at once.
func (s *slots) write(payload []byte) error {
	if len(payload) > maxPayload {
		return fmt.Errorf("write %s: %d bytes do not fit a slot", s.name, len(payload))
	}
	s.generation++
	if s.f == nil {
		return s.create(payload)
	}
	b := appendSlot(nil, s.magic, s.generation, payload)
	if _, err := s.f.WriteAt(b, int64(1-s.safe)*slotSize); err != nil {
		return s.fail("write", err)
	}
	s.dirty = true
	return nil
}

// sync makes what was written durable.
func (s *slots) sync() error {
	if !s.dirty || s.f == nil {
		return nil
	}
	if err := s.f.Sync(); err != nil {
		return s.fail("sync", err)
	}
	s.safe, s.dirty = 1-s.safe, false
	return nil
}

// fail gives the file up: after a failed sync nobody knows what it holds.
func (s *slots) fail(op string, err error) error {
	_ = s.f.Close() // the error that matters is the one before
	s.f = nil
	return diskError(op, s.name, err)
}

func (s *slots) create(payload []byte) error {
	b := make([]byte, 2*slotSize)
	appendSlot(b[:0], s.magic, s.generation, payload)
	s.generation++
	appendSlot(b[slotSize:slotSize], s.magic, s.generation, payload)
	temp := s.name + ".tmp"
	if err := s.fs.Remove(temp); err != nil && !isNotExist(err) {
		return diskError("remove", temp, err)
	}
	f, err := s.fs.Open(temp, true)
	if err != nil {
		return diskError("create", temp, err)
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.fs.Rename(temp, s.name)
	}
	if err == nil {
		err = s.fs.SyncDir(filepath.Dir(s.name))
	}
	if err != nil {
		return diskError("create", s.name, errors.Join(err, f.Close()))
	}
	s.f, s.safe, s.dirty = f, 1, false
	return nil
}

func (s *slots) close() error {
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f = nil
	return err
}
