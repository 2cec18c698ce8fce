package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sluice/localbroker/certs"
	"sluice/publish"
)

// certsCommands is what the commands of `sluice certs` share.
type certsCommands struct {
	*app
	folder
}

func (a *app) certsCommand() *cobra.Command {
	k := &certsCommands{app: a}
	c := &cobra.Command{
		Use:   "certs",
		Short: "Certificates of the local broker: authority, server, clients",
		Long: "Certificates of the local broker. The gateway has a certificate authority of its own, made when it is first\n" +
			"needed; it issues the certificate of the broker and those of clients. The files lie in the folder certs of\n" +
			"the data folder. What a command changes counts at once.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("a command is missing: see sluice certs --help")
		},
	}
	k.flags(c)
	c.AddCommand(k.caCommand(), k.serverCommand(), k.clientCommand(), k.listCommand(), k.authoriseCommand(),
		k.revokeCommand(), k.pinCommand(), k.deleteCommand(), k.showCommand(), k.exportCommand())
	return c
}

// store returns the certificates of the data folder.
func (k *certsCommands) store() (*certs.Store, error) {
	dir, name, err := k.find()
	if err != nil {
		return nil, err
	}
	return certStore(dir, name), nil
}

// certStore returns the certificates of a data folder.
func certStore(dir, site string) *certs.Store {
	name := site
	if host, err := os.Hostname(); err == nil {
		name = strings.TrimSpace(site + " " + host)
	}
	return certs.New(certs.Config{Dir: filepath.Join(dir, "certs"), Name: name, Build: publish.BuildTime()})
}

// certs returns the certificates of the local broker.
func (s *site) certs() *certs.Store { return certStore(s.Buffer.Dir, s.model.Name) }

// do makes the action of a command from one that works on the store.
func (k *certsCommands) do(run func(s *certs.Store, args []string) (result, error)) func(*cobra.Command, []string) error {
	return k.wrap(func(_ context.Context, args []string) (result, error) {
		s, err := k.store()
		if err != nil {
			return result{}, err
		}
		r, err := run(s, args)
		return r, mend(err)
	})
}

// mend gives an error of the store its exit code and remedy.
func mend(err error) error {
	var format *certs.FormatError
	var known *failure
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.As(err, &format):
		return fail(exitUsage, err, format.Fix)
	case errors.Is(err, certs.ErrNoKey):
		return fail(exitUsage, err, "issue it where the key is, or import the key: sluice certs ca import FILE --key FILE --replace")
	case errors.Is(err, certs.ErrValid):
		return fail(exitUsage, err, "revoke it first: sluice certs revoke NAME")
	case errors.Is(err, certs.ErrRevoked):
		return fail(exitUsage, err, "issue a new one: sluice certs client NAME")
	case errors.Is(err, certs.ErrNone):
		return fail(exitUsage, err, "see what there is: sluice certs list")
	case errors.Is(err, fs.ErrNotExist):
		return fail(exitUsage, err, "correct the name of the file")
	case errors.Is(err, fs.ErrPermission):
		return fail(exitPermission, err, "run the command as the user of the gateway, or with sudo")
	}
	return err
}

// exists gives ErrExists its remedy.
func exists(err error, fix string) error {
	if errors.Is(err, certs.ErrExists) {
		return fail(exitUsage, err, fix)
	}
	return err
}

// bundleFlags are the flags of commands that import.
type bundleFlags struct {
	key      string
	password string
	replace  bool
}

func (b *bundleFlags) add(c *cobra.Command, replaced string) {
	c.Flags().StringVar(&b.key, "key", "", "file with the private key as PEM, if it is not in FILE")
	c.Flags().StringVar(&b.password, "password-file", "", "file with the password of a PKCS #12 FILE")
	c.Flags().BoolVar(&b.replace, "replace", false, replaced)
}

// read returns what is in file.
func (b *bundleFlags) read(file string) (*certs.Bundle, error) {
	data, err := certs.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if b.password != "" {
		password, err := readPassword(b.password)
		if err != nil {
			return nil, err
		}
		bundle, err := certs.ParseP12(data, password)
		return bundle, inFile(file, err)
	}
	bundle, err := certs.Parse(data)
	if err != nil {
		return nil, inFile(file, err)
	}
	if len(bundle.Certs) == 0 {
		_, err := certs.ParseCerts(data)
		return nil, inFile(file, err)
	}
	if b.key != "" {
		data, err := certs.ReadFile(b.key)
		if err != nil {
			return nil, err
		}
		if bundle.Key, err = certs.ParseKey(data); err != nil {
			return nil, inFile(b.key, err)
		}
	}
	return bundle, nil
}

// inFile says which file an error is about.
func inFile(file string, err error) error {
	var format *certs.FormatError
	if errors.As(err, &format) {
		return fail(exitUsage, fmt.Errorf("%s: %w", file, err), strings.ReplaceAll(format.Fix, "FILE", file))
	}
	return err
}

// readPassword returns the first line of a file that only its owner may read.
func readPassword(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fail(exitUsage, fmt.Errorf("password file %s has mode %04o and can be read by others", file, mode), "chmod 600 "+file)
	}
	data, err := certs.ReadFile(file)
	if err != nil {
		return "", err
	}
	password, _, _ := strings.Cut(string(data), "\n")
	if password = strings.TrimRight(password, "\r"); password == "" {
		return "", fail(exitUsage, fmt.Errorf("password file %s: its first line is empty", file), "write the password into its first line")
	}
	return password, nil
}
