package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/localbroker/trace"
)

// brokerCommands is what the commands of `sluice broker` share.
type brokerCommands struct {
	*app
	folder
}

func (a *app) brokerCommand() *cobra.Command {
	k := &brokerCommands{app: a}
	c := &cobra.Command{
		Use:   "broker",
		Short: "The local broker at work: its clients, its messages",
		Long: "Asks the gateway that runs on this machine about its local broker, through a socket in the data folder. It\n" +
			"takes the user of the gateway, or root.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("a command is missing: see sluice broker --help")
		},
	}
	k.flags(c)
	c.AddCommand(k.clientsCommand(), k.traceCommand())
	return c
}

func (k *brokerCommands) clientsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clients",
		Short: "List the sessions of the local broker, connected or not",
		Args:  cobra.NoArgs,
		RunE:  k.wrap(func(ctx context.Context, _ []string) (result, error) { return k.clients(ctx) }),
	}
}

// clients asks for the state of the broker.
func (k *brokerCommands) clients(ctx context.Context) (result, error) {
	dir, _, err := k.find()
	if err != nil {
		return result{}, err
	}
	response, err := askControl(ctx, dir, http.MethodGet, "/v1/broker", nil)
	if err != nil {
		return result{}, err
	}
	var s brokerStatus
	err = json.NewDecoder(response.Body).Decode(&s)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return result{}, fmt.Errorf("read the answer of the gateway: %w", err)
	}
	return result{data: &s, human: func(w io.Writer) error { return s.print(w, time.Now()) }}, nil
}

// print writes the sessions for people.
func (s *brokerStatus) print(out io.Writer, now time.Time) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d connected, %s, %s, %s received, %s sent\n", s.Clients, count(s.Sessions, "session"),
		count(s.Subscriptions, "subscription"), count(int(s.Received), "message"), count(int(s.Sent), "message"))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if len(s.Table) > 0 {
		fmt.Fprintln(w, "\n  client\tuser\tfrom\tversion\tfor\tfilters\tqueued\tbehind\treceived\tsent\tdropped")
	}
	for i := range s.Table {
		c := &s.Table[i]
		from := c.Remote
		if !c.Connected {
			from = "away"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", quoted(c.ID), quoted(c.User), from, c.Version,
			span(now.Sub(c.Since)), c.Subscriptions, c.Queued, c.Behind, c.Received, c.Sent, c.Dropped)
	}
	_ = w.Flush() // a Buffer takes everything
	_, err := out.Write(b.Bytes())
	return err
}

// quoted returns what a client has chosen such that it cannot disturb a
// terminal.
func quoted(text string) string {
	if q := strconv.Quote(text); text == "" || q != `"`+text+`"` || strings.Contains(text, " ") {
		return q
	}
	return text
}

func (k *brokerCommands) traceCommand() *cobra.Command {
	cfg := trace.Config{}
	c := &cobra.Command{
		Use:   "trace",
		Short: "Show what clients of the local broker send and get, for a while",
		Long: "Show what clients of the local broker send and get, until the time is over or Ctrl-C. While it is on, every\n" +
			"message costs the gateway about 0.1 µs, and every line 5 µs; it shows at most --rate lines a second, counts\n" +
			"what it leaves out, and ends after 50,000 lines. Passwords are never shown; what is in messages only\n" +
			"with --payload.",
		Args: cobra.NoArgs,
		RunE: k.wrap(func(ctx context.Context, _ []string) (result, error) { return result{}, k.trace(ctx, cfg) }),
	}
	c.Flags().DurationVar(&cfg.For, "for", 10*time.Minute, "how long, at most 24h")
	c.Flags().StringVar(&cfg.Client, "client", "", "only this client id")
	c.Flags().StringVar(&cfg.Topic, "topic", "", "only topics under this filter")
	c.Flags().BoolVar(&cfg.Payload, "payload", false, "show the first 256 bytes of what is in messages")
	c.Flags().IntVar(&cfg.Rate, "rate", 100, "most lines a second, 1 to 10000")
	return c
}

// trace shows the message log until it ends; with --json a line of JSON each.
func (k *brokerCommands) trace(ctx context.Context, cfg trace.Config) error {
	dir, _, err := k.find()
	if err != nil {
		return err
	}
	body, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	response, err := askControl(ctx, dir, http.MethodPost, "/v1/broker/trace", bytes.NewReader(body))
	if err != nil {
		return err
	}
	k.reported = k.json
	lines, show := json.NewDecoder(response.Body), json.NewEncoder(k.out)
	for err == nil {
		var l trace.Line
		if err = lines.Decode(&l); err != nil {
			break
		}
		if k.json {
			err = show.Encode(&l)
		} else {
			_, err = io.WriteString(k.out, traceLine(&l))
		}
	}
	switch {
	case errors.Is(err, io.EOF) || ctx.Err() != nil:
		err = nil // it is over
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fail(exitInternal, errors.New("the gateway has ended"), "")
	}
	return errors.Join(err, response.Body.Close())
}

// traceLine writes a line for people.
func traceLine(l *trace.Line) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-11s", l.At.Local().Format("15:04:05.000"), l.Kind)
	word := func(format string, show bool, args ...any) {
		if show {
			fmt.Fprintf(&b, " "+format, args...)
		}
	}
	message := l.Kind == trace.Received || l.Kind == trace.Sent
	word("%s", l.Client != "" || message, quoted(l.Client))
	word("(%s)", l.User != "", quoted(l.User))
	word("from %s", l.Remote != "" && !message, l.Remote)
	word("%s", l.Topic != "", quoted(l.Topic))
	word("qos %d", message || l.Kind == trace.Subscribe, l.QoS)
	word("retain", l.Retain)
	word("dup", l.Dup)
	word("id %d", l.ID != 0, l.ID)
	word("%d bytes", message, l.Size)
	word("%q", l.Payload != "", l.Payload)
	word("%s", l.Text != "", l.Text)
	word("(%d left out before)", l.Skipped > 0, l.Skipped)
	return b.String() + "\n"
}
