//go:build peers

package peertest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUsersAndCertificatesOfARunningGateway: what the commands change counts at
// once, for those who are connected too, without a restart.
func TestUsersAndCertificatesOfARunningGateway(t *testing.T) {
	sluice, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	users := in("users.yaml")
	for name, text := range map[string]string{"one": "first password\n", "two": "second password\n"} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command(t, sluice, "users", "--file", users, "add", "pump-1", "--password-file", in("one"), "--write", "lan/%u/#")
	g := startWith(t, "buffered", "  users: "+users+"\n  anonymous: false\n  client_certs: any\n  login: either\n", "tls://", "")
	command(t, sluice, "certs", "-c", g.site, "ca", "export", "-o", in("ca.pem"))
	command(t, sluice, "certs", "-c", g.site, "client", "tablet", "--out", dir)
	address := g.addresses["tls://"]
	// watch runs a subscriber that stays until it is sent away.
	watch := func(args ...string) chan error {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		t.Cleanup(cancel)
		args = append(at(t, address, args), "--cafile", in("ca.pem"), "-V", "5", "-t", "#", "-d")
		cmd := exec.CommandContext(ctx, "stdbuf", append([]string{"-oL", "mosquitto_sub"}, args...)...)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		subscribed, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			var text strings.Builder
			buffer := make([]byte, 1<<10)
			for told := false; ; {
				n, err := out.Read(buffer)
				text.Write(buffer[:n])
				if !told && strings.Contains(text.String(), "Subscribed (mid") {
					close(subscribed)
					told = true
				}
				if err != nil {
					break
				}
			}
			ended <- cmd.Wait()
		}()
		select {
		case <-subscribed:
		case err := <-ended:
			t.Fatalf("mosquitto_sub ended: %v\n%s", err, g.text())
		}
		return ended
	}
	sentAway := func(who string, ended chan error) {
		t.Helper()
		begin := time.Now()
		select {
		case <-ended:
			t.Logf("%s was sent away after %v", who, time.Since(begin).Round(time.Millisecond))
		case <-time.After(patience):
			t.Errorf("%s is connected still\n%s", who, g.text())
		}
	}
	try := func(want bool, args ...string) {
		t.Helper()
		args = append(at(t, address, args), "--cafile", in("ca.pem"), "-V", "5", "-q", "1", "-t", "lan/pump-1/x", "-m", "1")
		if out, err := exec.CommandContext(t.Context(), "mosquitto_pub", args...).CombinedOutput(); (err == nil) != want {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	tablet := []string{"--cert", in("tablet.crt"), "--key", in("tablet.key")}
	pump := watch("-u", "pump-1", "-P", "first password")
	panel := watch(tablet...)

	command(t, sluice, "users", "--file", users, "passwd", "pump-1", "--password-file", in("two"))
	try(false, "-u", "pump-1", "-P", "first password")
	try(true, "-u", "pump-1", "-P", "second password")
	command(t, sluice, "users", "--file", users, "remove", "pump-1")
	try(false, "-u", "pump-1", "-P", "second password")
	sentAway("a user who was removed", pump)

	try(true, tablet...)
	command(t, sluice, "certs", "-c", g.site, "revoke", "tablet")
	try(false, tablet...)
	sentAway("a certificate that was revoked", panel)
	try(false)
}
