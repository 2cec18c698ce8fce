// Package command is the one way from a command to a register. Requests come in
// from the local broker, upstreams and Sparkplug hosts; writes go out to the
// sources, one result for each request goes back to who asked, and every attempt
// goes into an audit log whose lines are chained by hashes.
//
// It never stores a command to carry it out later, never repeats one, and never
// speaks MQTT or Modbus itself.
package command
