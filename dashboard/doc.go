// Package dashboard answers HTTP on loopback: whether the gateway is alive,
// what every stage does, the latest value of every point, and the same as
// Prometheus metrics. Snapshots of the stages come in through the Gateway
// interface, JSON and text go out. It changes nothing in the gateway, knows no
// login yet and therefore listens nowhere but on loopback.
package dashboard
