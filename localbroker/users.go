package localbroker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/bcrypt"

	"sluice/configs"
)

// maxUsersFile bounds the users file, in bytes.
const maxUsersFile = 1 << 20

// user is one entry of the users file.
type user struct {
	Name string `yaml:"name"`
	// Password is a bcrypt hash, as `htpasswd -nB` makes it.
	Password string `yaml:"password"`
	// Admin may read everything, $SYS included, and publish everywhere but
	// under $ and on the topics of the points.
	Admin bool `yaml:"admin"`
	// Read holds further topic filters besides the points and the LAN
	// messages; Write those under which the user may publish, none if empty.
	Read  []string `yaml:"read"`
	Write []string `yaml:"write"`
}

// usersFile is the users file as a whole.
type usersFile struct {
	Users []user `yaml:"users"`
}

// loadUsers reads the users file. Errors say what is wrong with the file and,
// for an entry, whose it is; never a hash.
func loadUsers(path configs.Path) (map[string]*user, error) {
	data, err := readPrivate(string(path))
	if err != nil {
		return nil, err
	}
	var file usersFile
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("users file %s: %w", path, err)
	}
	if len(file.Users) == 0 {
		return nil, fmt.Errorf("users file %s names no user", path)
	}
	users := make(map[string]*user, len(file.Users))
	for i := range file.Users {
		u := &file.Users[i]
		if err := u.check(); err != nil {
			return nil, fmt.Errorf("users file %s: user %d (%q): %w", path, i+1, u.Name, err)
		}
		if users[u.Name] != nil {
			return nil, fmt.Errorf("users file %s: user %q stands in it twice", path, u.Name)
		}
		users[u.Name] = u
	}
	return users, nil
}

// readPrivate reads a file that only its owner may read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o and can be read by others: chmod 600", path, mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxUsersFile+1))
	if err == nil && len(data) > maxUsersFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxUsersFile)
	}
	return data, err
}

// check reports what is wrong with an entry.
func (u *user) check() error {
	if u.Name == "" {
		return errors.New("it has no name")
	}
	if _, err := bcrypt.Cost([]byte(u.Password)); err != nil {
		return errors.New("its password is no bcrypt hash ($2a$… or $2y$…)")
	}
	for _, filter := range append(append([]string(nil), u.Read...), u.Write...) {
		if !filterValid(filter) {
			return fmt.Errorf("%q is no topic filter", filter)
		}
	}
	return nil
}
