// Package peertest holds tests of the Modbus side against programs of others:
// the link reads from servers built on libmodbus and pymodbus, and the
// simulator answers the client mbpoll. It has no code of its own.
//
// The tests have the build tag peers and need the Debian packages libmodbus-dev,
// mbpoll, socat, gcc and python3-venv; pymodbus is installed into a temporary
// directory by pip.
package peertest
