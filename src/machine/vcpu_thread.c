#include "machine/vcpu_thread.h"

#include <errno.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/thread.h"

void vcpu_thread_init(struct vcpu_thread *t, struct vcpu_owner *owner)
{
	*t = (struct vcpu_thread){.owner = owner, .order = VCPU_PARK, .parked = true};
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->changed, NULL);
}

void vcpu_thread_done(struct vcpu_thread *t)
{
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
}

static bool may_run(struct vcpu_thread *t)
{
	AUTO_LOCK(&t->lock);
	while (t->throttled && t->order == VCPU_RUN && !t->hold)
		pthread_cond_wait(&t->changed, &t->lock);
	return t->order == VCPU_RUN && !t->hold;
}

/* Stays until the order is to run or to quit. */
static enum vcpu_order wait_for_order(struct vcpu_thread *t)
{
	AUTO_LOCK(&t->lock);
	t->parked = true;
	pthread_cond_broadcast(&t->changed);
	while (t->order == VCPU_PARK)
		pthread_cond_wait(&t->changed, &t->lock);
	t->parked = false;
	return t->order;
}

/* The vCPU has nothing more to do by itself. */
static void wait_while_ordered_to_run(struct vcpu_thread *t)
{
	AUTO_LOCK(&t->lock);
	while (t->order == VCPU_RUN)
		pthread_cond_wait(&t->changed, &t->lock);
}

static void run_guest(struct vcpu_thread *t)
{
	const struct engine *engine = t->vcpu->engine;

	while (may_run(t)) {
		enum vcpu_stop why = VCPU_KICKED;
		struct err err = {0};
		int r = engine->run(t->vcpu, &why, &err);

		if (r >= 0 && why == VCPU_KICKED)
			continue;
		if (r < 0)
			t->owner->failed(t->owner, t, &err);
		else
			t->owner->ended(t->owner, t, why);
		return;
	}
}

static void *vcpu_main(void *arg)
{
	struct vcpu_thread *t = arg;

	while (wait_for_order(t) == VCPU_RUN) {
		run_guest(t);
		wait_while_ordered_to_run(t);
	}
	return NULL;
}

int vcpu_thread_start(struct vcpu_thread *t, unsigned index, struct err *e)
{
	char name[16];
	const struct thread_opts o = {.role = THREAD_VCPU, .name = name};
	int r;

	snprintf(name, sizeof name, "vcpu%u", index);
	r = thread_start(&t->thread, &o, vcpu_main, t);
	if (r < 0)
		return err_sys(e, -r, "thread of vCPU %u", index);
	t->started = true;
	return 0;
}

static void give_order(struct vcpu_thread *t, enum vcpu_order order)
{
	AUTO_LOCK(&t->lock);
	t->order = order;
	t->hold = false;
	pthread_cond_broadcast(&t->changed);
}

void vcpu_thread_resume(struct vcpu_thread *t)
{
	give_order(t, VCPU_RUN);
}

void vcpu_thread_park(struct vcpu_thread *t)
{
	give_order(t, VCPU_PARK);
	t->vcpu->engine->kick(t->vcpu);
}

void vcpu_thread_wait_parked(struct vcpu_thread *t)
{
	AUTO_LOCK(&t->lock);
	while (t->started && !t->parked)
		pthread_cond_wait(&t->changed, &t->lock);
}

void vcpu_thread_hold(struct vcpu_thread *t)
{
	AUTO_LOCK(&t->lock);
	t->hold = true;
	if (t->vcpu)
		t->vcpu->engine->kick(t->vcpu);
}

void vcpu_thread_throttle(struct vcpu_thread *t, bool throttled)
{
	AUTO_LOCK(&t->lock);
	if (t->throttled == throttled)
		return;
	t->throttled = throttled;
	pthread_cond_broadcast(&t->changed);
	if (throttled && t->vcpu)
		t->vcpu->engine->kick(t->vcpu);
}

void vcpu_thread_quit(struct vcpu_thread *t)
{
	if (!t->started)
		return;
	give_order(t, VCPU_QUIT);
	if (t->vcpu)
		t->vcpu->engine->kick(t->vcpu);
	pthread_join(t->thread, NULL);
	t->started = false;
}
