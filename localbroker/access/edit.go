package access

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"go.yaml.in/yaml/v3"

	"sluice/localbroker/certs"
)

// ErrNoUser: there is no user of that name.
var ErrNoUser = errors.New("no such user")

// ErrUserExists: there is a user of that name already.
var ErrUserExists = errors.New("the user exists already")

// ErrChanged: somebody else has changed the users file since Edit. Nothing was
// saved; begin again with Edit.
var ErrChanged = errors.New("somebody else has changed the users file meanwhile")

// Entry is a user of a users file as it is listed and added.
type Entry struct {
	Name         string   `json:"name" yaml:"name"`
	Hash         string   `json:"-" yaml:"password"`
	Admin        bool     `json:"admin" yaml:"admin,omitempty"`
	Read         []string `json:"read" yaml:"read,omitempty,flow"`
	Write        []string `json:"write" yaml:"write,omitempty,flow"`
	ClientIDs    []string `json:"client_ids" yaml:"client_ids,omitempty,flow"`
	Certificates []string `json:"certificates" yaml:"certificates,omitempty,flow"`
}

// Editor changes a users file and leaves alone what it need not change, comments
// included. It is used by one goroutine.
type Editor struct {
	path string
	read []byte // what the file held; nil: there was none
	doc  yaml.Node
}

// Edit reads a users file to change it. One that does not exist counts as empty.
// Errors: those of LoadUsers.
func Edit(path string) (*Editor, error) {
	data, err := readIfThere(path)
	if err != nil {
		return nil, err
	}
	e := &Editor{path: path, read: data}
	if data == nil {
		data = []byte("users: []\n")
	}
	if _, err := parseUsers(data); err != nil {
		return nil, fmt.Errorf("users file %s: %w", path, err)
	}
	if err := yaml.Unmarshal(data, &e.doc); err != nil {
		return nil, fmt.Errorf("users file %s: %w", path, err)
	}
	return e, nil
}

// readIfThere is readPrivate, but for a file that does not exist nil.
func readIfThere(path string) ([]byte, error) {
	data, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Users returns the users in the order of the file.
func (e *Editor) Users() ([]Entry, error) {
	var file struct{ Users []Entry }
	err := e.doc.Decode(&file)
	return file.Users, err
}

// Add adds a user. Errors: ErrUserExists, or what is wrong with it.
func (e *Editor) Add(u Entry) error {
	if e.find(u.Name) != nil {
		return fmt.Errorf("%q: %w", u.Name, ErrUserExists)
	}
	var node yaml.Node
	if err := node.Encode(u); err != nil {
		return err
	}
	list := e.list()
	list.Style &^= yaml.FlowStyle // a list in brackets goes on in lines
	list.Content = append(list.Content, &node)
	return nil
}

// SetHash changes the password of a user. ErrNoUser if there is none.
func (e *Editor) SetHash(name, hash string) error {
	entry := e.find(name)
	if entry == nil {
		return fmt.Errorf("%q: %w", name, ErrNoUser)
	}
	value := value(entry, "password")
	value.SetString(hash)
	return nil
}

// Remove takes a user out. ErrNoUser if there is none.
func (e *Editor) Remove(name string) error {
	entry := e.find(name)
	if entry == nil {
		return fmt.Errorf("%q: %w", name, ErrNoUser)
	}
	list := e.list()
	list.Content = slices.DeleteFunc(list.Content, func(n *yaml.Node) bool { return n == entry })
	return nil
}

// Save replaces the file, mode 0600, of the same owner. Errors: ErrChanged, what
// LoadUsers would find; then nothing has changed.
func (e *Editor) Save() error {
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(&e.doc); err != nil {
		return err
	}
	if _, err := parseUsers(b.Bytes()); err != nil {
		return err
	}
	now, err := readIfThere(e.path)
	if err != nil {
		return err
	}
	if (now == nil) != (e.read == nil) || !bytes.Equal(now, e.read) {
		return fmt.Errorf("%s: %w", e.path, ErrChanged)
	}
	return certs.WriteFile(e.path, b.Bytes())
}

// list returns the list of users, and makes it if there is none.
func (e *Editor) list() *yaml.Node {
	root := e.doc.Content[0] // parseUsers has found a mapping
	list := value(root, "users")
	if list == nil {
		list = &yaml.Node{Kind: yaml.SequenceNode}
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "users"}, list)
	}
	if list.Kind != yaml.SequenceNode { // no value
		*list = yaml.Node{Kind: yaml.SequenceNode}
	}
	return list
}

// find returns the entry of a user, nil for none.
func (e *Editor) find(name string) *yaml.Node {
	for _, entry := range e.list().Content {
		if n := value(entry, "name"); n != nil && n.Value == name {
			return entry
		}
	}
	return nil
}

// value returns the value of a key in a mapping, nil for none.
func value(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}
