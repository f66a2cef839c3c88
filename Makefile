# Every target sets up what it needs; a fresh machine needs Go 1.26 and make.
# docs: README.md (demo, test), CONTRIBUTING.md (the rest).

GO        ?= go
BIN       := bin
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS   := -s -w -X main.version=$(VERSION)
FUZZTIME  ?= 30s
UPGRADE_FROM ?=
# Tests that say how much they have covered.
COUNTED   := ^(TestMatrix|TestMatrixAgainstServer|TestNoByteOfADeniedSubjectArrives)$$
TOOL      := $(GO) tool -modfile=internal/tools/go.mod
# The race detector needs cgo, which needs a C compiler.
RACE      := $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race,)
TESTFLAGS ?= $(RACE) -timeout 25m
# Tests of several nodes are called TestCluster...; test-cluster has them.
CLUSTER   := ^TestCluster

.PHONY: help build demo test lint fuzz bench bench-curve test-cluster test-nodes test-faults fmt clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

build: ## bin/signet
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/signet ./cmd/signet

demo: build ## the main job on real events over real TLS; exits non-zero if a count is wrong
	$(GO) run ./examples/demo -signet $(BIN)/signet

test: ## vet, unit, integration, CLI, fuzz seeds, house rules; with the race detector where there is a C compiler
	@if [ -z "$(RACE)" ]; then echo "no C compiler here: testing without the race detector"; fi
	$(GO) vet ./...
	$(GO) test $(TESTFLAGS) -skip '$(COUNTED)|$(CLUSTER)' $$($(GO) list ./... | grep -v /broker/clustertest)
	$(GO) test $(TESTFLAGS) -v -run '$(COUNTED)' ./broker/jsapi ./broker

lint: ## golangci-lint and gofumpt, pinned in internal/tools/go.mod
	$(TOOL) golangci-lint run ./...
	@out=$$($(TOOL) gofumpt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofumpt-formatted:"; echo "$$out"; exit 1; fi

fmt: ## gofumpt, in place
	$(TOOL) gofumpt -w $$(git ls-files '*.go')

fuzz: ## every fuzz target for FUZZTIME (default 30s)
	FUZZTIME=$(FUZZTIME) GO=$(GO) sh internal/tools/fuzz.sh

bench: ## Signet against raw JetStream in the same run; writes bench/RESULTS.md
	$(GO) run ./bench/cmd/bench -out bench/RESULTS.md

bench-curve: ## clusters of three, Signet and raw: throughput against the number of streams; writes bench/CURVE.txt; about 4 minutes
	$(GO) run ./bench/cmd/bench -curve -out bench/CURVE.txt

test-cluster: test-nodes ## all tests of several nodes, then three nodes as processes: killed, paused, cut off, damaged, wiped, replaced, restarted, with wrong clocks under load; about 20 minutes
	$(GO) run ./bench/cmd/faults -cluster -quick -cuts 0 -limit 15m

test-nodes: ## tests of several nodes in one process, with the race detector, and the drills of an operator on real clusters
	$(GO) test $(TESTFLAGS) -run '$(CLUSTER)' ./broker ./broker/internal/integrity ./client
	$(GO) test -timeout 15m -count=1 ./broker/clustertest

test-faults: ## the long suite, about an hour: one node, one with encryption, and a cluster: kill -9, power cuts, full disks, key changes, damage, wrong clocks, an upgrade (UPGRADE_FROM=rev; default the last tag) under load (volumes need root on Linux)
	@(echo "make test-faults, $$(date -u +%Y-%m-%dT%H:%MZ), $$(uname -srm)"; echo) > bench/FAULTS.txt
	@(status=0; $(GO) run ./bench/cmd/faults -kills 20 -cuts 5 -disk 6 || status=$$?; echo; \
	  $(GO) run ./bench/cmd/faults -encrypted -kills 10 -cuts 3 -keychange 15 || status=$$?; echo; \
	  $(GO) run ./bench/cmd/faults -cluster -kills 100 -cuts 20 -disk 4 -upgrade-from '$(UPGRADE_FROM)' -limit 90m || status=$$?; exit $$status) \
	  >> bench/FAULTS.txt; status=$$?; cat bench/FAULTS.txt; exit $$status

clean: ## remove what was built
	rm -rf $(BIN)
