package main

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/secret"
)

func newConfig(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "print the daemon's settings and where each comes from",
		Long: `Takes the flags, the environment and the file that callstate run would take, and prints
every setting by its name in the file, with its value and where that comes from: a
flag, an environment variable, the file, or the default. Secrets are masked. What is
wrong with the settings is said at the end, and is exit code 1.`,
		Example: `  callstate config --config callstate.toml
  callstate config --config callstate.toml --nats nats://127.0.0.1:4222`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, from, err := gatherConfig(cmd, e.getenv)
			if err != nil {
				return err
			}
			var rows [][]string
			listSettings(reflect.ValueOf(c), "", func(name, value string) {
				rows = append(rows, []string{name, value, from.of(name)})
			})
			if err := e.table([]string{"SETTING", "VALUE", "FROM"}, rows); err != nil {
				return err
			}
			return c.load(e.getenv)
		},
	}
	configFlags(cmd.Flags())
	return cmd
}

// of says where a setting's value comes from; what is in a list comes from where
// the list does.
func (o origins) of(name string) string {
	if from, ok := o[name]; ok {
		return from
	}
	for i := len(name) - 1; i > 0; i-- {
		end := i
		switch name[i] {
		case '[':
		case ']':
			end++
		default:
			continue
		}
		if from, ok := o[name[:end]]; ok {
			return from
		}
	}
	return "default"
}

// userinfo is the part of a URL that may hold a password.
var userinfo = regexp.MustCompile(`://[^/@\s]+@`)

// listSettings tells every setting of a struct by its name in the file. Of lists and
// of what has more than one value, what is unset is left out.
func listSettings(v reflect.Value, prefix string, tell func(name, value string)) {
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		name, options, _ := strings.Cut(sf.Tag.Get("toml"), ",")
		switch {
		case !sf.IsExported() || name == "-":
			continue
		case sf.Anonymous:
			listSettings(v.Field(i), prefix, tell)
			continue
		case name == "":
			name = sf.Name
		}
		f := v.Field(i)
		if f.IsZero() && (strings.Contains(prefix, "[") || slices.Contains(strings.Split(options, ","), "omitempty")) {
			continue
		}
		listValue(f, prefix+name, tell)
	}
}

func listValue(v reflect.Value, name string, tell func(name, value string)) {
	if v.CanInterface() {
		switch x := v.Interface().(type) {
		case secret.Text: // also where it is empty: that it is not set is no secret
			if x != "" {
				tell(name, secret.Masked)
			}
			return
		case duration:
			tell(name, time.Duration(x).String())
			return
		case byteSize:
			tell(name, x.String())
			return
		case encoding.TextMarshaler:
			if text, err := x.MarshalText(); err == nil {
				tell(name, string(text))
			}
			return
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		listSettings(v, name+".", tell)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Struct {
			tell(name, strings.Trim(fmt.Sprint(v.Interface()), "[]"))
			return
		}
		for i := range v.Len() {
			listSettings(v.Index(i), fmt.Sprintf("%s[%d].", name, i), tell)
		}
	default:
		tell(name, userinfo.ReplaceAllString(fmt.Sprint(v.Interface()), "://"+secret.Masked+"@"))
	}
}
