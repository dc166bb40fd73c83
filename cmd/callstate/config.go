package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
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
	HTTP   string `toml:"http"`   // host:port of metrics and health; empty means none
	Prefix string `toml:"prefix"` // of the subjects of CTI events
	Shards int    `toml:"shards"` // goroutines that fold; 0 means one a processor

	StreamMaxAge duration `toml:"streamMaxAge"` // how long CTI events stay in the stream
	NoRefill     bool     `toml:"noRefill"`     // a new stream gets what is not published yet, not all that the log holds

	// ResyncInterval is how often the PBX is asked for its channels and compared
	// with what we know; 0 means a minute, a negative one only after each connect.
	ResyncInterval duration `toml:"resyncInterval"`

	// AutoAnswer says that the phones answer on the auto-answer header, so that a
	// ringing call can be offered for answering (isSipAutoAnswerHeaderSupported).
	AutoAnswer bool     `toml:"autoAnswer"`
	Policies   policies `toml:"policies"`

	Retention retention `toml:"retention"`
	Tracing   traces    `toml:"tracing"`

	NATSAccess natsAccess `toml:"natsAccess"` // to the server that nats names
	ListenTLS  listenTLS  `toml:"listenTLS"`  // of the embedded server
	NATSUsers  []natsUser `toml:"natsUsers"`  // of the embedded server

	Webitel []webitel.Config `toml:"webitel"`

	snapshotEvery int             // as in engine.Config; for tests
	observer      engine.Observer // one more; nil for none
}

// traces says where traces of calls go.
type traces struct {
	URL string `toml:"url"` // of an OTLP receiver over HTTP; empty means nowhere
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
		StreamMaxAge: duration(7 * 24 * time.Hour), ResyncInterval: duration(time.Minute), AutoAnswer: true,
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
	flagCA           = "ca"
	envPassword      = "CALLSTATE_PASSWORD"
)

func configFlags(fs *pflag.FlagSet) {
	d := defaultConfig()
	fs.StringP("config", "c", "", "TOML file with settings")
	fs.String("data", d.Data, "folder of the log and of the embedded NATS server's store")
	fs.String("nats", "", "URL of a NATS server to publish to (default: an embedded one)")
	natsAccessFlags(fs)
	fs.String("listen", d.Listen, "where the embedded NATS server listens; port -1 lets the system choose")
	fs.String("trace", "", "URL of an OTLP receiver over HTTP that gets a trace of each call, such as http://127.0.0.1:4318 (default: none)")
	fs.String("http", "", "host:port where /metrics, /healthz and /readyz are served (default: nowhere)")
	fs.String("prefix", d.Prefix, "what the subjects of CTI events begin with")
	fs.Int("shards", 0, "goroutines that fold (default: one a processor)")
	fs.Duration("stream-max-age", time.Duration(d.StreamMaxAge), "how long CTI events stay in the stream")
	fs.Bool("no-refill", false, "give a new or emptied stream only what was not published yet (default: all that the log holds)")
	fs.Duration("resync-interval", time.Duration(d.ResyncInterval), "how often the PBX's channels are compared with ours; negative: only after a connect")
	fs.Duration("retain-age", 0, "drop what is older than this from the log, ended calls only (default: keep everything)")
	fs.Var(new(byteSize), "retain-size", "drop the oldest ended calls when the log is larger than this, such as 20GiB (default: keep everything)")
	fs.String("retain-export", "", "folder that gets the events, as JSON Lines, before they are dropped (default: none)")
	fs.Bool("auto-answer", d.AutoAnswer, "the phones answer on the auto-answer header")
	fs.Bool("reject-second-call", false, "policy: hang up, as busy, an inbound call that begins while another is up")
	fs.Bool("unhold-after-consult", false, "policy: take the main call off hold when its consultation ends")
	fs.String(flagURL, "", "webitelConnectionString: ws(s)://host:port/ of the Webitel server")
	fs.String(flagLogin, "", "account that signs in, number@domain")
	fs.String(flagPasswordFile, "", "file with that account's password (or the environment's "+envPassword+")")
	fs.String(flagCA, "", "PEM file with the certificate of the Webitel server's authority, for wss (default: the system's)")
	fs.String(flagMode, string(webitel.ModeDomain), "domain: see all agents of the account's domain; account: its own calls")
}

// envName is the environment variable of a flag.
func envName(flag string) string {
	return "CALLSTATE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// settings are what flags set, by their names in the file.
var settings = map[string]string{
	"data": "data", "nats": "nats", "listen": "listen", "http": "http", "trace": "tracing.url", "prefix": "prefix", "shards": "shards",
	"stream-max-age": "streamMaxAge", "no-refill": "noRefill", "resync-interval": "resyncInterval", "auto-answer": "autoAnswer",
	"reject-second-call": "policies.rejectSecondCall", "unhold-after-consult": "policies.unholdAfterConsult",
	"retain-age": "retention.age", "retain-size": "retention.size", "retain-export": "retention.export",
	"nats-user": "natsAccess.user", "nats-password-file": "natsAccess.passwordFile", "nats-token-file": "natsAccess.tokenFile",
	"nats-creds": "natsAccess.credentialsFile", "nats-nkey": "natsAccess.nkeyFile", "nats-ca": "natsAccess.caFile",
	"nats-cert": "natsAccess.certFile", "nats-key": "natsAccess.keyFile", "nats-server-name": "natsAccess.serverName",
	"nats-inbox": "natsAccess.inboxPrefix",
}

// origins says where a setting's value came from, by its name in the file.
type origins map[string]string

// loadConfig gathers the settings, reads the files that they name and checks them.
func loadConfig(cmd *cobra.Command, getenv func(string) string) (config, error) {
	c, _, err := gatherConfig(cmd, getenv)
	if err != nil {
		return c, err
	}
	return c, c.load(getenv)
}

// gatherConfig lays flags over the environment over the file over the defaults.
func gatherConfig(cmd *cobra.Command, getenv func(string) string) (c config, from origins, err error) {
	c, from = defaultConfig(), origins{}
	fs := cmd.Flags()
	environment, err := fillFromEnv(fs, getenv)
	if err != nil {
		return c, from, err
	}
	if file, _ := fs.GetString("config"); file != "" {
		md, err := toml.DecodeFile(file, &c)
		if err != nil {
			return c, from, fmt.Errorf("read configuration %s: %w", file, quiet(err))
		}
		if unknown := md.Undecoded(); len(unknown) > 0 {
			return c, from, fmt.Errorf("read configuration %s: unknown setting %s", file, unknown[0])
		}
		for _, key := range md.Keys() {
			from[key.String()] = file
		}
	}
	// What flags and environment say is one more file on top.
	var over strings.Builder
	fs.VisitAll(func(f *pflag.Flag) {
		name, is := settings[f.Name]
		if !is || !f.Changed {
			return
		}
		value := f.Value.String()
		if t := f.Value.Type(); t != "bool" && t != "int" {
			quoted, _ := json.Marshal(value) // of a string it cannot fail, and TOML reads it
			value = string(quoted)
		}
		fmt.Fprintf(&over, "%s = %s\n", name, value)
		if from[name] = "--" + f.Name; environment[f.Name] {
			from[name] = envName(f.Name)
		}
	})
	if _, err := toml.Decode(over.String(), &c); err != nil {
		return c, from, fmt.Errorf("%w: %w", errUsage, err)
	}
	return c, from, c.addLink(fs, from, environment, getenv)
}

// quiet leaves out of a TOML error the line that it quotes, and the words of it
// that the message does: a password without its quotation marks is one.
func quiet(err error) error {
	if parse, ok := errors.AsType[toml.ParseError](err); ok {
		message := parse.Message
		if !strings.HasPrefix(message, "time: ") && !strings.HasPrefix(message, "Key ") { // what these quote is a duration, or a key
			message = quotedWord.ReplaceAllString(message, `"..."`)
		}
		return fmt.Errorf("line %d: %s", parse.Position.Line, message)
	}
	return err
}

var quotedWord = regexp.MustCompile(`"(\\.|[^"\\])*"|'[^' ]{2,}'`)

// fillFromEnv gives flags that were not given the value of their environment
// variable, and returns which.
func fillFromEnv(fs *pflag.FlagSet, getenv func(string) string) (filled map[string]bool, err error) {
	filled = map[string]bool{}
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		if v := getenv(envName(f.Name)); v != "" && !f.Changed {
			if err := fs.Set(f.Name, v); err != nil {
				errs = append(errs, fmt.Errorf("%w: environment %s: %w", errUsage, envName(f.Name), err))
			}
			filled[f.Name] = true
		}
	})
	return filled, errors.Join(errs...)
}

// load reads the files that settings name, and checks what there is then.
func (c *config) load(getenv func(string) string) error {
	if err := c.NATSAccess.load(getenv); err != nil {
		return err
	}
	for i := range c.NATSUsers {
		if err := c.NATSUsers[i].load(getenv); err != nil {
			return fmt.Errorf("configuration of natsUsers %d: %w", i+1, err)
		}
	}
	for i := range c.Webitel {
		if err := c.Webitel[i].Load(getenv); err != nil {
			return fmt.Errorf("configuration of webitel %d: %w", i+1, err)
		}
	}
	return c.validate()
}

// addLink adds the connection that flags or environment describe.
func (c *config) addLink(fs *pflag.FlagSet, from origins, environment map[string]bool, getenv func(string) string) error {
	url, _ := fs.GetString(flagURL)
	login, _ := fs.GetString(flagLogin)
	if url == "" && login == "" {
		return nil
	}
	if url == "" || login == "" {
		return fmt.Errorf("%w: --%s and --%s go together", errUsage, flagURL, flagLogin)
	}
	user := webitel.User{Login: login}
	if user.PasswordFile, _ = fs.GetString(flagPasswordFile); user.PasswordFile == "" && getenv(envPassword) != "" {
		user.PasswordEnv = envPassword
	}
	mode, _ := fs.GetString(flagMode)
	c.Webitel = append(c.Webitel, webitel.Config{ConnectionString: url, Mode: webitel.Mode(mode), Users: []webitel.User{user}})
	w := &c.Webitel[len(c.Webitel)-1]
	w.CAFile, _ = fs.GetString(flagCA)
	from[fmt.Sprintf("webitel[%d]", len(c.Webitel)-1)] = "--" + flagURL
	if environment[flagURL] {
		from[fmt.Sprintf("webitel[%d]", len(c.Webitel)-1)] = envName(flagURL)
	}
	return nil
}

func (c *config) validate() error {
	if c.Data == "" {
		return fmt.Errorf("%w: --data is empty", errUsage)
	}
	if err := c.Retention.validate(); err != nil {
		return err
	}
	if u, err := url.Parse(c.Tracing.URL); c.Tracing.URL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return fmt.Errorf("%w: --trace: want http(s)://host:port", errUsage)
	}
	if c.HTTP != "" {
		_, port, err := net.SplitHostPort(c.HTTP)
		if err == nil {
			_, err = net.LookupPort("tcp", port)
		}
		if err != nil {
			return fmt.Errorf("%w: --http %q: want host:port: %w", errUsage, c.HTTP, err)
		}
	}
	if c.Shards < 0 {
		return fmt.Errorf("%w: --shards %d is below 0", errUsage, c.Shards)
	}
	if err := c.validateNATS(); err != nil {
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
	if err := c.validatePhones(); err != nil {
		return err
	}
	return namePBXs(c.Webitel)
}

// answerable says which accounts can be offered CAN_ANSWER.
func (c *config) answerable() func(string) bool {
	if c.AutoAnswer {
		return nil
	}
	return c.webPhone()
}
