/* futex: sleeping and a lock for quick code, which calls nothing of libc (jit_priv.h). */
#pragma once

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>

static inline void futex_call(_Atomic uint32_t *at, unsigned op, uint32_t v)
{
	register uint64_t timeout __asm__("r10") = 0;
	uint64_t r = SYS_futex;

	__asm__ volatile("syscall"
			 : "+a"(r)
			 : "D"(at), "S"((uint64_t)op), "d"((uint64_t)v), "r"(timeout)
			 : "rcx", "r11", "memory");
}

/* Returns at once when *at is not seen, and perhaps for no reason. */
static inline void futex_wait(_Atomic uint32_t *at, uint32_t seen)
{
	futex_call(at, FUTEX_WAIT_PRIVATE, seen);
}

static inline void futex_wake(_Atomic uint32_t *at, uint32_t waiters)
{
	futex_call(at, FUTEX_WAKE_PRIVATE, waiters);
}

/* Others that are ready to run get the CPU. */
static inline void futex_yield(void)
{
	uint64_t r = SYS_sched_yield;

	__asm__ volatile("syscall" : "+a"(r) : : "rcx", "r11", "memory");
}

/* Some 100 microseconds, for others to get on. */
static inline void futex_pause(void)
{
	struct {
		int64_t sec, nsec;
	} by = {0, 100000};
	uint64_t r = SYS_nanosleep;

	__asm__ volatile("syscall" : "+a"(r) : "D"(&by), "S"(0ul) : "rcx", "r11", "memory");
}

/* 0: free, 1: held, 2: held, and perhaps waited for */
struct futex_lock {
	_Atomic uint32_t state;
};

static inline int futex_trylock(struct futex_lock *l)
{
	uint32_t is_free = 0;

	return atomic_compare_exchange_strong(&l->state, &is_free, 1);
}

static inline void futex_take(struct futex_lock *l)
{
	if (futex_trylock(l))
		return;
	while (atomic_exchange(&l->state, 2))
		futex_wait(&l->state, 2);
}

static inline void futex_give(struct futex_lock *l)
{
	if (atomic_exchange(&l->state, 0) == 2)
		futex_wake(&l->state, 1);
}
