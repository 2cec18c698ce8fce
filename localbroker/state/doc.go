// Package state keeps what the broker has to know after a restart, by key:
// the sessions of its clients, their subscriptions and wills, the identifiers
// of QoS 2, and the retained messages of clients.
//
// Changes come in through Store.Apply, groups of them atomically; what was
// kept comes out through Load once after the start. The messages that wait for
// clients are in the session log (package spool), not here.
//
// It never refuses to start because of a damaged file, never says that a
// change is kept before the promise of the configured level holds, and never
// drops an error: a disk that refuses makes Apply fail.
package state
