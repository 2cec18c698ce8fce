package publish

import (
	"bufio"
	"bytes"
	"crypto/md5" //nolint:gosec // some brokers store and compare the MD5 of the password
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"sluice/configs"
)

// password reads the secret that the configuration refers to, nil if it
// refers to none. Errors name the file or variable, never its content.
func (c *Config) password() ([]byte, error) {
	var secret []byte
	switch {
	case c.PasswordEnv != "":
		value, ok := os.LookupEnv(c.PasswordEnv)
		if !ok {
			return nil, fmt.Errorf("environment variable %s is not set", c.PasswordEnv)
		}
		secret = []byte(value)
	case c.PasswordFile != "":
		data, err := readSecret(c.PasswordFile)
		if err != nil {
			return nil, err
		}
		secret = firstLine(data)
	default:
		return nil, nil
	}
	if len(secret) == 0 {
		return nil, errors.New("the password is empty")
	}
	if len(secret) > 65535 { // [MQTT-1.5.3]: length fields have 16 bits
		return nil, errors.New("the password is longer than 65535 bytes")
	}
	if c.PasswordHash == "md5" {
		sum := md5.Sum(secret)
		secret = []byte(hex.EncodeToString(sum[:]))
	}
	return secret, nil
}

// readSecret reads a small file that only its owner may read.
func readSecret(path configs.Path) ([]byte, error) {
	name := string(path)
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others can read it; chmod 0600", name, perm)
	}
	if info.Size() > 1<<20 {
		return nil, fmt.Errorf("%s is larger than a secret can be", name)
	}
	return os.ReadFile(name)
}

func firstLine(data []byte) []byte {
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, len(data)+1)
	if !scanner.Scan() {
		return nil
	}
	return bytes.TrimSuffix(scanner.Bytes(), []byte("\r"))
}
