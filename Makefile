# A thin front: Meson and Ninja do the work.
BUILD ?= build
.PHONY: all test clean

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@meson setup $(BUILD) >/dev/null || meson setup $(BUILD)

clean:
	rm -rf $(BUILD)
