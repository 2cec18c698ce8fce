package publish

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
)

// ClientID makes a client id of four parts: prefix, site, machine and name of
// the connection. It is the same after every restart and differs between
// machines. The machine id goes in as a hash, because it must not be
// published (machine-id(5)). Characters other than letters, digits, - and _
// become -.
func ClientID(prefix, site, machineID, name string) string {
	sum := sha256.Sum256([]byte("sluice client id\x00" + machineID))
	id := strings.Join([]string{prefix, site, hex.EncodeToString(sum[:4]), name}, "-")
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, strings.Trim(id, "-"))
}

// MachineID returns what identifies this machine: /etc/machine-id, the D-Bus
// one, or, on routers that have neither, the hardware addresses of its network
// interfaces. The error means that none was found.
func MachineID() (string, error) {
	for _, file := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if data, err := os.ReadFile(file); err == nil && len(bytes.TrimSpace(data)) >= 16 {
			return string(bytes.TrimSpace(data)), nil
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	slices.SortFunc(interfaces, func(a, b net.Interface) int { return cmp.Compare(a.Name, b.Name) })
	for _, i := range interfaces {
		// Locally administered addresses are made up at every boot.
		if len(i.HardwareAddr) == 6 && i.HardwareAddr[0]&2 == 0 && !bytes.Equal(i.HardwareAddr, make([]byte, 6)) {
			return i.HardwareAddr.String(), nil
		}
	}
	return "", errors.New("the machine has neither /etc/machine-id nor a network interface with an address of its own")
}
