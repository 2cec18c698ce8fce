// Package sparkplug makes the gateway a Sparkplug B 3.0 edge node with its
// meters as devices. Records, news of devices, and messages from hosts come
// in; births, deaths, data and requested writes go out. It does no I/O,
// starts no goroutine and has no clock: package publish drives it.
//
// The payload is Protocol Buffers (proto2, package org.eclipse.tahu.protobuf)
// with the published field numbers, see sparkplug.proto. It is written and
// read by hand: presence matters in it (seq 0, is_null), a data message is
// written without allocating, and the generated code with its run time would
// be larger than this package.
package sparkplug
