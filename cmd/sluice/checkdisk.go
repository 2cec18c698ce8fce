package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"sluice/configs"
	"sluice/localbroker/spool"
)

// codeDisk: a bound is beyond the disk (warning).
const codeDisk = "SLUICE-CFG-310"

// diskProblems compares the bounds of what is kept with the disks they are on.
// A disk that cannot be measured is not judged.
func (s *site) diskProblems(doc *configs.Document) []configs.Problem {
	log := s.Buffer.Effective()
	storage := s.Broker.Storage
	storage.Inherit(log)
	var first, second int64 // bytes that may be kept in the folder of the log, and in that of its second copy
	if log.Level != spool.Memory {
		first = int64(log.Max)
	}
	if log.Level == spool.SyncBackup {
		second = int64(log.Max)
	}
	if s.Broker.Enabled && s.Broker.Sessions && storage.Level != spool.Memory {
		first += int64(storage.MaxSize)
	}
	var problems []configs.Problem
	for _, folder := range []struct {
		key, dir string
		bound    int64
	}{{"buffer.dir", s.resolve(log.Dir), first}, {"buffer.backup", s.resolve(log.Backup), second}} {
		if folder.bound == 0 || folder.dir == "" {
			continue
		}
		disk, free, err := spool.Disk(existing(folder.dir))
		message := ""
		switch {
		case err != nil || disk == 0:
		case folder.bound > disk:
			message = fmt.Sprintf("up to %s may be kept in %s, on a disk of %s: the disk is full before the bounds are reached",
				size(float64(folder.bound)), folder.dir, size(float64(disk)))
		case free < int64(log.SegmentSize):
			message = fmt.Sprintf("the disk of %s has %s left, and a file of the log takes %s", folder.dir, size(float64(free)), size(float64(log.SegmentSize)))
		}
		if message != "" {
			problems = append(problems, doc.Problem(doc.KeyPosition(folder.key), configs.Problem{Code: codeDisk, Warning: true, Message: message,
				Fix: "choose a smaller buffer.max and broker.storage.max_size, or a larger disk"}))
		}
	}
	return problems
}

// room returns how many bytes the log can have in dir: what is free, and what it has.
func room(dir string) int64 {
	disk, free, err := spool.Disk(existing(dir))
	if err != nil || disk == 0 {
		return math.MaxInt64
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*.seg")) // the pattern is a good one
	for _, name := range names {
		if info, err := os.Stat(name); err == nil && free < math.MaxInt64-info.Size() {
			free += info.Size()
		}
	}
	return free
}

// existing returns the folder nearest to dir that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
