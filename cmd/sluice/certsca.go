package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sluice/localbroker/certs"
)

// caResult is the authority in --json.
type caResult struct {
	certResult
	CanSign bool   `json:"can_sign"`
	Folder  string `json:"folder"`
}

func newCAResult(s *certs.Store, ca *certs.Authority) result {
	data := caResult{newCertResult(ca.Cert()), ca.CanSign(), s.Dir()}
	return result{data: data, human: func(w io.Writer) error {
		key := "here: certificates can be issued"
		if !data.CanSign {
			key = "not here: no certificates can be issued"
		}
		return errors.Join(data.print(w), line(w, "private key", key), line(w, "folder", data.Folder))
	}}
}

func (k *certsCommands) caCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ca",
		Short: "The certificate authority: show, create, import, export",
		Long:  "The certificate authority. Without a command below it is shown, and made if there is none.",
		Args:  cobra.NoArgs,
		RunE:  k.do(showCA),
	}
	c.AddCommand(&cobra.Command{Use: "show", Short: "Show the authority; make it if there is none", Args: cobra.NoArgs, RunE: k.do(showCA)},
		k.caCreateCommand(), k.caImportCommand(), k.caExportCommand())
	return c
}

func showCA(s *certs.Store, _ []string) (result, error) {
	ca, err := s.EnsureCA()
	if err != nil {
		return result{}, err
	}
	return newCAResult(s, ca), nil
}

func (k *certsCommands) caCreateCommand() *cobra.Command {
	c := &cobra.Command{Use: "create", Short: "Make an authority, valid for 20 years", Args: cobra.NoArgs}
	replace := c.Flags().Bool("replace", false, "replace the one there is; its client certificates are no longer let in")
	c.RunE = k.do(func(s *certs.Store, _ []string) (result, error) {
		ca, err := s.CreateCA(*replace)
		if err != nil {
			return result{}, exists(err, "show it with: sluice certs ca show; to replace it, which shuts out the clients it has certified, add --replace")
		}
		return newCAResult(s, ca), nil
	})
	return c
}

func (k *certsCommands) caImportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Take an authority that was made elsewhere, with its key or without",
		Long: "Take an authority that was made elsewhere: PEM, or PKCS #12 with --password-file. Without its key its client\n" +
			"certificates are let in, but none can be issued here, and the broker's own certificate is signed by itself.",
		Args: cobra.ExactArgs(1),
	}
	var flags bundleFlags
	flags.add(c, "replace the one there is; its client certificates are no longer let in")
	c.RunE = k.do(func(s *certs.Store, args []string) (result, error) {
		bundle, err := flags.read(args[0])
		if err != nil {
			return result{}, err
		}
		ca, err := s.ImportCA(bundle, flags.replace)
		if err != nil {
			return result{}, exists(inFile(args[0], err), "to replace it, which shuts out the clients it has certified, add --replace")
		}
		return newCAResult(s, ca), nil
	})
	return c
}

func (k *certsCommands) caExportCommand() *cobra.Command {
	c := &cobra.Command{Use: "export", Short: "Write the certificate of the authority as PEM, without its key", Args: cobra.NoArgs}
	out := outFlag(c)
	c.RunE = k.do(func(s *certs.Store, _ []string) (result, error) {
		ca, err := s.EnsureCA()
		if err != nil {
			return result{}, err
		}
		return export(*out, ca.PEM())
	})
	return c
}

// serverResult is the server certificate in --json.
type serverResult struct {
	certResult
	Imported bool `json:"imported"`
}

func newServerResult(s *certs.Store, cert *certResult) result {
	data := serverResult{*cert, s.Imported()}
	return result{data: data, human: func(w io.Writer) error {
		source := "made here, renewed by itself"
		if data.Imported {
			source = "imported; import its successor before it ends"
		}
		return errors.Join(data.print(w), line(w, "source", source))
	}}
}

func (k *certsCommands) serverCommand() *cobra.Command {
	show := func(s *certs.Store, _ []string) (result, error) {
		cert, err := s.Server(nil)
		if cert.Leaf == nil {
			return result{}, err
		}
		data := newCertResult(cert.Leaf)
		return newServerResult(s, &data), err
	}
	c := &cobra.Command{
		Use:   "server",
		Short: "The certificate of the broker: show, create, import, export",
		Long:  "The certificate of the broker. Without a command below it is shown, and made or renewed if it is due.",
		Args:  cobra.NoArgs,
		RunE:  k.do(show),
	}
	export := &cobra.Command{Use: "export", Short: "Write the certificate of the broker as PEM, without its key", Args: cobra.NoArgs}
	out := outFlag(export)
	export.RunE = k.do(func(s *certs.Store, _ []string) (result, error) { return exportServer(s, *out) })
	c.AddCommand(&cobra.Command{Use: "show", Short: "Show it; make or renew it if it is due", Args: cobra.NoArgs, RunE: k.do(show)},
		k.serverCreateCommand(), k.serverImportCommand(), export)
	return c
}

func exportServer(s *certs.Store, out string) (result, error) {
	cert, err := s.Server(nil)
	if cert.Leaf == nil {
		return result{}, err
	}
	r, writeErr := export(out, certs.ServerPEM(&cert))
	return r, errors.Join(err, writeErr)
}

func (k *certsCommands) serverCreateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "create",
		Short: "Make the certificate of the broker anew, with further names",
		Long: "Make the certificate of the broker anew. It carries the names and addresses of this host, and those of --name,\n" +
			"which are kept for its renewals in the place of those given before.",
		Args: cobra.NoArgs,
	}
	names := c.Flags().StringSlice("name", nil, "further host name or address; may be repeated")
	replace := c.Flags().Bool("replace", false, "set aside the one that was imported")
	c.RunE = k.do(func(s *certs.Store, _ []string) (result, error) {
		for _, name := range *names {
			if err := certs.CheckName(name); err != nil {
				return result{}, fail(exitUsage, err, "write it as gw.example or 192.168.1.7, without port")
			}
		}
		cert, err := s.CreateServer(*names, *replace)
		if cert.Leaf == nil {
			return result{}, exists(err, "an imported certificate is in use; to set it aside add --replace")
		}
		data := newCertResult(cert.Leaf)
		return newServerResult(s, &data), err
	})
	return c
}

func (k *certsCommands) serverImportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Take a certificate of the broker that was made elsewhere, with its key",
		Args:  cobra.ExactArgs(1),
	}
	var flags bundleFlags
	flags.add(c, "set aside the one that was imported before")
	c.RunE = k.do(func(s *certs.Store, args []string) (result, error) {
		bundle, err := flags.read(args[0])
		if err != nil {
			return result{}, err
		}
		cert, err := s.ImportServer(bundle, flags.replace)
		if err != nil {
			return result{}, exists(inFile(args[0], err), "to set it aside add --replace")
		}
		data := newCertResult(cert.Leaf)
		return newServerResult(s, &data), nil
	})
	return c
}

// outFlag adds the flag of commands that write a file.
func outFlag(c *cobra.Command) *string {
	return c.Flags().StringP("out", "o", "", "file to write, which must not exist; without it the output")
}

// exportResult is what was exported in --json.
type exportResult struct {
	File string `json:"file,omitempty"`
	PEM  string `json:"pem,omitempty"`
}

// export writes data to a new file, or returns it if none is named.
func export(file string, data []byte) (result, error) {
	if file == "" {
		return result{data: exportResult{PEM: string(data)}, human: func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		}}, nil
	}
	if err := certs.WriteNewFile(file, data); err != nil {
		return result{}, exists(err, "name another file, or remove that one")
	}
	return result{data: exportResult{File: file}, human: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "written: %s\n", file)
		return err
	}}, nil
}
