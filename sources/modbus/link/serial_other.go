//go:build !linux

package link

import "errors"

// openSerial fails: serial ports are supported on Linux.
func openSerial(*Config) (port, error) {
	return nil, errors.New("serial ports are supported on Linux only")
}

// Holders fails: it needs the /proc of Linux.
func Holders(string) ([]Holder, error) {
	return nil, errors.New("processes can be listed on Linux only")
}
