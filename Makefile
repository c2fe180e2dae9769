# A thin front: Meson and Ninja do the work. `make help` lists what there is.
BUILD ?= build
PREFIX ?= /usr/local
SECONDS ?= 60
.PHONY: all test unit sanitize tsan fuzz clang format format-check layering demo install clean help

all: $(BUILD)/build.ninja ## the program, at build/holon
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@scripts/deps build
	@meson setup $(BUILD) --buildtype=debugoptimized

test: ## everything; the last line counts what passed and failed
	@scripts/deps build test
	@BUILD="$(BUILD)" scripts/test

unit: all ## unit tests
	@meson test -C $(BUILD) --suite unit --logbase unit --print-errorlogs

sanitize: build-asan/build.ninja ## unit tests under AddressSanitizer and UBSan
	@meson test -C build-asan --suite unit --logbase unit --print-errorlogs

tsan: build-tsan/build.ninja ## the tests that use threads, under ThreadSanitizer
	@meson test -C build-tsan --suite threads --logbase threads --print-errorlogs

fuzz: build-fuzz/build.ninja ## each fuzz target for SECONDS=60
	@FUZZ_SECONDS=$(SECONDS) meson test -C build-fuzz --suite fuzz --logbase fuzz --print-errorlogs

clang: build-clang/build.ninja ## builds everything with clang, warnings being errors
	@ninja -C build-clang

build-asan/build.ninja:
	@scripts/deps build
	@meson setup build-asan -Db_sanitize=address,undefined

build-tsan/build.ninja:
	@scripts/deps build
	@meson setup build-tsan -Db_sanitize=thread

build-clang/build.ninja:
	@scripts/deps build test
	@CC=clang meson setup build-clang

build-fuzz/build.ninja:
	@scripts/deps build test
	@CC=clang meson setup build-fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false

format: ## formats all C files
	@scripts/format-check --fix

format-check: ## names files that are not formatted
	@scripts/format-check

layering: ## holds #include lines to the table of rooms
	@scripts/deps layering
	@scripts/layering

demo: ## from here to a login on a full Debian in a VM; installs what is missing
	@BUILD="$(BUILD)" scripts/demo

install: all ## to PREFIX=/usr/local, under DESTDIR if given
	@meson configure $(BUILD) --prefix="$(abspath $(PREFIX))"
	@DESTDIR="$(DESTDIR)" meson install -C $(BUILD)

clean: ## removes all build directories
	rm -rf $(BUILD) build-asan build-tsan build-clang build-fuzz

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
