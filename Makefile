# Selvedge: GitOps for fleets of edge nodes. `make help` lists what there is.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMANDS := selvedge selvedge-reconciler selvedge-hub selvedge-edge
LDFLAGS  := -s -w -X selvedge/internal/version.Version=$(VERSION)
# Debian keeps some tools of root elsewhere.
export PATH := $(PATH):/usr/sbin:/sbin
# Programs that tests and benchmarks run as peers; built once, kept outside the tree.
export SELVEDGE_TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/selvedge/tools
# What a test needs and does not find is an error in make, and a skip under a plain `go test`.
export CI := true

.PHONY: help deps tools build demo test check race lint fresh bench generate fuzz clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

deps: ## install the Debian packages that are missing (root)
	@.ci/deps

tools: deps ## build the tools that tests and checks run, where missing
	@.ci/tools "$(SELVEDGE_TOOLS)"

build: ## build the commands into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./cmd/,$(COMMANDS))

demo: deps build ## run the whole thing on this machine (root); ONCE=1: by itself, then clean up
	@CGO_ENABLED=0 go build -o bin/demo ./test/demo
	@bin/demo $(if $(ONCE),-once) -bin bin

test: tools ## run every test (root)
	go test -timeout 20m ./...

check: tools lint fresh race ## format, vet, staticcheck, floors, docs, generated files, race detector

lint:
	@bad=$$(gofmt -l cmd edge internal policies reconciler schema test); [ -z "$$bad" ] || { echo "not formatted, run gofmt -w:"; echo "$$bad"; exit 1; }
	go vet ./...
	"$(SELVEDGE_TOOLS)/staticcheck" ./...
	go test ./internal/archtest

fresh: # generated files are what their generators write
	@.ci/fresh

# What runs containers for minutes is left to `make test`: there the detector would see the same code again.
race:
	go test -race -short -timeout 25m ./...

bench: tools build ## run the benchmarks beside their peers and print tables (root)
	@go run ./test/bench -bin bin

generate: ## write generated files anew
	go generate ./...

fuzz: ## fuzz every decoder for FUZZTIME (10s) each
	@.ci/fuzz "$(or $(FUZZTIME),10s)"

clean: ## remove what make built in the tree
	rm -rf bin
