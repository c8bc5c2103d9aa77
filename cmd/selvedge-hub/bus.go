package main

import (
	"fmt"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"selvedge/internal/exit"
	"selvedge/internal/serve"
	"selvedge/reconciler/hub"
	"selvedge/reconciler/hub/bus"
)

func busConfigCommand() *cobra.Command {
	var e bus.External
	var plain bool
	c := &cobra.Command{
		Use:   "bus-config",
		Short: "Print the configuration of an external NATS server",
		Long: `bus-config prints the configuration file of one nats-server (2.10 or newer) of a cluster that several
hubs share. It makes the keys below --data if there are none; give every hub a copy of them.`,
		Example: "  selvedge-hub bus-config --name nats-1 --listen 10.0.0.1:4222 --websocket 10.0.0.1:8080 --cluster 10.0.0.1:6222 --route 10.0.0.2:6222 --route 10.0.0.3:6222 --tls-cert n1.pem --tls-key n1-key.pem --tls-ca ca.pem",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, addr := range []string{e.Listen, e.WebSocket, e.Cluster} {
				if _, _, err := net.SplitHostPort(addr); err == nil && e.Cert == "" && serve.CheckListen(addr, plain) != nil {
					return exit.Usagef("a server at %s without TLS can be read by everybody on the way; give --tls-cert, --tls-key and --tls-ca, or --plain if that network is yours alone", addr)
				}
			}
			text, err := bus.ServerConfig(filepath.Join(data(c), hub.BusDir), e)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.OutOrStdout(), text)
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&e.Name, "name", "nats-1", "name of the server, unlike that of any other")
	f.StringVar(&e.Listen, "listen", "127.0.0.1:4222", "address for hubs")
	f.StringVar(&e.WebSocket, "websocket", "127.0.0.1:8080", "address that hubs pass nodes on to")
	f.StringVar(&e.Cluster, "cluster", "", "address for the other servers (default: a single server)")
	f.StringArrayVar(&e.Routes, "route", nil, "cluster address of a server; may be given again")
	f.StringVar(&e.Store, "store", "/var/lib/nats", "folder of the server")
	f.StringVar(&e.Cert, "tls-cert", "", "PEM certificate of the server; without it only loopback is listened on")
	f.StringVar(&e.Key, "tls-key", "", "PEM key of that certificate")
	f.StringVar(&e.CA, "tls-ca", "", "PEM file of the CA of the other servers' certificates")
	f.BoolVar(&plain, "plain", false, "beyond loopback without TLS, on a network that nobody else can read")
	return c
}
