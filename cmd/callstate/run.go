package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newRun(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "the daemon: connect to Webitel, keep the log, publish on NATS",
		Long: `Connects to the Webitel servers of the configuration and works until it is told to
stop. The first SIGINT or SIGTERM drains: what was received is stored and published
before the process ends. The second ends it at once; nothing that is in the log is
lost by that, and what was not published is published at the next start.

Settings come from flags, from the environment (CALLSTATE_ and the flag's name, such
as CALLSTATE_DATA), and from a TOML file, in this order of precedence. A password
comes from the file, from --password-file, or from ` + envPassword + `.`,
		Example: `  callstate run --webitel ws://pbx.example:871/ --login watcher@acme.example --password-file secret
  callstate run --config callstate.toml --nats nats://127.0.0.1:4222`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd, e.getenv)
			if err != nil {
				return err
			}
			if err := e.logAs(cmd); err != nil { // the environment has been heard by now
				return err
			}
			e.daemon = true
			logger := e.logger()
			a, err := openApp(cfg, logger)
			if err != nil {
				return err
			}
			defer a.close()
			if a.server != nil {
				access := "no users are configured: everybody on this machine may do everything, nobody else can connect"
				if len(cfg.NATSUsers) > 0 {
					access = "users may do what their roles say"
				}
				logger.Info("embedded NATS server", "url", a.server.URL(), "users", len(cfg.NATSUsers), "access", access)
			}
			if a.health != nil {
				logger.Info("metrics and health", "url", "http://"+a.health.listener.Addr().String())
			}
			unsaid := context.AfterFunc(cmd.Context(), func() { logger.Info("stopping") })
			defer unsaid()
			logger.Info("running", "data", cfg.Data, "log_id", a.store.ID(), "prefix", cfg.Prefix)
			err = a.run(cmd.Context())
			logger.Info("stopped", "position", a.store.Last())
			return err
		},
	}
	configFlags(cmd.Flags())
	return cmd
}
