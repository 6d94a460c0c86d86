# SPDX-License-Identifier: GPL-3.0-or-later
#
# make                 the commands, in build/cmd
# make check           every test (what scripts/check runs after installing the packages)
# make install         to $(DESTDIR)$(PREFIX); make uninstall
# make dist            a source archive of the committed tree
# make lint            static checks of C, shell and manual pages
# make fuzz            the fuzzers, in build/fuzz; scripts/fuzz runs them (clang)
# make SAN=1 ...       the same with AddressSanitizer and UBSan, in build-san

PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
MANDIR  ?= $(PREFIX)/share/man
DESTDIR ?=
CC      ?= cc
CFLAGS  ?= -O2 -g
SAN     ?=

VERSION := $(shell sed -n 's/^#define PREP_VERSION "\(.*\)"/\1/p' libprep/version.h)

ifeq ($(SAN),1)
BUILD   := build-san
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
else
BUILD   := build
SANFLAGS :=
endif

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wwrite-strings -Wvla -Wformat=2
ALL_CPPFLAGS := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -iquote . $(CPPFLAGS)
ALL_CFLAGS   := -std=c17 $(WARN) -fstack-protector-strong -D_FORTIFY_SOURCE=2 $(CFLAGS) $(SANFLAGS)
ALL_LDFLAGS  := -Wl,-z,relro,-z,now $(LDFLAGS) $(SANFLAGS)
LIBS := -lntfs-3g -lvhdi -lcurl -ljansson -lexpat -lcrypto -lseccomp -lzstd -llzma -lz -lpthread

CMDS  := $(basename $(notdir $(wildcard cmd/vhd-*.c cmd/ckm-*.c)))
PAGES := $(wildcard man/*.[1-8])
UNIT  := $(basename $(notdir $(wildcard tests/unit/*.c)))
TOOLS := $(basename $(notdir $(wildcard tests/tools/*.c)))
PRELOADS := $(basename $(notdir $(wildcard tests/preload/*.c)))
FUZZ  := $(basename $(notdir $(wildcard tests/fuzz/*.c)))

LIB_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard libprep/*/*.c))
LIB     := $(BUILD)/libprep.a
CMD_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(CMDS:%=cmd/%.c),$(wildcard cmd/*.c)))
FUZZ_OBJ := $(patsubst %.c,build/fuzz/obj/%.o,$(wildcard libprep/*/*.c))
OBJ     := $(LIB_OBJ) $(FUZZ_OBJ) $(patsubst %.c,build/fuzz/obj/%.o,$(wildcard tests/fuzz/*.c)) $(patsubst %.c,$(BUILD)/%.o, \
	$(wildcard cmd/*.c tests/unit/*.c tests/tools/*.c tests/tools/*/*.c tests/fuzz/*.c))

.PHONY: all check install uninstall dist lint fuzz clean tests
.SECONDARY:

all: $(CMDS:%=$(BUILD)/cmd/%)

tests: all $(UNIT:%=$(BUILD)/tests/unit/%) $(TOOLS:%=$(BUILD)/tests/%) $(PRELOADS:%=$(BUILD)/tests/%.so) \
	$(FUZZ:%=$(BUILD)/tests/fuzz/%)

$(BUILD)/cmd/%: $(BUILD)/cmd/%.o $(CMD_OBJ) $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ -Wl,--as-needed $(LIBS)

$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ -Wl,--as-needed $(LIBS)

# Without a fuzzing engine: they replay stored inputs.
$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ -Wl,--as-needed $(LIBS)

# Independent of the library on purpose: they make and judge what it works on.
$(BUILD)/tests/%: $(BUILD)/tests/tools/%.o
	$(CC) $(ALL_LDFLAGS) -o $@ $^ -Wl,--as-needed $(LIBS)

$(BUILD)/tests/ntfs-populate: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/tools/populate/*.c))

# Loaded into the commands by LD_PRELOAD. Never sanitized: the program brings the sanitizer. Without
# _FILE_OFFSET_BITS: then pwrite and pwrite64 are two names.
$(BUILD)/tests/%.so: tests/preload/%.c
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE -std=c17 $(WARN) $(CFLAGS) -fPIC -shared -o $@ $< -ldl

$(LIB): $(LIB_OBJ)
	rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

FUZZ_CC    := clang
FUZZ_FLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

fuzz: $(FUZZ:%=build/fuzz/%)

build/fuzz/obj/%.o: %.c
	@mkdir -p $(@D)
	$(FUZZ_CC) $(ALL_CPPFLAGS) -DPREP_FUZZ_ENGINE -std=c17 $(WARN) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link \
		-MMD -MP -c -o $@ $<

build/fuzz/obj/libprep.a: $(FUZZ_OBJ)
	rm -f $@
	$(AR) rcs $@ $^

build/fuzz/%: build/fuzz/obj/tests/fuzz/%.o build/fuzz/obj/libprep.a
	$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer -o $@ $^ -Wl,--as-needed $(LIBS)

check: tests
	BUILD=$(BUILD) tests/run

install: all
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man5 $(DESTDIR)$(MANDIR)/man7
	install -m 755 $(CMDS:%=$(BUILD)/cmd/%) $(DESTDIR)$(BINDIR)
	for page in $(PAGES); do \
		install -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.} || exit 1; \
	done

uninstall:
	for cmd in $(CMDS); do rm -f $(DESTDIR)$(BINDIR)/$$cmd; done
	for page in $(notdir $(PAGES)); do rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$$page; done

dist:
	git archive --format=tar --prefix=prep-$(VERSION)/ HEAD | xz -T0 > prep-$(VERSION).tar.xz

lint:
	scripts/lint

clean:
	rm -rf build build-san

-include $(OBJ:.o=.d)
