// Package mapping turns samples of the field into records with a name, a unit
// and an engineering value, by the points list of the site file; and records
// into topics and payloads. Samples come in, records and messages go out. It
// does no I/O but reading the site file and profiles, and never waits.
package mapping
