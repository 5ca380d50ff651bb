# `make` lists the targets. Only Go and make are needed to build, run and test; the others say what they want.

SHELL := /bin/bash
# Some tools lie where only root looks.
export PATH := $(PATH):/usr/sbin:/sbin
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

GO ?= go
# What `make run` starts, and with what.
BINARY := bin/otelcol-ebpf
CONFIG ?= config/examples/default.yaml
# Further flags for `go test`, and what to test, e.g. make test TESTFLAGS=-race PACKAGES=./internal/...
TESTFLAGS ?=
PACKAGES ?= ./...
# Flags for test/bench, e.g. make bench BENCH='-quick -only syscalls'
BENCH ?=
# Further flags for test/kernels/run, e.g. make test-kernels KERNELFLAGS='--kernels 5.10'
KERNELFLAGS ?=
CLANG_FORMAT ?= clang-format-19

# Tools are built from the versions that tools/go.mod and tools/lint/go.mod pin.
TOOLS := .tools/bin
BUILDER := $(TOOLS)/builder
MDATAGEN := $(TOOLS)/mdatagen
GOLANGCI_LINT := $(TOOLS)/golangci-lint

C_SOURCES = $$(find bpf internal test -name '*.bpf.c' -o -path 'bpf/*' -name '*.h' | sort)
# The packages whose tests load BPF programs.
KERNEL_PACKAGES = $$(grep -rlE --include='*_test.go' '[rR]equireBPF\(' bpf internal receiver | xargs -n 1 dirname | sort -u | sed 's|^|./|')
GO_SOURCES = $$(find . -name '*.go' -not -path './build/*' -not -path './.*' | sort)
# $(call need,PROGRAM,WHAT TO DO ABOUT IT)
need = command -v $(1) >/dev/null || { echo "make $@: $(1) is missing: $(2)" >&2; exit 1; }
need_go = $(call need,$(GO),install Go 1.25 or newer); [[ $$($(GO) env GOVERSION) =~ ^go1\.(2[1-9]|[3-9]) ]] || { echo "make $@: $$($(GO) version) is too old: install Go 1.25 or newer (1.21 and later can fetch it themselves)" >&2; exit 1; }
say = @printf '\033[1m==> %s\033[0m\n'

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r target text; do printf '  make %-14s %s\n' "$$target" "$$text"; done

.PHONY: run
run: build ## Build the Collector and start it on this machine (sudo when not root); CONFIG=… for another configuration
	$(say) "starting $(BINARY) on $(CONFIG); stop it with Ctrl-C"
	@if [[ $$(id -u) == 0 ]]; then \
		exec ./$(BINARY) --config "$(CONFIG)"; \
	elif command -v sudo >/dev/null; then \
		exec sudo ./$(BINARY) --config "$(CONFIG)"; \
	else \
		echo "make run: loading BPF programs needs root, and sudo is missing. As root: $(BINARY) --config $(CONFIG)" >&2; \
		exit 1; \
	fi

.PHONY: build
build: build/components.go ## Build the Collector with the eBPF receiver into bin/otelcol-ebpf
	@$(need_go); mkdir -p bin
	$(say) "compiling $(BINARY)$(if $(wildcard $(BINARY)),, (several minutes the first time))"
	@cd build && $(GO) build -buildvcs=false -trimpath -ldflags='-s -w' -o ../$(BINARY) .

# ocb writes the distribution's main package and resolves its modules; compiling is `make build`'s.
build/components.go: builder-config.yaml go.mod go.sum $(BUILDER)
	$(say) "assembling the distribution that builder-config.yaml describes"
	@$(BUILDER) --config builder-config.yaml --skip-compilation >build.log 2>&1 || { cat build.log >&2; exit 1; }
	@rm -f build.log
	@touch $@

.PHONY: test
test: ## Run the tests; those that need the kernel run as root and skip otherwise
	$(GO) test -timeout 10m $(TESTFLAGS) $(PACKAGES)

.PHONY: e2e
e2e: build ## Run the end-to-end tests on the built Collector
	OTELCOL_EBPF_BINARY=$(CURDIR)/$(BINARY) $(GO) test -count 1 -timeout 10m $(TESTFLAGS) ./test/e2e

.PHONY: test-kernels
test-kernels: ## Run the kernel tests under Debian's kernels 5.10, 6.1, 6.12 and the newest, in QEMU
	@$(call need,runc,apt-get install runc)
	@test/kernels/run $(KERNELFLAGS) --file "$$(command -v runc):/usr/sbin/runc" $(KERNEL_PACKAGES)

.PHONY: bench
bench: ## Measure what the probes cost, next to the floor and to peers (as root); BENCH=-quick for a minute
	@$(GO) run ./test/bench $(BENCH)

.PHONY: generate
generate: $(MDATAGEN) ## Regenerate BPF objects, metadata code and documentation (needs clang-19 and libbpf-dev)
	@$(call need,clang-19,apt-get install clang-19)
	@$(call need,llvm-strip-19,apt-get install llvm-19)
	@[[ -e /usr/include/bpf/bpf_helpers.h ]] || { echo "make generate: libbpf's headers are missing: apt-get install libbpf-dev" >&2; exit 1; }
	@# The documentation is made from the compiled probes, so it comes last.
	PATH="$(CURDIR)/$(TOOLS):$$PATH" $(GO) generate $$($(GO) list ./... | grep -v '^otelcol-ebpf/bpf$$')
	$(GO) generate ./bpf

.PHONY: lint
lint: check-format $(GOLANGCI_LINT) ## Check format, dependencies between packages, and style
	$(GOLANGCI_LINT) run

.PHONY: check-format
check-format:
	@unformatted=$$(gofmt -s -l $(GO_SOURCES)); [[ -z $$unformatted ]] || { printf 'not formatted (make format):\n%s\n' "$$unformatted" >&2; exit 1; }
	@$(call need,$(CLANG_FORMAT),apt-get install clang-format-19)
	$(CLANG_FORMAT) --dry-run -Werror $(C_SOURCES)

.PHONY: format
format: ## Format the Go and C sources
	gofmt -s -w $(GO_SOURCES)
	@$(call need,$(CLANG_FORMAT),apt-get install clang-format-19)
	$(CLANG_FORMAT) -i $(C_SOURCES)

.PHONY: clean
clean: ## Remove what the other targets built
	rm -rf bin build build.log .tools

$(BUILDER): tools/go.mod
	@$(need_go)
	$(say) "building ocb"
	@$(GO) build -C tools -o ../$@ go.opentelemetry.io/collector/cmd/builder

$(MDATAGEN): tools/go.mod
	@$(need_go)
	$(say) "building mdatagen"
	@$(GO) build -C tools -o ../$@ go.opentelemetry.io/collector/cmd/mdatagen

$(GOLANGCI_LINT): tools/lint/go.mod
	@$(need_go)
	$(say) "building golangci-lint"
	@$(GO) build -C tools/lint -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
