# nsad: `make run` serves the demo models, `make test` runs every test. These and `make bench-peers`
# install what is missing (Debian, as root or with sudo); every other target touches nothing outside
# build/.

MODE ?= release
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0
REVISION := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

CC = gcc
AR = gcc-ar
CLANG_FORMAT ?= clang-format
PKG_CONFIG ?= pkg-config

LIB_PACKAGES := jansson openblas nettle
SERVER_PACKAGES := libmicrohttpd jansson zlib nettle
TEST_PACKAGES := cmocka libcurl

# What Debian calls what the build and the tests need.
BUILD_DEPS := gcc libc6-dev pkg-config libmicrohttpd-dev libjansson-dev libopenblas-dev zlib1g-dev \
              nettle-dev
TEST_DEPS := $(BUILD_DEPS) git curl clang libcmocka-dev libcurl4-openssl-dev python3 python3-yaml \
             python3-jsonschema python3-numpy nodejs
PEER_DEPS := $(BUILD_DEPS) libdnnl-dev python3-numpy python3-torch python3-fastapi python3-uvicorn \
             python3-uvloop python3-httptools

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wvla -Wundef
X86 := $(filter x86_64-%,$(shell $(CC) -dumpmachine))
HARDENING := -fstack-protector-strong -fPIE $(if $(X86),-fcf-protection)
BASE_CFLAGS := -std=c11 -D_GNU_SOURCE -ffp-contract=off -g $(WARNINGS) -Ilib/include -I. -MMD -MP $(WERROR)
LDLIBS := -lm -lpthread

# Element-wise loops are vectorised by the compiler: -O3. No -ffast-math, here or anywhere: NaN and
# infinity are values that the operations answer for.
CFLAGS_release := -O3 -D_FORTIFY_SOURCE=2 $(HARDENING)
LDFLAGS_release := -pie -Wl,-z,relro,-z,now
CFLAGS_clang := $(CFLAGS_release)
CFLAGS_asan := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
LDFLAGS_asan := -fsanitize=address,undefined
CFLAGS_tsan := -O1 -fno-omit-frame-pointer -fsanitize=thread
LDFLAGS_tsan := -fsanitize=thread

B := build/$(MODE)
OUT := $(if $(filter release,$(MODE)),build,$(B))
NSAD := $(OUT)/nsad
LIBNSA := $(OUT)/libnsa.a

LIB_SRC := $(wildcard lib/*.c lib/ops/*.c lib/ops/kernels/*.c)
SERVER_SRC := $(wildcard server/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
SUPPORT_SRC := tests/unit/support.c
INTEGRATION_SRC := $(wildcard tests/integration/*.c)
TOOL_SRC := tests/options_markdown.c

LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
SERVER_OBJ := $(SERVER_SRC:%.c=$(B)/%.o)
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(B)/unit/%)
INTEGRATION_BIN := $(B)/integration/nsad_test

pkg = $(shell $(PKG_CONFIG) --$(1) $(2) 2>/dev/null)
CFLAGS_ALL = $(BASE_CFLAGS) $(CFLAGS_$(MODE)) $(CFLAGS)
LIB_LIBS = $(call pkg,libs,$(LIB_PACKAGES)) $(LDLIBS)
SERVER_LIBS = $(call pkg,libs,$(SERVER_PACKAGES)) $(LIB_LIBS)

.PHONY: all
all: $(NSAD) $(LIBNSA)

# Install those of the packages in $(1) that are missing.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
define install_missing
@missing=$$(for package in $(1); do \
    dpkg-query -W -f '$${db:Status-Abbrev}' $$package 2>/dev/null | grep -q '^.i' || \
    echo $$package; done); \
[ -z "$$missing" ] || { echo "installing" $$missing; $(SUDO) apt-get update -q && \
    $(SUDO) env DEBIAN_FRONTEND=noninteractive \
    apt-get install -yq --no-install-recommends $$missing; }
endef

.PHONY: build-deps
build-deps:
	$(call install_missing,$(BUILD_DEPS))

.PHONY: run
run: build-deps
	@$(MAKE) --no-print-directory all
	exec build/nsad --model-repository docker/models

.PHONY: test
test:
	$(call install_missing,$(TEST_DEPS))
	@tests/run

# --- library ---------------------------------------------------------------------------------

# ISA flags are per file; lib/cpu.c calls these kernels only where the processor has them.
ifneq ($(X86),)
$(B)/lib/ops/kernels/%_avx2.o: ISA_CFLAGS := -mavx2 -mfma
AVX512_CFLAGS := -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl -mfma \
                 -mprefer-vector-width=512
$(B)/lib/ops/kernels/%_avx512.o: ISA_CFLAGS := $(AVX512_CFLAGS)
$(B)/lib/ops/kernels/%_avx512bf16.o: ISA_CFLAGS := $(AVX512_CFLAGS) -mavx512bf16
$(B)/lib/ops/kernels/%_amx.o: ISA_CFLAGS := $(AVX512_CFLAGS) -mamx-tile -mamx-bf16
endif
$(B)/lib/%.o: PACKAGE_CFLAGS = $(call pkg,cflags,$(LIB_PACKAGES))

$(LIBNSA): $(LIB_OBJ)
	rm -f $@ && $(AR) rcs $@ $^

# --- server ----------------------------------------------------------------------------------

$(B)/server/%.o: PACKAGE_CFLAGS = $(call pkg,cflags,$(SERVER_PACKAGES))
$(B)/server/version.o: EXTRA_CFLAGS = -DNSAD_VERSION='"$(VERSION)"' -DNSAD_REVISION='"$(REVISION)"'
$(B)/server/version.o: $(B)/revision
$(B)/revision: FORCE
	@mkdir -p $(@D)
	@echo '$(VERSION) $(REVISION)' | cmp -s - $@ || echo '$(VERSION) $(REVISION)' >$@
.PHONY: FORCE
FORCE:
$(B)/server/openapi.o: server/openapi.S openapi.yaml
	@mkdir -p $(@D)
	$(CC) -c -o $@ $<

# The rest of the sources follow one rule.
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(PACKAGE_CFLAGS) $(EXTRA_CFLAGS) $(ISA_CFLAGS) -c -o $@ $<

$(NSAD): $(SERVER_OBJ) $(B)/server/openapi.o $(LIBNSA)
	$(CC) $(LDFLAGS_$(MODE)) $(LDFLAGS) -o $@ $^ $(SERVER_LIBS)

# --- tests -----------------------------------------------------------------------------------

# Unit tests link everything but main, and go through allocators that fail on demand.
WRAP := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc
UNIT_OBJ := $(SUPPORT_SRC:%.c=$(B)/%.o) $(filter-out %/main.o,$(SERVER_OBJ)) $(B)/server/openapi.o

$(B)/tests/%.o: PACKAGE_CFLAGS = $(call pkg,cflags,$(TEST_PACKAGES) $(LIB_PACKAGES)) -I.

$(B)/unit/%: $(B)/tests/unit/%.o $(UNIT_OBJ) $(LIBNSA)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_$(MODE)) $(WRAP) -o $@ $^ $(SERVER_LIBS) $(call pkg,libs,cmocka)

$(INTEGRATION_BIN): $(INTEGRATION_SRC:%.c=$(B)/%.o) $(SUPPORT_SRC:%.c=$(B)/%.o) $(LIBNSA)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_$(MODE)) $(WRAP) -o $@ $^ $(LIB_LIBS) $(call pkg,libs,$(TEST_PACKAGES))

$(B)/options_markdown: $(B)/tests/options_markdown.o $(UNIT_OBJ) $(LIBNSA)
	$(CC) $(LDFLAGS_$(MODE)) $(WRAP) -o $@ $^ $(SERVER_LIBS) $(call pkg,libs,cmocka)

# The programs that measure; tests/bench/bench.py runs them.
BENCH_SRC := $(wildcard tests/bench/*.c)
BENCH_PEAK_SRC := $(wildcard tests/bench/peak*.c)
BENCH_PROGRAMS := $(B)/bench_kernels $(B)/bench_load $(B)/bench_bare
bench_obj = $(patsubst %,$(B)/tests/bench/%.o,$(1))

ifneq ($(X86),)
$(B)/tests/bench/peak_avx2.o: ISA_CFLAGS := -mavx2 -mfma
$(B)/tests/bench/peak_avx512.o: ISA_CFLAGS := -mavx512f -mavx512dq
$(B)/tests/bench/peak_bf16.o: ISA_CFLAGS := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx512bf16
endif
$(B)/bench_kernels: $(call bench_obj,kernels measure protocol) $(BENCH_PEAK_SRC:%.c=$(B)/%.o) \
                    $(LIBNSA)
$(B)/bench_load: $(call bench_obj,load load_run measure protocol)
$(B)/bench_bare: $(call bench_obj,bare measure)
$(B)/bench_bare: BENCH_LIBS = $(call pkg,libs,libmicrohttpd)
$(B)/bench_dnnl: $(call bench_obj,peer_dnnl measure protocol) $(LIBNSA)
$(B)/bench_dnnl: BENCH_LIBS = -ldnnl
$(BENCH_PROGRAMS) $(B)/bench_dnnl:
	$(CC) $(LDFLAGS_$(MODE)) $(LDFLAGS) -o $@ $^ $(BENCH_LIBS) $(LIB_LIBS)

# What one mode's tests need.
.PHONY: test-programs
test-programs: $(NSAD) $(UNIT_BIN) $(INTEGRATION_BIN) $(B)/options_markdown

.PHONY: check-asan check-tsan
check-asan check-tsan: check-%:
	@tests/run $*

# The longer form of what the unit tests sample: minutes.
.PHONY: check-gelu
check-gelu: $(B)/unit/test_activations
	$< every-float

# Every source compiled by clang as well, for its warnings.
.PHONY: objects
objects: $(LIB_OBJ) $(SERVER_OBJ) $(UNIT_SRC:%.c=$(B)/%.o) $(SUPPORT_SRC:%.c=$(B)/%.o) \
         $(INTEGRATION_SRC:%.c=$(B)/%.o) $(TOOL_SRC:%.c=$(B)/%.o) \
         $(filter-out %/peer_dnnl.o,$(BENCH_SRC:%.c=$(B)/%.o))

# --- the rest --------------------------------------------------------------------------------

FORMATTED := $(shell git ls-files '*.c' '*.h' 2>/dev/null)

# BENCH_QUICK=1: a look at everything, for half a minute; its figures are too short to mean much.
# The two variables, where set, make OpenBLAS slower.
BENCH_ENV := env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE
BENCH_OUT = build/bench$(if $(BENCH_QUICK),-quick).json
BENCH_FLAGS = --nsad $(NSAD) --programs $(B) $(if $(BENCH_QUICK),--quick)
.PHONY: bench
bench: $(NSAD) $(BENCH_PROGRAMS)
	$(BENCH_ENV) /usr/bin/python3 tests/bench/bench.py $(BENCH_FLAGS) --out $(BENCH_OUT)

# What others need for the same weights and bodies: oneDNN, PyTorch, FastAPI, onnxruntime. What can't
# be had, for want of a network, is left out; peers.py says what that is.
ONNXRUNTIME := onnxruntime-node@1.30.0
PEER_MODULES := build/peers/node_modules
.PHONY: bench-peers
bench-peers:
	-$(call install_missing,$(PEER_DEPS) $(if $(shell command -v npm),,nodejs npm))
	-@[ -d $(PEER_MODULES)/onnxruntime-node ] || npm install --prefix build/peers \
	    --ignore-scripts --no-audit --no-fund $(ONNXRUNTIME)
	-@$(MAKE) --no-print-directory $(B)/bench_dnnl
	@$(MAKE) --no-print-directory $(NSAD) $(BENCH_PROGRAMS)
	$(BENCH_ENV) /usr/bin/python3 tests/bench/peers.py $(BENCH_FLAGS) --modules $(PEER_MODULES) \
	    --out $(BENCH_OUT:build/bench%=build/bench-peers%)

# Write what the two measured last into tests/bench/RESULTS.md, with plots.
.PHONY: bench-report
bench-report:
	/usr/bin/python3 tests/bench/results.py build/bench.json build/bench-peers.json

.PHONY: format lint docs image clean
format:
	$(CLANG_FORMAT) -i $(FORMATTED)

lint:
	$(CLANG_FORMAT) --dry-run -Werror $(FORMATTED)

# Write the table of options into README.md.
docs: $(B)/options_markdown
	$< >$(B)/options.md
	sed -i -e '/<!-- options/,/<!-- \/options/{//!d}' -e '/<!-- options/r $(B)/options.md' README.md

image:
	docker build -t nsad:$(VERSION) .

clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
