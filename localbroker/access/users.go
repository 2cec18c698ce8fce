package access

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/configs"
)

// maxUsersFile bounds the users file, in bytes.
const maxUsersFile = 1 << 20

// rule is what one entry of the users file allows.
type rule struct {
	// Admin may read everything, $SYS included, and publish everywhere but
	// under $ and on the topics of the points.
	Admin bool `yaml:"admin"`
	// Points is whether the points and the LAN messages may be read; left out
	// they may.
	Points *bool `yaml:"points"`
	// Read holds further topic filters; Write those under which may be
	// published, none if empty. %u, %c and %n stand for the name of the user, the
	// client identifier and the name of the certificate.
	Read  []string `yaml:"read"`
	Write []string `yaml:"write"`
	// ClientIDs holds the client identifiers that may be used, with * for any
	// text, and %u and %n; none for any.
	ClientIDs []string `yaml:"client_ids"`
}

// user is one entry of the list users.
type user struct {
	Name string `yaml:"name"`
	// Password is a hash as parseHash reads it.
	Password string `yaml:"password"`
	// Certificates holds the names of client certificates, with * for any
	// text, of which one must come with the password; none for no certificate.
	Certificates []string `yaml:"certificates"`
	rule         `yaml:",inline"`

	hash hash
}

// holder is one entry of the list certificates: what client certificates may
// whose login is their certificate. The first entry with their name counts.
type holder struct {
	Name string `yaml:"name"` // with * for any text
	rule `yaml:",inline"`
}

// Users is a users file. It is not changed.
type Users struct {
	users  map[string]*user
	certs  []holder
	unlike hash // for names that are not there
}

// LoadUsers reads a users file. Errors say what is wrong with the file and, for
// an entry, whose it is; never a hash.
func LoadUsers(path configs.Path) (*Users, error) {
	data, err := readPrivate(string(path))
	if err != nil {
		return nil, err
	}
	u, err := parseUsers(data)
	if err != nil {
		return nil, fmt.Errorf("users file %s: %w", path, err)
	}
	return u, nil
}

// parseUsers reads the content of a users file.
func parseUsers(data []byte) (*Users, error) {
	var file struct {
		Users        []user   `yaml:"users"`
		Certificates []holder `yaml:"certificates"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if file.Users == nil && file.Certificates == nil { // an empty list may be meant
		return nil, errors.New("it names neither a user nor a certificate")
	}
	u := &Users{users: make(map[string]*user, len(file.Users)), certs: file.Certificates}
	for i := range file.Users {
		entry := &file.Users[i]
		if err := entry.check(); err != nil {
			return nil, fmt.Errorf("user %d (%q): %w", i+1, entry.Name, err)
		}
		if u.users[entry.Name] != nil {
			return nil, fmt.Errorf("user %q stands in it twice", entry.Name)
		}
		u.users[entry.Name] = entry
		if u.unlike == nil || entry.hash.cost() > u.unlike.cost() {
			u.unlike = entry.hash.decoy()
		}
	}
	for i := range u.certs {
		entry := &u.certs[i]
		err := entry.rule.check()
		if entry.Name == "" {
			err = errors.New("it has no name")
		}
		if err != nil {
			return nil, fmt.Errorf("certificate %d (%q): %w", i+1, entry.Name, err)
		}
	}
	return u, nil
}

// check reports what is wrong with an entry, and reads its hash.
func (u *user) check() error {
	if err := CheckUserName(u.Name); err != nil {
		return err
	}
	var err error
	if u.hash, err = parseHash(u.Password); err != nil {
		return err
	}
	return u.rule.check()
}

// CheckUserName reports why a name cannot be that of a user.
func CheckUserName(name string) error {
	switch {
	case name == "":
		return errors.New("it has no name")
	case len(name) > 255:
		return errors.New("its name is longer than 255 bytes")
	case strings.HasPrefix(name, certOwner):
		return fmt.Errorf("a name may not begin with %q", certOwner)
	}
	return nil
}

// check reports what is wrong with the rights of an entry.
func (r *rule) check() error {
	for _, filter := range append(append([]string(nil), r.Read...), r.Write...) {
		if err := checkFilter(filter); err != nil {
			return err
		}
	}
	for _, pattern := range r.ClientIDs {
		if err := checkTokens(pattern); err != nil || strings.Contains(pattern, "%c") {
			return fmt.Errorf("%q is no pattern of client identifiers: * stands for any text, %%u for the user, %%n for the certificate", pattern)
		}
	}
	return nil
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

// entryOf returns the entry of a certificate's name, nil for none. u may be nil.
func (u *Users) entryOf(name string) *holder {
	if u == nil {
		return nil
	}
	for i := range u.certs {
		if like(u.certs[i].Name, name) {
			return &u.certs[i]
		}
	}
	return nil
}
