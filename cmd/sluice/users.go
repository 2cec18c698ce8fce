package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/configs"
	"sluice/localbroker"
	"sluice/localbroker/access"
)

// usersCommands is what the commands of `sluice users` share.
type usersCommands struct {
	*app
	config   string // site file
	file     string // users file; empty: that of the site file
	password string // file with the password; empty: it is asked for
	in       *os.File
}

func (a *app) usersCommand() *cobra.Command {
	k := &usersCommands{app: a, config: defaultSite, in: os.Stdin}
	c := &cobra.Command{
		Use:   "users",
		Short: "Users of the local broker: add, remove, list, change a password",
		Long: "Users of the local broker. The file is the one that the site file names as broker.users. It holds hashes\n" +
			"(argon2id), never a password. What a command changes counts at once; see docs/access.md for the rights.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("a command is missing: see sluice users --help")
		},
	}
	c.PersistentFlags().StringVarP(&k.config, "config", "c", k.config, "site file, which names the users file")
	c.PersistentFlags().StringVar(&k.file, "file", "", "users file, in the place of that of the site file")
	_ = c.MarkPersistentFlagFilename("config", "yaml", "yml") // fails only for a flag that is not there
	_ = c.MarkPersistentFlagFilename("file", "yaml", "yml")   // likewise
	c.AddCommand(k.addCommand(), k.passwordCommand(), k.removeCommand(), k.listCommand())
	return c
}

func (k *usersCommands) addCommand() *cobra.Command {
	var u access.Entry
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user",
		Long: "Add a user. The password is asked for, or read from the first line of --password-file (mode 0600) or of stdin.\n" +
			"Without --write the user publishes nothing; the points and the LAN messages may be read by all users.",
		Args: cobra.ExactArgs(1),
		RunE: k.change(func(e *access.Editor, name string) (string, error) {
			u.Name = name
			if err := access.CheckUserName(name); err != nil {
				return "", fail(exitUsage, err, "choose another name")
			}
			var err error
			if u.Hash, err = k.hash(name); err != nil {
				return "", err
			}
			return "added", e.Add(u)
		}),
	}
	k.passwordFlag(c)
	c.Flags().BoolVar(&u.Admin, "admin", false, "may read everything, $SYS included, and publish everywhere")
	c.Flags().StringSliceVar(&u.Read, "read", nil, "topic filter that may be read besides; can be repeated")
	c.Flags().StringSliceVar(&u.Write, "write", nil, "topic filter that may be published under; can be repeated")
	c.Flags().StringSliceVar(&u.ClientIDs, "client-id", nil, "client identifier that may be used, with * and %u; can be repeated")
	c.Flags().StringSliceVar(&u.Certificates, "certificate", nil, "name of a certificate that must come with the password; can be repeated")
	return c
}

func (k *usersCommands) passwordCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Change the password of a user",
		Args:  cobra.ExactArgs(1), ValidArgsFunction: k.known,
		RunE: k.change(func(e *access.Editor, name string) (string, error) {
			hash, err := k.hash(name)
			if err != nil {
				return "", err
			}
			return "new password for", e.SetHash(name, hash)
		}),
	}
	k.passwordFlag(c)
	return c
}

func (k *usersCommands) removeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a user out, and end its connections",
		Args:  cobra.ExactArgs(1), ValidArgsFunction: k.known,
		RunE: k.change(func(e *access.Editor, name string) (string, error) { return "removed", e.Remove(name) }),
	}
}

func (k *usersCommands) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the users and what they may",
		Args:  cobra.NoArgs,
		RunE: k.wrap(func(context.Context, []string) (result, error) {
			e, _, err := k.edit()
			if err != nil {
				return result{}, err
			}
			users, err := e.Users()
			return result{data: users, human: func(w io.Writer) error {
				var errs []error
				for _, u := range users {
					errs = append(errs, line(w, u.Name, rightsText(&u)))
				}
				return errors.Join(errs...)
			}}, err
		}),
	}
}

// rightsText says in one line what a user may.
func rightsText(u *access.Entry) string {
	if u.Admin {
		return "administrator"
	}
	var parts []string
	for _, p := range []struct {
		what    string
		entries []string
	}{{"reads", u.Read}, {"publishes", u.Write}, {"as client", u.ClientIDs}, {"with certificate", u.Certificates}} {
		if len(p.entries) > 0 {
			parts = append(parts, p.what+" "+strings.Join(p.entries, " "))
		}
	}
	if len(u.Write) == 0 {
		parts = append(parts, "publishes nothing")
	}
	return strings.Join(parts, "; ")
}

// passwordFlag adds the flag of commands that need a password, which is never
// an argument: others can see those.
func (k *usersCommands) passwordFlag(c *cobra.Command) {
	c.Flags().StringVar(&k.password, "password-file", "", "file with the password in its first line, mode 0600")
}

// change makes the action of a command that changes the entry of one user.
func (k *usersCommands) change(run func(e *access.Editor, name string) (done string, err error)) func(*cobra.Command, []string) error {
	return k.wrap(func(_ context.Context, args []string) (result, error) {
		e, file, err := k.edit()
		if err != nil {
			return result{}, err
		}
		done, err := run(e, args[0])
		if err == nil {
			err = e.Save()
		}
		var known *failure
		switch {
		case errors.As(err, &known):
			return result{}, err
		case errors.Is(err, access.ErrNoUser):
			return result{}, fail(exitUsage, err, "see who there is: sluice users list")
		case errors.Is(err, access.ErrUserExists):
			return result{}, fail(exitUsage, err, "change the password with sluice users passwd, or remove the user first")
		case errors.Is(err, access.ErrChanged):
			return result{}, fail(exitUsage, err, "nothing was changed; run the command again")
		case errors.Is(err, fs.ErrPermission):
			return result{}, fail(exitPermission, err, "run the command as the user of the gateway, or with sudo")
		case err != nil:
			return result{}, fail(exitUsage, err, "nothing was changed; see docs/access.md")
		}
		data := map[string]string{"user": args[0], "file": file}
		return result{data: data, human: func(w io.Writer) error { return line(w, done, args[0]+" in "+file) }}, nil
	})
}

// edit opens the users file, and returns its path.
func (k *usersCommands) edit() (*access.Editor, string, error) {
	file, err := k.path()
	if err != nil {
		return nil, "", err
	}
	e, err := access.Edit(file)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, "", fail(exitPermission, err, "run the command as the user of the gateway, or with sudo")
	case err != nil:
		return nil, "", fail(exitConfig, err, "mend the file first; see docs/access.md")
	}
	return e, file, nil
}

// path returns the path of the users file.
func (k *usersCommands) path() (string, error) {
	if k.file != "" {
		return k.file, nil
	}
	data, err := os.ReadFile(k.config)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", fail(exitPermission, err, "run the command as the user of the gateway, or with sudo")
	case err != nil:
		return "", fail(exitConfig, err, "name the site file with -c, or the users file with --file")
	}
	var file struct { // the other sections are the business of check
		Broker localbroker.Config `yaml:"broker"`
	}
	configs.Decode(k.config, data, &file)
	var paths []string
	add := func(path configs.Path) {
		if path != "" && !slices.Contains(paths, string(path)) {
			paths = append(paths, string(path))
		}
	}
	add(file.Broker.Users)
	for _, l := range file.Broker.Listen {
		add(l.Users)
	}
	switch len(paths) {
	case 0:
		return "", fail(exitConfig, fmt.Errorf("%s names no users file", k.config),
			"add it: broker: { users: "+filepath.Join(filepath.Dir(k.config), "users.yaml")+" }, or name the file with --file")
	case 1:
		return paths[0], nil
	}
	return "", fail(exitUsage, fmt.Errorf("%s names several users files", k.config), "choose one: --file "+strings.Join(paths, " or --file "))
}

// known completes names of users.
func (k *usersCommands) known(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	e, _, err := k.edit()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	users, _ := e.Users() // none to offer
	var names []string
	for _, u := range users {
		names = append(names, u.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// hash asks for a password and returns its hash.
func (k *usersCommands) hash(name string) (string, error) {
	var password string
	var err error
	switch {
	case k.password != "":
		password, err = readPassword(k.password)
	default:
		password, err = askPassword(k.in, k.errs, name)
	}
	if err != nil {
		return "", err
	}
	hash, err := access.HashPassword([]byte(password))
	if err != nil {
		return "", fail(exitUsage, err, "choose another password")
	}
	return hash, nil
}
