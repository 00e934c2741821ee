# headrace: `make` builds build/release/headrace; `make help` lists the rest.
#
#   VARIANT=release|debug|asan|tsan|fuzz|cov   CC=gcc|clang-14   BUILD=DIR

VARIANT ?= release
BUILD   ?= $(or $(HEADRACE_BUILD),build)
# However it is spelled: dependencies are by name.
override BUILD := $(patsubst $(CURDIR)/%,%,$(BUILD))
O       := $(BUILD)/$(VARIANT)
$(if $(word 2,$(BUILD)),$(error BUILD=$(BUILD): the path of the build folder must not have spaces))

ifeq ($(origin CC),default)
CC  := $(if $(filter fuzz,$(VARIANT)),clang-14,gcc)
endif
ifeq ($(origin CXX),default)
CXX := $(if $(findstring clang,$(CC)),$(subst clang,clang++,$(CC)),g++)
endif

WARN := -Wall -Wextra -Wshadow -Wvla -Wpointer-arith -Wformat=2 -Wimplicit-fallthrough -Wundef -Werror \
	-Wno-unused-parameter
CWARN := $(WARN) -Wstrict-prototypes -Wmissing-prototypes
HARDEN := -fstack-protector-strong -fPIE
CPPFLAGS_ALL := -D_GNU_SOURCE -Isrc -I$(O)/gen $(CPPFLAGS)
COMMON := -g -fno-strict-aliasing -fwrapv -fno-omit-frame-pointer $(HARDEN)
# Our own calls of malloc are counted (base/heap.h); -u, so that the counters are there for libraries that follow.
WRAP := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,-u,__wrap_malloc
LDFLAGS_ALL := -pie $(WRAP) -Wl,-z,relro,-z,now,-z,noexecstack $(LDFLAGS)
LDLIBS_ALL  := -luv -ljansson -lsqlite3 -lzmq -lssl -lcrypto -lpthread -lm $(LDLIBS)

ifeq ($(VARIANT),release)
COMMON += -O3 -D_FORTIFY_SOURCE=2
UNIT_OPT := -O1
# The programs are optimised as a whole; the tests link the same objects as they are, which is quicker.
LTO := $(if $(findstring clang,$(CC)),,-flto=auto -ffat-lto-objects)
else ifeq ($(VARIANT),debug)
COMMON += -O0 -DHEADRACE_SLOW_CHECKS
else ifeq ($(VARIANT),asan)
COMMON += -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -DHEADRACE_SLOW_CHECKS
LDFLAGS_ALL += -fsanitize=address,undefined
else ifeq ($(VARIANT),tsan)
COMMON += -O1 -fsanitize=thread -DHEADRACE_SLOW_CHECKS
LDFLAGS_ALL += -fsanitize=thread
else ifeq ($(VARIANT),fuzz)
COMMON += -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -DHEADRACE_SLOW_CHECKS
LDFLAGS_ALL += -fsanitize=address,undefined
else ifeq ($(VARIANT),cov)
COMMON += -O0 --coverage -fprofile-update=atomic
LDFLAGS_ALL += --coverage
else
$(error VARIANT=$(VARIANT) is not one of release debug asan tsan fuzz cov)
endif

CFLAGS_ALL   := -std=c17 $(CWARN) $(COMMON) -include src/base/banned.h $(CFLAGS)
CXXFLAGS_ALL := -std=c++17 $(WARN) $(COMMON) $(CXXFLAGS)

SRC    := $(filter-out src/main.c,$(wildcard src/*/*.c))
SRCXX  := $(wildcard src/*/*.cpp)
OBJ    := $(SRC:%.c=$(O)/%.o) $(SRCXX:%.cpp=$(O)/%.o)
LIB    := $(O)/libheadrace.a
UNIT   := $(patsubst tests/%.c,$(O)/tests/%,$(wildcard tests/unit/*/test_*.c tests/virtual/test_*.c))
FUZZ   := $(patsubst tests/%.c,$(O)/tests/%,$(wildcard tests/fuzz/fuzz_*.c))
CHAOS  := $(patsubst tests/%.c,$(O)/tests/%,$(wildcard tests/chaos/*.c))
BENCH  := $(patsubst tests/%.c,$(O)/tests/%,$(wildcard tests/bench/*.c))

# `make V=1` shows the commands.
Q := $(if $(V),,@)

.PHONY: all static install units fuzzers chaostools benchtools check fmt fmt-check layers headers named-tests migration-check lint cov man man-check clean help compdb
.DELETE_ON_ERROR:
.SECONDARY:

all: $(O)/headrace

$(O)/headrace: $(O)/src/main.o $(LIB)
	@echo "  LD   $@"
	$(Q)$(CXX) $(COMMON) $(LTO) $(LDFLAGS_ALL) -o $@ $^ $(LDLIBS_ALL)

$(LIB): $(OBJ)
	@rm -f $@
	@echo "  AR   $@"
	$(Q)ar rcs $@ $^

$(O)/src/%.o: src/%.c Makefile
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(LTO) -MMD -MP -c -o $@ $<

$(O)/src/%.o: src/%.cpp Makefile
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CXX) $(CPPFLAGS_ALL) $(CXXFLAGS_ALL) -MMD -MP -c -o $@ $<

# A test may include the .c it tests to reach its statics: the library's own copy is then not pulled in.
$(UNIT): EXTRA := -lcmocka
$(UNIT:%=%.o): OPT := $(UNIT_OPT)
$(FUZZ): EXTRA := -fsanitize=fuzzer

$(O)/tests/%.o: tests/%.c Makefile
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CPPFLAGS_ALL) -Itests $(CFLAGS_ALL) $(OPT) -MMD -MP -c -o $@ $<

$(O)/tests/%: $(O)/tests/%.o $(LIB)
	@echo "  LD   $@"
	$(Q)$(CXX) $(COMMON) $(if $(LTO),-fno-lto) $(LDFLAGS_ALL) -o $@ $< $(LIB) $(EXTRA) $(LDLIBS_ALL)

-include $(OBJ:.o=.d) $(O)/src/main.d $(UNIT:=.d) $(FUZZ:=.d) $(CHAOS:=.d) $(BENCH:=.d)

units: $(UNIT)
fuzzers: $(FUZZ)
chaostools: $(CHAOS)
benchtools: $(BENCH)

# libzmq knows transports and a mechanism that nothing here uses; for GSSAPI Debian has no static library.
ZMQ_STATIC := -lzmq -lsodium -lpgm -lnorm -lprotokit -lbsd -lmd \
	$(foreach f,accept_sec_context acquire_cred delete_sec_context display_name import_name init_sec_context \
	  release_buffer release_cred release_name unwrap wrap,-Wl,--defsym=gss_$f=abort) \
	-Wl,--defsym=GSS_C_NT_HOSTBASED_SERVICE=0,--defsym=GSS_C_NT_USER_NAME=0
static: ## one statically linked binary, build/release/headrace-static
	$(MAKE) $(O)/headrace-static
$(O)/headrace-static: $(O)/src/main.o $(LIB)
	@echo "  LD   $@"
	$(Q)$(CXX) $(COMMON) $(LTO) -static $(WRAP) $(LDFLAGS) -o $@ $^ -l:libuv_a.a -ljansson -lsqlite3 $(ZMQ_STATIC) -lssl -lcrypto -lpthread -ldl -lrt -lm

check: layers headers fmt-check named-tests man-check migration-check units ## the cheap gate: borders, headers, format, names of tests, manual and migration pages, unit and virtual tests
	tests/run --build $(O) unit virtual

layers:
	tools/layers

headers:
	$(Q)tools/headers $(CC) $(CPPFLAGS_ALL) -std=c17 $(CWARN)

named-tests:
	$(Q)tools/named-tests

FORMATTED := $(wildcard src/*.[ch] src/*/*.[ch] src/*/*.cpp tests/*/*.[ch] tests/*/*/*.[ch])
fmt: ## clang-format 14 over the tree
	clang-format-14 -i $(FORMATTED)
fmt-check:
	$(Q)clang-format-14 --dry-run --Werror $(FORMATTED)

lint: compdb ## clang-tidy and cppcheck with their short lists
	tools/lint $(BUILD)

cov: ## line coverage of src/ by unit, virtual, wire and some integration tests
	tools/cov

PAGES := router registry babysitter ctl sim
man: all ## the manual pages in docs/, from the option tables
	for p in $(PAGES); do $(O)/headrace $$p --man > docs/headrace-$$p.1; done
man-check: all
	@echo "  MAN  $(PAGES:%=docs/headrace-%.1)"
	$(Q)for p in $(PAGES); do $(O)/headrace $$p --man | diff -u docs/headrace-$$p.1 - || \
	  { echo 'stale: make man' >&2; exit 1; }; done

# What is there under one of the other names stays.
PREFIX ?= /usr/local
NAMES  := infini-router infini-registry infini-babysitter vllm-router
install: all ## headrace, the names that it stands in for and the manual pages, into PREFIX (/usr/local) below DESTDIR
	install -D $(O)/headrace $(DESTDIR)$(PREFIX)/bin/headrace
	for n in $(NAMES); do [ -e $(DESTDIR)$(PREFIX)/bin/$$n ] || ln -sf headrace $(DESTDIR)$(PREFIX)/bin/$$n; done
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 $(PAGES:%=docs/headrace-%.1)

migration-check: all
	$(Q)tools/migration $(O)/headrace

compdb:
	@mkdir -p $(BUILD)
	@printf '[\n%s\n]\n' "$$(for f in $(SRC) src/main.c; do \
	  printf '{"directory":"%s","file":"%s","command":"%s"},\n' '$(CURDIR)' "$$f" \
	  "clang-14 $(CPPFLAGS_ALL) $(filter-out -fprofile-update=atomic,$(CFLAGS_ALL)) -c $$f"; done | sed '$$ s/,$$//')" \
	  > $(BUILD)/compile_commands.json

clean:
	rm -rf $(O)

help:
	@echo "make                 $(O)/headrace"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 21
	@echo "make VARIANT=debug|asan|tsan|fuzz|cov [all units fuzzers chaostools benchtools]"
