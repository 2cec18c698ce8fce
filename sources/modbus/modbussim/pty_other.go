//go:build !linux

package modbussim

import (
	"errors"
	"fmt"
)

// PTY is an RTU line on a pseudo-terminal. It exists on Linux only.
type PTY struct{}

// OpenPTY returns an error that wraps errors.ErrUnsupported.
func (s *Server) OpenPTY(LineConfig) (*PTY, error) {
	return nil, fmt.Errorf("open pseudo-terminal: %w", errors.ErrUnsupported)
}

// OpenSerial returns an error that wraps errors.ErrUnsupported.
func (s *Server) OpenSerial(path string, _ LineConfig) error {
	return fmt.Errorf("open serial port %s: %w", path, errors.ErrUnsupported)
}

// Path returns "".
func (p *PTY) Path() string { return "" }

// Plug returns errors.ErrUnsupported.
func (p *PTY) Plug() error { return errors.ErrUnsupported }

// Unplug returns errors.ErrUnsupported.
func (p *PTY) Unplug() error { return errors.ErrUnsupported }
