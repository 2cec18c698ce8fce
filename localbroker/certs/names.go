package certs

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// LocalNames returns under which names and addresses this host is reached: its
// host name, short, whole and with ".local" (multicast DNS), "localhost", and the
// addresses of its interfaces but link-local ones and the changing addresses of
// IPv6 privacy (RFC 8981).
func LocalNames() ([]string, error) {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil && host != "" {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		short, _, _ := strings.Cut(host, ".")
		names = append(names, host, short, short+".local")
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this host: %w", err)
	}
	// Without the file there is no IPv6, or another system than Linux.
	flags, _ := os.ReadFile("/proc/net/if_inet6")
	temporary := temporaryAddresses(string(flags))
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue // no IP network
		}
		addr := prefix.Addr().Unmap().WithZone("")
		if addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr.IsMulticast() || temporary[addr] {
			continue
		}
		names = append(names, addr.String())
	}
	return names, nil
}

// temporaryAddresses finds the addresses with IFA_F_TEMPORARY (0x01) in text of
// the form of /proc/net/if_inet6: address, interface, prefix, scope, flags, name.
func temporaryAddresses(text string) map[netip.Addr]bool {
	found := make(map[netip.Addr]bool)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 6 || len(fields[0]) != 32 {
			continue
		}
		flags, err := strconv.ParseUint(fields[4], 16, 32)
		if err != nil || flags&0x01 == 0 {
			continue
		}
		var groups []string
		for group := range slices.Chunk([]byte(fields[0]), 4) {
			groups = append(groups, string(group))
		}
		if addr, err := netip.ParseAddr(strings.Join(groups, ":")); err == nil {
			found[addr] = true
		}
	}
	return found
}

// hostName is a DNS name, with "*" allowed as its first label.
var hostName = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// CheckName reports whether text is a name or address that a server certificate
// may carry.
func CheckName(text string) error {
	if _, err := netip.ParseAddr(text); err == nil {
		return nil
	}
	if len(text) > 253 || !hostName.MatchString(strings.ToLower(text)) {
		return fmt.Errorf("%q is no host name or IP address", text)
	}
	return nil
}

// normalNames sorts names, drops repeats and what no certificate can carry.
func normalNames(names []string) []string {
	var out []string
	for _, name := range names {
		name = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
		if addr, err := netip.ParseAddr(name); err == nil {
			name = addr.Unmap().WithZone("").String()
		} else if CheckName(name) != nil {
			continue
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// splitNames returns the host names and the addresses among names.
func splitNames(names []string) (hosts []string, addrs []net.IP) {
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			addrs = append(addrs, net.IP(addr.AsSlice()))
		} else {
			hosts = append(hosts, name)
		}
	}
	return hosts, addrs
}
