/* native: the oracle. Runs user cases on the processor itself, with the windows of user.h
 * mapped at their addresses, and reports how each ended, exactly: registers, flags,
 * vector and x87 state, memory, and the exception with error code and CR2, which a signal
 * handler takes from the signal frame. Single-threaded; batch.h runs it in a child. */
#pragma once

#include "batch.h"

extern const struct batch_runner native_runner;
