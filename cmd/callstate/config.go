package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

// config is all that the daemon can be told. What is said by a flag counts before
// the environment, that before the file, that before the default.
type config struct {
	Data   string `toml:"data"`   // folder of the log and of the embedded NATS server's store
	NATS   string `toml:"nats"`   // URL of a NATS server; empty means the embedded one
	Listen string `toml:"listen"` // host:port of the embedded server
	Prefix string `toml:"prefix"` // of the subjects of CTI events
	Shards int    `toml:"shards"` // goroutines that fold; 0 means one a processor

	StreamMaxAge duration `toml:"streamMaxAge"` // how long CTI events stay in the stream

	// ResyncInterval is how often the PBX is asked for its channels and compared
	// with what we know; 0 means a minute, a negative one only after each connect.
	ResyncInterval duration `toml:"resyncInterval"`

	// AutoAnswer says that the phones answer on the auto-answer header, so that a
	// ringing call can be offered for answering (isSipAutoAnswerHeaderSupported).
	AutoAnswer bool     `toml:"autoAnswer"`
	Policies   policies `toml:"policies"`

	Retention retention `toml:"retention"`

	Webitel []webitel.Config `toml:"webitel"`

	snapshotEvery int // as in engine.Config; for tests
}

type policies struct {
	RejectSecondCall   bool `toml:"rejectSecondCall"`
	UnholdAfterConsult bool `toml:"unholdAfterConsult"`
}

func (p policies) engine() engine.Policies {
	return engine.Policies{RejectSecondCall: p.RejectSecondCall, UnholdAfterConsult: p.UnholdAfterConsult}
}

// duration reads "168h".
type duration time.Duration

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

func defaultConfig() config {
	return config{
		Data: defaultData("callstate"), Listen: "127.0.0.1:4222", Prefix: cti.DefaultPrefix,
		StreamMaxAge: duration(7 * 24 * time.Hour), AutoAnswer: true,
	}
}

// defaultData is a folder of the user's own.
func defaultData(name string) string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "callstate", name)
}

// The one connection that flags and environment can describe; more, and more
// than one user, take a file.
const (
	flagURL          = "webitel"
	flagLogin        = "login"
	flagPasswordFile = "password-file"
	flagMode         = "mode"
	envPassword      = "CALLSTATE_PASSWORD"
)

func configFlags(fs *pflag.FlagSet) {
	d := defaultConfig()
	fs.StringP("config", "c", "", "TOML file with settings")
	fs.String("data", d.Data, "folder of the log and of the embedded NATS server's store")
	fs.String("nats", "", "URL of a NATS server to publish to (default: an embedded one)")
	fs.String("listen", d.Listen, "where the embedded NATS server listens; port -1 lets the system choose")
	fs.String("prefix", d.Prefix, "what the subjects of CTI events begin with")
	fs.Int("shards", 0, "goroutines that fold (default: one a processor)")
	fs.Duration("stream-max-age", time.Duration(d.StreamMaxAge), "how long CTI events stay in the stream")
	fs.Duration("resync-interval", time.Minute, "how often the PBX's channels are compared with ours; negative: only after a connect")
	fs.Duration("retain-age", 0, "drop what is older than this from the log, ended calls only (default: keep everything)")
	fs.Var(new(byteSize), "retain-size", "drop the oldest ended calls when the log is larger than this, such as 20GiB (default: keep everything)")
	fs.String("retain-export", "", "folder that gets the events, as JSON Lines, before they are dropped (default: none)")
	fs.Bool("auto-answer", d.AutoAnswer, "the phones answer on the auto-answer header")
	fs.Bool("reject-second-call", false, "policy: hang up, as busy, an inbound call that begins while another is up")
	fs.Bool("unhold-after-consult", false, "policy: take the main call off hold when its consultation ends")
	fs.String(flagURL, "", "webitelConnectionString: ws(s)://host:port/ of the Webitel server")
	fs.String(flagLogin, "", "account that signs in, number@domain")
	fs.String(flagPasswordFile, "", "file with that account's password (or the environment's "+envPassword+")")
	fs.String(flagMode, string(webitel.ModeDomain), "domain: see all agents of the account's domain; account: its own calls")
}

// envName is the environment variable of a flag.
func envName(flag string) string {
	return "CALLSTATE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// loadConfig gathers the settings and checks them.
func loadConfig(cmd *cobra.Command, getenv func(string) string) (config, error) {
	c := defaultConfig()
	fs := cmd.Flags()
	// The environment fills flags that were not given.
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		if v := getenv(envName(f.Name)); v != "" && !f.Changed {
			if err := fs.Set(f.Name, v); err != nil {
				errs = append(errs, fmt.Errorf("%w: environment %s: %w", errUsage, envName(f.Name), err))
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		return c, err
	}
	if file, _ := fs.GetString("config"); file != "" {
		md, err := toml.DecodeFile(file, &c)
		if err != nil {
			return c, fmt.Errorf("read configuration %s: %w", file, err)
		}
		if unknown := md.Undecoded(); len(unknown) > 0 {
			return c, fmt.Errorf("read configuration %s: unknown setting %s", file, unknown[0])
		}
	}
	override(fs, "data", &c.Data, fs.GetString)
	override(fs, "nats", &c.NATS, fs.GetString)
	override(fs, "listen", &c.Listen, fs.GetString)
	override(fs, "prefix", &c.Prefix, fs.GetString)
	override(fs, "shards", &c.Shards, fs.GetInt)
	override(fs, "resync-interval", (*time.Duration)(&c.ResyncInterval), fs.GetDuration)
	override(fs, "auto-answer", &c.AutoAnswer, fs.GetBool)
	override(fs, "reject-second-call", &c.Policies.RejectSecondCall, fs.GetBool)
	override(fs, "unhold-after-consult", &c.Policies.UnholdAfterConsult, fs.GetBool)
	override(fs, "stream-max-age", (*time.Duration)(&c.StreamMaxAge), fs.GetDuration)
	override(fs, "retain-age", (*time.Duration)(&c.Retention.Age), fs.GetDuration)
	override(fs, "retain-export", &c.Retention.Export, fs.GetString)
	if f := fs.Lookup("retain-size"); f != nil && f.Changed {
		c.Retention.Size = *f.Value.(*byteSize)
	}
	if err := c.addLink(fs, getenv); err != nil {
		return c, err
	}
	return c, c.validate()
}

// override takes a flag's value where it was given.
func override[T any](fs *pflag.FlagSet, name string, to *T, get func(string) (T, error)) {
	if f := fs.Lookup(name); f != nil && f.Changed {
		if v, err := get(name); err == nil {
			*to = v
		}
	}
}

// addLink adds the connection that flags or environment describe.
func (c *config) addLink(fs *pflag.FlagSet, getenv func(string) string) error {
	url, _ := fs.GetString(flagURL)
	login, _ := fs.GetString(flagLogin)
	if url == "" && login == "" {
		return nil
	}
	if url == "" || login == "" {
		return fmt.Errorf("%w: --%s and --%s go together", errUsage, flagURL, flagLogin)
	}
	password := getenv(envPassword)
	if file, _ := fs.GetString(flagPasswordFile); file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read password: %w", err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	mode, _ := fs.GetString(flagMode)
	c.Webitel = append(c.Webitel, webitel.Config{
		ConnectionString: url, Mode: webitel.Mode(mode),
		Users: []webitel.User{{Login: login, Password: webitel.Secret(password)}},
	})
	return nil
}

func (c *config) validate() error {
	if c.Data == "" {
		return fmt.Errorf("%w: --data is empty", errUsage)
	}
	if err := c.Retention.validate(); err != nil {
		return err
	}
	if len(c.Webitel) == 0 {
		return fmt.Errorf("%w: no Webitel server: give --%s and --%s, or a file with [[webitel]] by --config", errUsage, flagURL, flagLogin)
	}
	for i := range c.Webitel {
		if err := c.Webitel[i].Validate(); err != nil {
			return fmt.Errorf("configuration of webitel %d: %w", i+1, err)
		}
	}
	return namePBXs(c.Webitel)
}

// answerable says which accounts can be offered CAN_ANSWER.
func (c *config) answerable() func(string) bool {
	if c.AutoAnswer {
		return nil
	}
	webPhone := map[string]bool{}
	for _, w := range c.Webitel {
		for _, u := range w.Users {
			webPhone[u.Login] = u.UseWebPhone
		}
	}
	return func(account string) bool { return webPhone[account] }
}
