// Package modbus polls Modbus devices on one bus. A points list comes in, and
// samples go out, one call for each device and poll. It plans block reads by
// what they cost on the line, keeps every point at its interval, shares a bus
// that cannot keep up, finds the one address a device refuses, and does not
// let a dead device take the time of the others.
//
// It never opens a line or frames a request (package link does), never scales
// or names a value (package mapping does), and never decides who may write
// (package command does).
package modbus
