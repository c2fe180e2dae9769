#include "base/spin.h"

#include <sched.h>

uint32_t spin_limit(uint32_t max_ns)
{
	cpu_set_t set;

	/* Fails where there are more processors than fit: then it is not one. */
	return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) == 1 ? 0 : max_ns;
}
