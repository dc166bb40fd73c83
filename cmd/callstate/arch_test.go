package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/callstate/callstate/"

// mayImport says which of our packages a package may import, tests aside, and why
// no others. A package that is not here is not part of the architecture yet.
var mayImport = map[string]struct {
	ours []string
	why  string
}{
	"events":                       {nil, "the vocabulary depends on nothing"},
	"events/cti":                   {[]string{"events"}, "a subscriber imports it alone"},
	"events/cti/subscribe":         {[]string{"events/cti"}, "a subscriber knows the published model and NATS"},
	"store":                        {[]string{"events"}, "a store knows events and not who asks"},
	"store/internal/gate":          {[]string{"store"}, "a part of the stores"},
	"store/memory":                 {[]string{"events", "store", "store/internal/gate"}, "a store knows events and not who asks"},
	"store/bolt":                   {[]string{"events", "store", "store/internal/gate"}, "a store knows events and not who asks"},
	"store/storetest":              {[]string{"events", "store"}, "one suite for all stores"},
	"engine":                       {[]string{"events", "events/cti"}, "the engine declares the ports that it needs"},
	"adapters/secret":              {nil, "a word for what must not be printed"},
	"adapters/tlstest":             {nil, "certificates for tests"},
	"adapters/internal/dial":       {[]string{"adapters/secret"}, "what every adapter needs to reach its server"},
	"adapters/verto":               {[]string{"adapters/internal/dial", "engine", "events"}, "an adapter fits the engine's ports"},
	"adapters/webitel":             {[]string{"adapters/internal/dial", "adapters/secret", "engine", "events"}, "an adapter fits the engine's ports"},
	"adapters/webitel/webiteltest": {[]string{"testdata/captures"}, "a server knows no client"},
	"adapters/tracing":             {[]string{"engine", "events", "events/cti"}, "an adapter fits the engine's ports"},
	"adapters/verto/vertotest":     {[]string{"adapters/verto", "events"}, "a server speaks the client's words and knows no client"},
	"adapters/natsbus":             {[]string{"adapters/internal/dial", "adapters/secret", "engine", "events", "events/cti"}, "an adapter fits the engine's ports"},
	"cmd/callstate":                {[]string{"*"}, "the one place that wires"},
	"cmd/callstate/internal/bench": {[]string{"*"}, "a part of cmd that measures all the others"},
}

// foreign says which packages of others a package must not reach, and why.
var foreign = map[string]map[string]string{
	"engine": {
		"encoding/json": "the engine knows no JSON", "net": "nor sockets", "net/http": "nor HTTP",
		"github.com/nats-io/nats.go": "nor NATS", "github.com/gorilla/websocket": "nor WebSocket",
	},
	"events": {"net": "pure data", "os": "pure data"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestImportsFollowTheArchitecture(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		rule, ok := mayImport[name]
		if !ok {
			t.Errorf("%s is not in the architecture: give it a line, and a reason", name)
			continue
		}
		seen[name] = true
		for _, imp := range p.Imports {
			if why := foreign[name][imp]; why != "" {
				t.Errorf("%s imports %s: %s", name, imp, why)
			}
			ours, is := strings.CutPrefix(imp, module)
			if is && !slices.Contains(rule.ours, ours) && !slices.Contains(rule.ours, "*") {
				t.Errorf("%s imports %s: %s", name, ours, rule.why)
			}
		}
	}
	for name := range mayImport {
		if !seen[name] {
			t.Errorf("%s is in the architecture and not in the repository", name)
		}
	}
}
