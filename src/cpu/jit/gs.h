/* gs: this thread's GS base, by instruction where the kernel allows, else by system call. */
#pragma once

#include <stdint.h>

uint64_t jit_gs_get(void);
void jit_gs_set(uint64_t v);
