package state

import (
	"time"

	"sluice/localbroker/spool"
)

// Config says how a Store keeps what it is given.
type Config struct {
	// Level is what holds when Apply returns:
	//
	//   memory       nothing is kept over a restart; no file is made
	//   spill        as buffered
	//   buffered     kept in RAM and committed every SyncInterval: a kill and a
	//                power cut lose what came since
	//   sync         on the disk; nothing is lost
	//   sync-backup  on the disk twice; nothing is lost if one copy is damaged
	Level spool.Level
	// SyncInterval is 10 ms to 1 h; 0 is one second.
	SyncInterval time.Duration
	// Backup is the folder of the second copy at level sync-backup.
	Backup string
	// MaxSize bounds keys and values together, in bytes; Apply returns ErrFull
	// beyond it. 0 is 64 MiB.
	MaxSize int64
}
