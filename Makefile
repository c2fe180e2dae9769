# A thin front: Meson and Ninja do the work.
BUILD ?= build
.PHONY: all test demo clean

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@meson setup $(BUILD) >/dev/null || meson setup $(BUILD)

clean:
	rm -rf $(BUILD)

# From here to a shell in a guest that runs Debian's kernel; installs what is missing.
demo:
	@BUILD="$(BUILD)" scripts/demo
