// Package peertest holds tests of the local broker from outside: the program
// with the clients of others, and the broker with clients that mean it harm.
// It has no code of its own.
//
// Tests with the build tag peers need the Debian packages mosquitto-clients,
// python3-venv, chromium, libnss3-tools and util-linux, and Node with npm; what
// else they need is installed into a temporary directory by pip and npm. Those with the tag
// interop need a copy of the public interoperability suite as well, which is
// not part of this repository: see docs/interop.md.
package peertest
