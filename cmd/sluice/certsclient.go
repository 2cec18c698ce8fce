package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sluice/localbroker/certs"
)

// clientFlags are those of `sluice certs client`.
type clientFlags struct {
	p12, password, out string
	days               int
	legacy, another    bool
}

// clientResult is a new client certificate in --json.
type clientResult struct {
	certResult
	Files []string `json:"files"`
}

func (k *certsCommands) clientCommand() *cobra.Command {
	var f clientFlags
	c := &cobra.Command{
		Use:   "client NAME",
		Short: "Issue the certificate of a client",
		Long: "Issue the certificate of a client, which is authorised with that. It writes NAME.crt, NAME.key and NAME-ca.crt,\n" +
			"or with --p12 one PKCS #12 file with all three. The key is kept nowhere else: bring it to the client, and\n" +
			"remove it here.",
		Args: cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&f.p12, "p12", "", "write this PKCS #12 file in the place of PEM files")
	c.Flags().StringVar(&f.password, "password-file", "", "file with the password for --p12; made with a random one if there is none")
	c.Flags().BoolVar(&f.legacy, "legacy", false, "protect the PKCS #12 file in the old way: for macOS, and Windows before 2019")
	c.Flags().IntVar(&f.days, "days", int(certs.DefaultClientLife/(24*time.Hour)), "days until the certificate ends")
	c.Flags().StringVarP(&f.out, "out", "o", ".", "folder for the PEM files")
	c.Flags().BoolVar(&f.another, "another", false, "though the client has a certificate in force, which stays so")
	c.RunE = k.do(func(s *certs.Store, args []string) (result, error) { return f.issue(s, args[0]) })
	return c
}

// issue makes a client certificate and writes its files.
func (f *clientFlags) issue(s *certs.Store, name string) (result, error) {
	if err := certs.CheckClientName(name); err != nil {
		return result{}, fail(exitUsage, err, "choose a name such as pump-1")
	}
	const most = int(certs.MaxClientLife / (24 * time.Hour))
	switch {
	case f.days < 1 || f.days > most:
		return result{}, fail(exitUsage, fmt.Errorf("--days %d is out of its range", f.days), fmt.Sprintf("choose from 1 to %d", most))
	case (f.p12 == "") != (f.password == ""):
		return result{}, fail(exitUsage, errors.New("--p12 and --password-file belong together"), "name both files")
	}
	files := []string{f.p12}
	if f.p12 == "" {
		base := filepath.Join(f.out, name)
		files = []string{base + ".crt", base + ".key", base + "-ca.crt"}
	}
	for _, file := range files { // before anything is issued
		if _, err := os.Lstat(file); err == nil {
			return result{}, fail(exitUsage, fmt.Errorf("%s is there already", file), "remove it, or write elsewhere with --out or --p12")
		} else if !errors.Is(err, fs.ErrNotExist) {
			return result{}, err
		}
		if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
			return result{}, fail(exitUsage, fmt.Errorf("folder %s: %w", filepath.Dir(file), fs.ErrNotExist), "make the folder first")
		}
	}
	password, err := f.readPassword()
	if err != nil {
		return result{}, err
	}
	issued, err := s.Issue(name, time.Duration(f.days)*24*time.Hour, f.another)
	if err != nil {
		return result{}, exists(err, "revoke it with: sluice certs revoke NAME; or, to have both for a while, add --another")
	}
	if err := f.write(issued, password, files); err != nil {
		return result{}, fmt.Errorf("the certificate is issued, but its files are not written (sluice certs revoke %s): %w", name, err)
	}
	data := clientResult{newCertResult(issued.Cert), files}
	return result{data: data, human: func(w io.Writer) error {
		errs := []error{data.print(w)}
		for _, file := range files {
			errs = append(errs, line(w, "written", file))
		}
		return errors.Join(errs...)
	}}, nil
}

// readPassword returns the password for the PKCS #12 file; it makes the file
// with a random one if there is none.
func (f *clientFlags) readPassword() (string, error) {
	if f.password == "" {
		return "", nil
	}
	password, err := readPassword(f.password)
	if errors.Is(err, fs.ErrNotExist) {
		password = rand.Text()
		err = certs.WriteNewFile(f.password, []byte(password+"\n"))
	}
	return password, err
}

// write writes the files of a new certificate.
func (f *clientFlags) write(issued *certs.Issued, password string, files []string) error {
	if f.p12 != "" {
		data, err := issued.P12(password, f.legacy)
		if err != nil {
			return err
		}
		return certs.WriteNewFile(f.p12, data)
	}
	key, err := issued.KeyPEM()
	if err != nil {
		return err
	}
	for i, data := range [][]byte{issued.CertPEM(), key, issued.CAPEM()} {
		if err := certs.WriteNewFile(files[i], data); err != nil {
			return err
		}
	}
	return nil
}
