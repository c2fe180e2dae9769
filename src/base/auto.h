/* auto: scratch locals that clean up after themselves. Never for an object being
 * built (its destructor does that), and never in a frame that the translator's
 * long jump may cross. */
#pragma once

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void auto_free_(void *p)
{
	free(*(void **)p);
}

static inline void auto_close_(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void auto_fclose_(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void auto_unlock_(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *auto_lock_(pthread_mutex_t *m)
{
	pthread_mutex_lock(m);
	return m;
}

#define AUTO_FREE   __attribute__((cleanup(auto_free_)))
#define AUTO_CLOSE  __attribute__((cleanup(auto_close_)))
#define AUTO_FCLOSE __attribute__((cleanup(auto_fclose_)))
/* Holds the mutex until the end of the block. */
#define AUTO_LOCK(m)                                                                               \
	__attribute__((cleanup(auto_unlock_), unused)) pthread_mutex_t *auto_guard_ = auto_lock_(m)
