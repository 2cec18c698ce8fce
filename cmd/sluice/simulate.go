package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sluice/configs"
	"sluice/sources/modbus/modbussim"
)

// simulation is what to simulate and where.
type simulation struct {
	what      string // a profile, the file of one, or a dump
	tcp       []string
	rtuTCP    []string
	pty       bool
	symlink   string // that leads to the pseudo-terminal
	baud      int
	format    string
	units     []uint
	faults    []string
	singleTCP bool
}

func (a *app) simulateCommand() *cobra.Command {
	sim := simulation{}
	c := &cobra.Command{
		Use:   "simulate PROFILE|FILE",
		Short: "Simulate Modbus devices",
		Long: `Simulate devices of a profile, with values as a meter shows them, or of a dump file, until SIGINT:

  sluice simulate eastron-sdm630 --tcp 127.0.0.1:5020
  sluice simulate eastron-sdm120 --pty --baud 9600 --format 8N1 --unit 1 --unit 2
  sluice simulate values.dump --tcp 127.0.0.1:5020 --fault 'unit=1 input 0-9 exception 6 every 10'

A dump file has lines such as "holding 100 2300 -5", after lines such as "unit 3".
A fault is [unit=N] [TABLE [ADDR[-ADDR]]] FAULT [ARGUMENT] [every N|nth N|times N|rate 5%|seed N]; faults are
` + faultNames() + ".",
		Args: oneModel,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return profileNames(), cobra.ShellCompDirectiveDefault
		},
	}
	f := c.Flags()
	f.StringArrayVar(&sim.tcp, "tcp", nil, "Modbus TCP on host:port (default 127.0.0.1:5020 if nothing else is chosen)")
	f.StringArrayVar(&sim.rtuTCP, "rtu-tcp", nil, "RTU over TCP on host:port")
	f.BoolVar(&sim.pty, "pty", false, "RTU on a pseudo-terminal")
	f.StringVar(&sim.symlink, "link", "", "with --pty: a path that is to lead to the terminal")
	f.IntVar(&sim.baud, "baud", 0, "pace RTU lines at this speed; 0 takes no time")
	f.StringVar(&sim.format, "format", "8N1", "data bits, parity and stop bits of RTU lines")
	f.UintSliceVar(&sim.units, "unit", []uint{1}, "unit ids of a profile")
	f.StringArrayVar(&sim.faults, "fault", nil, "a rule of misbehaviour")
	f.BoolVar(&sim.singleTCP, "single-client", false, "each TCP port serves one connection at a time")
	c.RunE = a.wrap(func(ctx context.Context, args []string) (result, error) {
		sim.what = args[0]
		return a.simulate(ctx, sim)
	})
	return c
}

// oneModel wants one profile or dump file.
func oneModel(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("name one profile or dump file to simulate; profiles are %s", strings.Join(profileNames(), ", "))
	}
	return nil
}

func faultNames() string {
	var names []string
	for _, kind := range modbussim.FaultKinds() {
		names = append(names, kind.String())
	}
	return strings.Join(names, ", ")
}

// profileNames lists the built-in profiles.
func profileNames() []string {
	entries, err := fs.ReadDir(configs.Profiles(), "profiles")
	if err != nil {
		return nil // it is embedded
	}
	var names []string
	for _, entry := range entries {
		names = append(names, strings.TrimSuffix(entry.Name(), ".yaml"))
	}
	return names
}

// ports is where a simulation listens.
type ports struct {
	TCP    []string `json:"tcp"`
	RTUTCP []string `json:"rtu_tcp"`
	PTY    string   `json:"pty,omitempty"`
	Units  []uint   `json:"units"`
	Points int      `json:"points"` // of each unit; 0 for a dump
}

// simulate serves until ctx is done, which is its proper end.
func (a *app) simulate(ctx context.Context, sim simulation) (result, error) {
	server := modbussim.New(modbussim.Config{SingleClient: sim.singleTCP})
	opened, err := sim.open(server)
	if err != nil {
		return result{}, errors.Join(err, server.Close())
	}
	if err := a.report(result{data: opened, human: opened.print}, nil); err != nil {
		return result{}, errors.Join(err, server.Close())
	}
	a.reported = true
	return result{}, errors.Join(server.Run(ctx), server.Close())
}

// open makes the units and opens the ports.
func (sim *simulation) open(server *modbussim.Server) (*ports, error) {
	p := &ports{TCP: []string{}, RTUTCP: []string{}, Units: sim.units}
	var err error
	if strings.HasSuffix(sim.what, ".yaml") || !fileExists(sim.what) {
		p.Points, err = sim.loadProfile(server)
	} else {
		p.Units, err = sim.loadDump(server)
	}
	if err != nil {
		return nil, err
	}
	for _, text := range sim.faults {
		fault, err := modbussim.ParseFault(text)
		if err == nil {
			_, err = server.AddFault(fault)
		}
		if err != nil {
			return nil, fail(exitUsage, err, "see sluice simulate --help")
		}
	}
	if len(sim.tcp) == 0 && len(sim.rtuTCP) == 0 && !sim.pty {
		sim.tcp = []string{"127.0.0.1:5020"}
	}
	line := modbussim.LineConfig{Baud: sim.baud, Format: sim.format, Symlink: sim.symlink}
	if err := sim.checkFlags(line); err != nil {
		return nil, err
	}
	return p, sim.listen(server, line, p)
}

func (sim *simulation) listen(server *modbussim.Server, line modbussim.LineConfig, p *ports) error {
	for _, address := range sim.tcp {
		bound, err := server.ListenTCP(address)
		if err != nil {
			return portError(err)
		}
		p.TCP = append(p.TCP, bound.String())
	}
	for _, address := range sim.rtuTCP {
		bound, err := server.ListenRTUOverTCP(address, line)
		if err != nil {
			return portError(err)
		}
		p.RTUTCP = append(p.RTUTCP, bound.String())
	}
	if !sim.pty {
		return nil
	}
	pty, err := server.OpenPTY(line)
	if err != nil {
		return fail(exitField, err, "")
	}
	p.PTY = pty.Path()
	return nil
}

// print writes the ports for people, each as it stands in a site file.
func (p *ports) print(w io.Writer) error {
	var b strings.Builder
	for _, address := range p.TCP {
		fmt.Fprintf(&b, "tcp: %s\n", address)
	}
	for _, address := range p.RTUTCP {
		fmt.Fprintf(&b, "rtu-over-tcp: %s\n", address)
	}
	if p.PTY != "" {
		fmt.Fprintf(&b, "serial: %s\n", p.PTY)
	}
	fmt.Fprintf(&b, "units %s\n", strings.Trim(fmt.Sprint(p.Units), "[]"))
	_, err := io.WriteString(w, b.String())
	return err
}

// loadDump loads the units of a dump file and returns their ids.
func (sim *simulation) loadDump(server *modbussim.Server) ([]uint, error) {
	data, err := os.ReadFile(sim.what)
	if err != nil {
		return nil, err
	}
	blocks, err := modbussim.ParseDump(filepath.Base(sim.what), data)
	if err == nil {
		err = server.Load(blocks)
	}
	if err != nil {
		return nil, fail(exitConfig, err, "")
	}
	var units []uint
	seen := make(map[uint8]bool)
	for i := range blocks {
		if !seen[blocks[i].Unit] {
			seen[blocks[i].Unit] = true
			units = append(units, uint(blocks[i].Unit))
		}
	}
	return units, nil
}

func fileExists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}
