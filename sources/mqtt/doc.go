// Package mqtt is the source of points that others publish: values taken from
// MQTT messages of the local broker, or of a remote one that it connects to.
// Messages come in; samples with quality and reason go out, like those of a
// polled device. It never publishes anything, and never decides which message
// somebody may read.
package mqtt
