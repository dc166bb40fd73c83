package webiteltest_test

import (
	"context"
	"fmt"

	"github.com/callstate/callstate/adapters/webitel/webiteltest"
)

// Calls for six agents, as fast as they are free. Nobody listens, so that no
// frames go out.
func ExampleServer_Generate() {
	server := webiteltest.New(webiteltest.Options{Accounts: webiteltest.Agents("acme.example", 2000, 6, "secret")})
	defer server.Close()
	counts, err := server.Generate(context.Background(), webiteltest.GenerateOptions{
		Agents: webiteltest.Numbers(2000, 6), Domain: "acme.example", Calls: 9,
	})
	fmt.Println(counts.Calls, counts.Frames(), err)
	// Output: 9 0 <nil>
}
