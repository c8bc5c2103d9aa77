package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"selvedge/edge"
	"selvedge/edge/apply/containerd"
	"selvedge/edge/journal"
)

// collect has the agent collect garbage sooner than Go does: it has little to do, and the
// node's memory is for its apps.
const collect = 40

func runCommand() *cobra.Command {
	var rt containerd.Config
	var interval time.Duration
	var verbose bool
	var monitor metricsOptions
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the agent until told to stop",
		Long: `run starts what the node ran last, from disk and before any network, then pulls newer states
and applies them. Containers keep running when the agent stops.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			debug.SetGCPercent(collect)
			if err := monitor.check(); err != nil {
				return err
			}
			d, err := filepath.Abs(dir(c))
			if err != nil {
				return err
			}
			if _, err := edge.LoadSettings(d); err != nil {
				return err // before the log makes the directory
			}
			kept := journal.New(journal.Config{Dir: filepath.Join(d, "log"), Out: os.Stderr, Level: level})
			defer kept.Close()
			log := slog.New(kept.Handler())
			rt.Log = log
			if rt.DataDir == "" {
				rt.DataDir = filepath.Join(d, "containers")
			}
			if rt.HostsDir == "" {
				rt.HostsDir = filepath.Join(rt.DataDir, "certs.d")
			}
			runtime := containerd.New(rt)
			defer runtime.Close()
			agent := edge.New(edge.Config{Dir: d, Runtime: runtime, Interval: interval, Log: log, HostsDir: rt.HostsDir, Journal: kept})
			ctx, stop := context.WithCancel(c.Context())
			var asked sync.WaitGroup
			asked.Go(func() { monitor.serve(ctx, agent.Metrics(), log) })
			defer func() { stop(); asked.Wait() }()
			return agent.Run(ctx)
		},
	}
	f := c.Flags()
	f.StringVar(&rt.Address, "containerd", "/run/containerd/containerd.sock", "containerd's socket")
	f.StringVar(&rt.Namespace, "namespace", "selvedge", "containerd namespace, this agent's alone")
	f.StringVar(&rt.RunDir, "run-dir", "/run/selvedge/containers", "directory for what need not outlive a reboot")
	f.StringVar(&rt.CNIPath, "cni-path", "", "directory of CNI plugins (default: /opt/cni/bin or /usr/lib/cni)")
	f.StringVar(&rt.HostsDir, "hosts-dir", "", "registry settings, HOST/hosts.toml as containerd reads them (default: certs.d below the data)")
	f.StringVar(&rt.Bridge, "bridge", "selvedge0", "name of the containers' bridge")
	f.StringVar(&rt.Subnet, "subnet", "", "subnet of the bridge (default: a free one, chosen once)")
	f.DurationVar(&interval, "interval", 15*time.Second, "how often to ask a registry that does not hold requests until something changes")
	monitor.flags(f)
	f.BoolVarP(&verbose, "verbose", "v", false, "log more")
	return c
}
