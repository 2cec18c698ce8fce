package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sluice/localbroker/certs"
)

func (k *certsCommands) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE|NAME|THUMBPRINT",
		Short: "Show what is in a PEM file, or a certificate of the list",
		Args:  cobra.ExactArgs(1), ValidArgsFunction: k.known,
		RunE: k.wrap(func(_ context.Context, args []string) (result, error) {
			r, err := k.show(args[0])
			return r, mend(err)
		}),
	}
}

// show describes a file, for which it needs no data folder, or entries.
func (k *certsCommands) show(text string) (result, error) {
	if info, err := os.Stat(text); err == nil && !info.IsDir() {
		return showFile(text)
	}
	s, err := k.store()
	if err != nil {
		return result{}, err
	}
	entries, err := s.Find(text)
	if err != nil {
		return result{}, err
	}
	return result{data: entries, human: func(w io.Writer) error {
		var errs []error
		for i := range entries {
			c := newCertResult(entries[i].Cert)
			errs = append(errs, c.print(w), line(w, "state", string(entries[i].State)))
		}
		return errors.Join(errs...)
	}}, nil
}

// showFile describes the certificates of a PEM file.
func showFile(file string) (result, error) {
	data, err := certs.ReadFile(file)
	if err != nil {
		return result{}, err
	}
	list, err := certs.ParseCerts(data)
	if err != nil {
		return result{}, inFile(file, err)
	}
	var found []certResult
	for _, cert := range list {
		found = append(found, newCertResult(cert))
	}
	return result{data: found, human: func(w io.Writer) error {
		var errs []error
		for i := range found {
			if i > 0 {
				_, err := fmt.Fprintln(w)
				errs = append(errs, err)
			}
			errs = append(errs, found[i].print(w))
		}
		return errors.Join(errs...)
	}}, nil
}

func (k *certsCommands) exportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "export [NAME|THUMBPRINT]",
		Short: "Write a certificate of the list, or the revocation list, as PEM",
		Args:  cobra.MaximumNArgs(1), ValidArgsFunction: k.known,
	}
	out := outFlag(c)
	crl := c.Flags().Bool("crl", false, "the revocation list of the authority (RFC 5280), good for 30 days")
	c.RunE = k.do(func(s *certs.Store, args []string) (result, error) {
		if *crl == (len(args) == 1) {
			return result{}, fail(exitUsage, errors.New("name a certificate, or give --crl"), "see what there is: sluice certs list")
		}
		if *crl {
			data, err := s.CRL()
			if err != nil {
				return result{}, err
			}
			return export(*out, data)
		}
		entries, err := s.Find(args[0])
		if err != nil {
			return result{}, err
		}
		var data []byte
		for i := range entries {
			data = append(data, entries[i].PEM()...)
		}
		return export(*out, data)
	})
	return c
}
