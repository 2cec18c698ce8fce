// Package spool is the durable log between the field and the upstreams: what
// is appended comes out of every cursor in the same order, once it is
// acknowledged never again, across restarts, kills, power cuts, full disks
// and damaged files.
//
// Records (mapped samples, messages of LAN clients, notes of drops) come in
// through Spool.Append; they go out through one Cursor for each upstream.
// FORMAT.md draws what is on disk, DESIGN.md says why.
//
// It never interprets a record, never talks to a network, never acknowledges
// before the promise of the configured level holds, and never refuses to
// start because of damaged data.
package spool
