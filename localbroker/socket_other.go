//go:build !unix

package localbroker

import "net"

// socket has no descriptor here: every connection is read and written through
// package net.
type socket struct{}

func (*socket) open(net.Conn, *buffers) bool    { return false }
func (*socket) read() ([]byte, int, error)      { return nil, 0, net.ErrClosed }
func (*socket) write([]byte) (n int, err error) { return 0, net.ErrClosed }
func (*socket) quiet() bool                     { return false }
