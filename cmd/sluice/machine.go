package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sluice/publish"
)

// machineID returns what tells this machine from others in client ids. In a
// container that has neither machine id nor a network address of its own it is
// a random text, made once and kept in the data folder.
func machineID(dir string) (string, error) {
	if id, err := publish.MachineID(); err == nil {
		return id, nil
	}
	return keptID(filepath.Join(dir, "machine-id"))
}

// keptID returns the text in file, and makes both if there is none.
func keptID(file string) (string, error) {
	data, err := os.ReadFile(file)
	if id := strings.TrimSpace(string(data)); err == nil && len(id) >= 16 {
		return id, nil
	}
	id := rand.Text()
	if err := writeDurably(file, []byte(id+"\n")); err != nil {
		return "", fmt.Errorf("keep the identity of this machine: %w", err)
	}
	return id, nil
}

// writeDurably replaces file as a whole; after a power cut it holds either the
// old or the new text.
func writeDurably(file string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	folder, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
