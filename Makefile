# Two commands do all set-up on a fresh Debian with Go: `make quickstart` and `make test`.
# Tests mount file systems and run containers: they need root.

GO       ?= go
PREFIX   ?= /usr/local
CACHE    := $(CURDIR)/.cache
MODULE   := github.com/openbuildkit/buildkit
VERSION  ?= $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null || echo v0.0.0+unknown)
REVISION ?= $(shell r=$$(git rev-parse HEAD 2>/dev/null) && { git diff --quiet HEAD -- || r=$$r.m; echo $$r; })

BUILDFLAGS := -trimpath -buildvcs=false
LDFLAGS    := -s -w \
	-X $(MODULE)/cmd/internal/version.Version=$(VERSION) \
	-X $(MODULE)/cmd/internal/version.Revision=$(REVISION)

# Composition roots and what drives them as a whole stand in cmd, examples and hack; every other
# package has unit tests of a few seconds.
INTEGRATION := ./cmd/... ./examples/... ./hack/...
UNIT         = $(shell $(GO) list ./... | grep -Ev '^$(MODULE)/(cmd|examples|hack)(/|$$)')
# Where goroutines meet: these also run under the race detector in `make test`.
CONCURRENT  := $(foreach dir,cache client session snapshot solver worker,$(if $(wildcard $(dir)),./$(dir)/...))

# What `make image` writes, and more arguments for its build, such as --opt=target=rootless.
IMAGE      ?= bin/buildkit.tar
IMAGEFLAGS ?=

TESTFLAGS ?=
FUZZTIME  ?= 30s
BENCHTIME ?= 1s

GOLANGCI := $(CACHE)/tools/golangci-lint

.DEFAULT_GOAL := help
# The steps of a target run in the order written, whatever -j says.
.NOTPARALLEL:

##@ Start here

.PHONY: help
help: ## Show this text
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: quickstart
quickstart: deps-quickstart build ## Build all, start a daemon of its own, build examples/hello twice
	$(GO) run -buildvcs=false ./hack/quickstart

##@ Build

.PHONY: build
build: ## Build bin/buildkitd and bin/buildctl
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/buildkitd ./cmd/buildctl

.PHONY: install
install: build ## Install the programs below PREFIX (/usr/local) and DESTDIR
	install -D -m 755 bin/buildkitd $(DESTDIR)$(PREFIX)/bin/buildkitd
	install -D -m 755 bin/buildctl $(DESTDIR)$(PREFIX)/bin/buildctl
	install -D -m 755 cmd/buildctl/buildctl-daemonless.sh $(DESTDIR)$(PREFIX)/bin/buildctl-daemonless.sh

.PHONY: image
image: build ## Build the daemon's image with the daemon at BUILDKIT_HOST, into bin/buildkit.tar
	bin/buildctl build --frontend=dockerfile.v0 --local=context=. --local=dockerfile=. \
		--opt=build-arg:VERSION=$(VERSION) --opt=build-arg:REVISION=$(REVISION) $(IMAGEFLAGS) \
		--output=type=docker,name=buildkit:$(subst +,-,$(VERSION)),dest=$(IMAGE)

.PHONY: cross
cross: ## Compile the client for the other systems it runs on
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o /dev/null ./cmd/buildctl
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o /dev/null ./cmd/buildctl

.PHONY: generate
generate: ## Regenerate the Go code of the .proto files
	hack/generate.sh

.PHONY: clean
clean: ## Remove what make built; keeps the cache of tools and images
	rm -rf bin

##@ Check

.PHONY: test
test: deps-test vet unit race integration cross ## Run every check but lint; installs what is missing, needs root

.PHONY: vet
vet: ## Run go vet
	$(GO) vet ./...

.PHONY: unit
unit: ## Run the tests of single packages; in less than two minutes
	$(GO) test -timeout 10m $(TESTFLAGS) $(UNIT)

.PHONY: race
race: ## Run the tests of the concurrent packages under the race detector
	$(GO) test -race -timeout 20m $(TESTFLAGS) $(CONCURRENT)

# One package at a time: each starts daemons, and two at once would disturb each other's times.
# Never from the test cache, which knows nothing of what other programs read.
.PHONY: integration
integration: ## Run the tests of whole programs, of the layout and of the generated code
	$(GO) test -count=1 -p 1 -timeout 30m $(TESTFLAGS) $(INTEGRATION)

.PHONY: lint
lint: deps-lint $(GOLANGCI) ## Run the linters and check the formatting
	GOLANGCI_LINT_CACHE=$(CACHE)/golangci-lint $(GOLANGCI) config verify
	GOLANGCI_LINT_CACHE=$(CACHE)/golangci-lint $(GOLANGCI) run

.PHONY: fmt
fmt: $(GOLANGCI) ## Format the Go code
	GOLANGCI_LINT_CACHE=$(CACHE)/golangci-lint $(GOLANGCI) fmt

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME
	FUZZTIME=$(FUZZTIME) hack/fuzz.sh ./...

.PHONY: bench
bench: deps-test build ## Run the benchmarks, each beside the plain tool it is measured against
	$(GO) test -p 1 -run '^$$' -bench . -benchtime $(BENCHTIME) -timeout 2h $(TESTFLAGS) ./...

.PHONY: soak
soak: deps-test build ## Run the tests that repeat until something breaks; takes hours
	BUILDKIT_TEST_SOAK=1 $(GO) test -p 1 -run Soak -timeout 12h -v $(TESTFLAGS) $(INTEGRATION)

##@ Set-up

.PHONY: deps-quickstart deps-test deps-lint
deps-quickstart deps-test deps-lint: deps-%:
	@hack/install-deps.sh $*

# Building the linter takes more than a minute of CPU; it is kept until its version changes.
$(GOLANGCI): hack/tools/go.mod hack/tools/go.sum
	CGO_ENABLED=0 $(GO) build -modfile=hack/tools/go.mod -buildvcs=false -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@
