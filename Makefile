# Names for the long commands. The short ones are go build, go vet and go test.
.PHONY: ci lint fmt fuzz bench golden cover kill away faults soak storm

ci: ; bash .ci/run
lint: ; go tool -modfile=tools/go.mod golangci-lint run ./...
fmt: ; go tool -modfile=tools/go.mod gofumpt -w .
bench: ; go test -run '^$$' -bench . ./events/... ./store/... ./engine/... ./adapters/... ./cmd/...
cover: ; go test -coverpkg=./... -coverprofile=cover.out ./... && go tool cover -func=cover.out | tail -n 1

# The long forms of the tests that make faults: store/DESIGN.md, Faults.
kill: ; go test ./cmd/callstate -run TestKilledAnywhere -v -timeout 2h -kills 1000
faults: ; go test ./store/bolt -v -timeout 1h -long -run 'PowerCut|DiskFull|SyncFails|Anywhere|Damaged'
away: ; go test ./cmd/callstate -run 'InTrouble' -v -timeout 1h -away 3m
soak: ; go test ./cmd/callstate -run TestSoak -v -timeout 3h -soak 1h -soak-calls 100000

# The long forms of the tests of the links.
storm: ; go test ./cmd/callstate -run 'TestReconnectStorm|TestGapAnywhere|TestSize' -v -timeout 1h -storm 1m -gaps -size

# A long run of every fuzz target.
fuzz:
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r f; do \
		for n in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' $$f); do \
			go test ./$$(dirname $$f) -run '^$$' -fuzz "^$$n\$$" -fuzztime 5m; done; done

# Rewrites golden files; read the diff before it is committed.
golden: ; go test ./events ./events/cti ./engine ./cmd/callstate -update
