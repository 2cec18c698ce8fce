package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/localbroker/certs"
)

// certResult is a certificate in --json.
type certResult struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Names     []string  `json:"names,omitempty"`
	CA        bool      `json:"ca"`
	SHA256    string    `json:"sha256"`
	SHA1      string    `json:"sha1"`
}

func newCertResult(cert *x509.Certificate) certResult {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return certResult{cert.Subject.String(), cert.Issuer.String(), certs.Serial(cert), cert.NotBefore.UTC(), cert.NotAfter.UTC(),
		names, cert.IsCA, certs.SHA256(cert), certs.SHA1(cert)}
}

// line prints one line of a description.
func line(w io.Writer, name, value string) error {
	_, err := fmt.Fprintf(w, "%-12s %s\n", name, value)
	return err
}

// print describes the certificate for people.
func (c *certResult) print(w io.Writer) error {
	// A name in a certificate may hold anything, and the terminal must not obey it.
	errs := []error{line(w, "subject", plain(c.Subject)), line(w, "issuer", plain(c.Issuer)), line(w, "serial", c.Serial),
		line(w, "valid", c.NotBefore.Format(time.DateOnly)+" to "+c.NotAfter.Format(time.DateOnly))}
	if len(c.Names) > 0 {
		errs = append(errs, line(w, "names", plain(strings.Join(c.Names, ", "))))
	}
	return errors.Join(append(errs, line(w, "SHA-256", certs.Colons(c.SHA256)), line(w, "SHA-1", certs.Colons(c.SHA1)))...)
}

// plain replaces what is not printed in a text from elsewhere.
func plain(text string) string {
	quoted := fmt.Sprintf("%q", text)
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(quoted[1 : len(quoted)-1])
}

// entriesResult returns entries of the list as a result, or the error.
func entriesResult(entries []certs.Entry, err error) (result, error) {
	if err != nil {
		return result{}, err
	}
	return result{data: entries, human: func(w io.Writer) error {
		if len(entries) == 0 {
			_, err := fmt.Fprintln(w, "no client certificates; issue one with: sluice certs client NAME")
			return err
		}
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		_, err := fmt.Fprintln(table, "NAME\tSTATE\tENDS\tISSUED\tSHA-256")
		for i := range entries {
			e, issued := &entries[i], "elsewhere"
			if e.Issued {
				issued = "here"
			}
			_, rowErr := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", plain(e.Name), e.State, e.NotAfter.Format(time.DateOnly), issued, e.SHA256[:16])
			err = errors.Join(err, rowErr)
		}
		return errors.Join(err, table.Flush())
	}}, nil
}

func (k *certsCommands) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the client certificates with their state",
		Args:  cobra.NoArgs,
		RunE: k.do(func(s *certs.Store, _ []string) (result, error) {
			return entriesResult(s.List())
		}),
	}
}

// known completes the names of the list.
func (k *certsCommands) known(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := k.store()
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	entries, err := s.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var names []string
	for i := range entries {
		names = append(names, entries[i].Name+"\t"+string(entries[i].State))
	}
	return names, cobra.ShellCompDirectiveDefault // files too
}

// certOf returns the first certificate of a file, if text names one.
func certOf(text string) (*x509.Certificate, bool, error) {
	if info, err := os.Stat(text); err != nil || info.IsDir() {
		return nil, false, nil // a name or a thumbprint, then
	}
	data, err := certs.ReadFile(text)
	if err != nil {
		return nil, true, err
	}
	list, err := certs.ParseCerts(data)
	if err != nil {
		return nil, true, inFile(text, err)
	}
	return list[0], true, nil
}

func (k *certsCommands) authoriseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "authorise NAME|THUMBPRINT|FILE",
		Short: "Let in a client where only authorised ones are",
		Long: "Authorise a client certificate of the list, or one of a PEM file that was issued elsewhere. It matters where the\n" +
			"broker lets in only authorised clients.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: k.known,
	}
	name := c.Flags().String("name", "", "name for a certificate from a file; without it, its common name")
	withdraw := c.Flags().Bool("withdraw", false, "take the authorisation back; unlike a revocation this can be undone")
	c.RunE = k.do(func(s *certs.Store, args []string) (result, error) {
		text := args[0]
		if found, err := s.Find(text); err == nil && len(found) > 0 {
			return entriesResult(s.SetAuthorised(text, !*withdraw))
		}
		cert, isFile, err := certOf(text)
		switch {
		case err != nil:
			return result{}, err
		case isFile && *withdraw:
			return entriesResult(s.SetAuthorised(certs.SHA256(cert), false))
		case isFile:
			entry, err := s.Authorise(cert, *name)
			return entriesResult([]certs.Entry{entry}, err)
		}
		return entriesResult(s.SetAuthorised(text, !*withdraw))
	})
	return c
}

func (k *certsCommands) revokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME|THUMBPRINT|FILE",
		Short: "Refuse a client certificate for ever",
		Long:  "Refuse client certificates for ever: all of a name, one by its thumbprint, or one of a PEM file, known or not.",
		Args:  cobra.ExactArgs(1), ValidArgsFunction: k.known,
		RunE: k.do(func(s *certs.Store, args []string) (result, error) {
			entries, err := s.Revoke(args[0])
			if !errors.Is(err, certs.ErrNone) {
				return entriesResult(entries, err)
			}
			cert, isFile, fileErr := certOf(args[0])
			if fileErr != nil || !isFile {
				return result{}, errors.Join(fileErr, err)
			}
			if err := s.RevokeCert(cert, ""); err != nil {
				return result{}, err
			}
			data := newCertResult(cert)
			return result{data: data, human: func(w io.Writer) error {
				return errors.Join(data.print(w), line(w, "state", string(certs.Revoked)))
			}}, nil
		}),
	}
}

func (k *certsCommands) pinCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "pin FILE",
		Short: "Let in a client certificate that no authority vouches for",
		Long: "Put the first certificate of a PEM file on the list as pinned. It is let in where the broker takes pinned\n" +
			"certificates, whoever issued it, until it ends or is revoked.",
		Args: cobra.ExactArgs(1),
	}
	name := c.Flags().String("name", "", "name on the list; without it, the common name of the certificate")
	c.RunE = k.do(func(s *certs.Store, args []string) (result, error) {
		cert, isFile, err := certOf(args[0])
		if err == nil && !isFile {
			err = fail(exitUsage, fmt.Errorf("%s is no file", args[0]), "name the file of the client's certificate as PEM")
		}
		if err != nil {
			return result{}, err
		}
		entry, err := s.Pin(cert, *name)
		return entriesResult([]certs.Entry{entry}, err)
	})
	return c
}

func (k *certsCommands) deleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME|THUMBPRINT",
		Short: "Take a client certificate from the list",
		Long: "Take client certificates from the list. Pinned ones are no longer let in; one that the authority has issued and\n" +
			"that is still valid has to be revoked first. Revoked ones stay revoked.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: k.known,
		RunE: k.do(func(s *certs.Store, args []string) (result, error) {
			entries, err := s.Delete(args[0])
			if err != nil {
				return result{}, err
			}
			return result{data: entries, human: func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "taken from the list: %d\n", len(entries))
				return err
			}}, nil
		}),
	}
}
