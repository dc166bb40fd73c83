package webitel

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestConfigNames(t *testing.T) {
	const text = `{"webitelConnectionString":"wss://pbx.example:871/socket",
		"webitelWebrtcConnectionString":"wss://pbx.example/verto",
		"users":[{"login":"1001@acme.example","password":"p","useWebPhone":true}],
		"mode":"account","pingInterval":"5s"}`
	var c Config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c = c.withDefaults()
	for what, ok := range map[string]bool{
		"user":           c.Users[0] == User{Login: "1001@acme.example", Password: "p", UseWebPhone: true},
		"mode":           c.Mode == ModeAccount,
		"ping interval":  time.Duration(c.PingInterval) == 5*time.Second,
		"ping deadline":  time.Duration(c.PingDeadline) == 10*time.Second,
		"backoff":        time.Duration(c.BackoffMin) == time.Second && time.Duration(c.BackoffMax) == 30*time.Second,
		"settle":         time.Duration(c.Settle) == 500*time.Millisecond,
		"reply timeouts": time.Duration(c.ReplyTimeout) == 15*time.Second && time.Duration(c.LongReplyTimeout) == 90*time.Second,
		"largest frame":  c.MaxFrame == MaxFrame,
	} {
		if !ok {
			t.Errorf("%s is wrong in %+v", what, c)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{ConnectionString: "ws://pbx:10022/", Users: []User{{Login: "1001@acme.example", Password: "p"}}}
	if err := good.Validate(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for want, change := range map[string]func(*Config){
		"webitelConnectionString":       func(c *Config) { c.ConnectionString = "http://pbx" },
		"no host":                       func(c *Config) { c.ConnectionString = "ws:///x" },
		"not a URL":                     func(c *Config) { c.ConnectionString = "ws://me:hunter2@[x" },
		"webitelWebrtcConnectionString": func(c *Config) { c.WebRTCConnectionString = "pbx:5066" },
		"users is empty":                func(c *Config) { c.Users = nil },
		"number@domain":                 func(c *Config) { c.Users = []User{{Login: "1001", Password: "p"}} },
		"no password":                   func(c *Config) { c.Users = []User{{Login: "root"}} },
		"mode":                          func(c *Config) { c.Mode = "both" },
		"backoffMax is negative":        func(c *Config) { c.BackoffMax = -1 },
		"maxFrame is negative":          func(c *Config) { c.MaxFrame = -1 },
	} {
		c := good
		change(&c)
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v shows a password", err)
		}
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	u := User{Login: "root", Password: "hunter2"}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", u.Password, "user", u)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", u.Password)
	got := fmt.Sprintf("%v %+v %#v %s %q %x %d", u, u, u, u.Password, u.Password, u.Password, u.Password) + log.String()
	if strings.Contains(got, "hunter2") || strings.Contains(got, fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("the secret is in %s", got)
	}
}
