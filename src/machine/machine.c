#include "machine/machine_gdb.h"
#include "machine/machine_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "chipset/vga.h"

static int check(const struct machine_config *c, struct err *e)
{
	if (!c->kernel && !c->kernel_source && !c->firmware.code)
		return err_set(e, EINVAL, "no kernel given");
	if (c->cpus < 1 || c->cpus > MACHINE_MAX_CPUS)
		return err_set(e, EINVAL, "%u vCPUs: between 1 and %u are possible", c->cpus,
			       MACHINE_MAX_CPUS);
	if (c->memory_bytes < MIB(1))
		return err_set(e, EINVAL,
			       "guest memory: at least 1M is needed (a size without K, M, G "
			       "or T is in bytes)");
	if (c->jit_cache_bytes &&
	    (c->jit_cache_bytes < JIT_CACHE_MIN || c->jit_cache_bytes > JIT_CACHE_MAX))
		return err_set(e, EINVAL, "the JIT's code cache: between 1M and 1G are possible");
	return 0;
}

static int dup_text(char **to, const char *from, struct err *e)
{
	if (from && !(*to = strdup(from)))
		return err_set(e, ENOMEM, "out of memory");
	return 0;
}

static int copy_config(struct machine *m, const struct machine_config *c, struct err *e)
{
	int r;

	m->no_reboot = c->no_reboot;
	m->debug_exit = c->debug_exit;
	m->vga = c->vga;
	m->keyboard = c->vga || c->keyboard;
	m->force = c->force;
	m->watcher = c->watcher;
	m->jit_cache_bytes = c->jit_cache_bytes;
	m->kernel_source = c->kernel_source;
	m->virtio_off = c->virtio_off;
	m->firmware_debug = c->firmware.debug;
	m->cpus = c->cpus;
	if ((r = dup_text(&m->name, c->name, e)) < 0 ||
	    (r = dup_text(&m->kernel, c->kernel, e)) < 0 ||
	    (r = dup_text(&m->initrd, c->initrd, e)) < 0 ||
	    (r = dup_text(&m->append, c->append, e)) < 0 ||
	    (r = dup_text(&m->firmware, c->firmware.code, e)) < 0)
		return r;
	m->cpu = calloc(m->cpus, sizeof *m->cpu);
	if (!m->cpu)
		return err_set(e, ENOMEM, "out of memory");
	for (unsigned i = 0; i < m->cpus; i++) {
		m->cpu[i].m = m;
		vcpu_thread_init(&m->cpu[i].thread, &m->vcpu_owner);
	}
	return 0;
}

/* All of RAM must have addresses that the guest's processor can form. */
static int check_width(const struct machine *m, uint64_t memory_bytes, struct err *e)
{
	uint64_t end = memory_bytes > MEM_LOW_MAX ? MEM_HIGH_BASE + memory_bytes - MEM_LOW_MAX
						  : memory_bytes;
	struct x86_state state;
	uint32_t out[4];
	unsigned bits;

	x86_state_reset(&state, 0);
	cpuid_query(&m->cpuid, &state, 0, 0x80000008, 0, out);
	bits = out[CPUID_EAX] & 0xff;
	if (end <= UINT64_C(1) << bits)
		return 0;
	return err_set(e, EINVAL,
		       "guest memory of %llu MiB: this processor has %u bits of physical address, "
		       "which is at most %llu MiB",
		       (unsigned long long)(memory_bytes >> 20), bits,
		       (unsigned long long)((1ull << bits) - (MEM_HIGH_BASE - MEM_LOW_MAX)) >> 20);
}

static int pick_engine(struct machine *m, const struct machine_config *c, struct err *e)
{
	struct cpuid_opts o = {
		.apic_hz = APIC_HZ, .cpus = c->cpus, .model = c->cpu_model, .have_x2apic = true};
	int r = engine_choose(&m->engine, m->reason, c->engine, c->force, e);

	if (r < 0)
		return r;
	o.jit = m->engine == &engine_jit;
	r = cpuid_host(&m->cpuid, &o, e);
	return r < 0 ? r : check_width(m, c->memory_bytes, e);
}

/* Called when the loop, and with it the guest's clock, is there. */
static uint64_t wall_at_guest_zero(struct machine *m)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec -
	       clock_now(loop_clock(m->loop));
}

static int build(struct machine *m, const struct machine_config *c, struct err *e)
{
	int r;

	if ((r = copy_config(m, c, e)) < 0 || (r = pick_engine(m, c, e)) < 0 ||
	    (r = machine_make_mem(m, c->memory_bytes, e)) < 0 || (r = bus_new(&m->bus, e)) < 0 ||
	    (r = loop_new(&m->loop, e)) < 0)
		return r;
	m->wall_epoch_ns = wall_at_guest_zero(m);
	if ((r = machine_life_init(m, e)) < 0 || (r = machine_limits_init(m, c, e)) < 0 ||
	    (r = machine_make_devices(m, c->serial_out, e)) < 0 ||
	    (r = machine_plug_new(m, e)) < 0 || (r = machine_make_virtio(m, c, e)) < 0 ||
	    (r = machine_make_firmware(m, c, e)) < 0 || (r = machine_new_generation(m, e)) < 0 ||
	    (r = machine_make_engine(m, e)) < 0)
		return r;
	machine_hand_over_disks(m);
	machine_overcommit_start(m, c->overcommit);
	r = machine_load_guest(m, e);
	return r < 0 ? r : machine_gdb_new(m, c, e);
}

int machine_new(struct machine **out, const struct machine_config *c, struct err *e)
{
	struct machine *m;
	int r = check(c, e);

	if (r < 0)
		return r;
	m = calloc(1, sizeof *m);
	if (!m)
		return err_set(e, ENOMEM, "out of memory");
	m->wake_fd = -1;
	r = build(m, c, e);
	if (r < 0)
		machine_free(m);
	else
		*out = m;
	return r;
}

void machine_free(struct machine *m)
{
	if (!m)
		return;
	machine_stop_io(m);
	machine_overcommit_stop(m);
	machine_gdb_free(m);
	machine_free_engine(m);
	machine_plug_free(m);
	machine_free_virtio(m);
	machine_free_devices(m);
	if (m->loop)
		machine_life_done(m);
	loop_free(m->loop);
	bus_free(m->bus);
	mem_free(m->mem);
	for (unsigned i = 0; m->cpu && i < m->cpus; i++)
		vcpu_thread_done(&m->cpu[i].thread);
	machine_limits_free(m);
	free(m->cpu);
	free(m->name);
	free(m->kernel);
	free(m->initrd);
	free(m->append);
	free(m->firmware);
	free(m);
}

const char *machine_engine(const struct machine *m)
{
	return m->engine->name;
}

const char *machine_engine_reason(const struct machine *m)
{
	return m->reason;
}

bool machine_power_button_armed(struct machine *m)
{
	return pm_power_button_armed(m->device[DEV_PM]);
}

int machine_new_generation(struct machine *m, struct err *e)
{
	uint8_t id[VMGENID_LEN];

	if (getrandom(id, sizeof id, 0) != sizeof id)
		return err_sys(e, errno, "random bytes");
	if (m->device[DEV_VMGENID])
		vmgenid_renew(m->device[DEV_VMGENID], id);
	return 0;
}

bool machine_screen(struct machine *m, struct vga_text *t)
{
	if (m->vga)
		vga_read_text(m->device[DEV_VGA], t);
	return m->vga;
}

bool machine_key(struct machine *m, const uint8_t *codes, uint32_t len)
{
	return i8042_type_keys(m->device[DEV_I8042], codes, len);
}

struct loop *machine_loop(struct machine *m)
{
	return m->loop;
}

uint32_t machine_serial_input(struct machine *m, const uint8_t *bytes, uint32_t len)
{
	return m->console_end ? console_pipe_input(m->console_end, bytes, len)
			      : uart_input(m->device[DEV_UART], bytes, len);
}

static void tell_room(struct loop_call *c)
{
	struct machine *m = container_of(c, struct machine, room_call);

	atomic_store(&m->room_posted, false);
	m->room(m->room_ctx);
}

void machine_console_has_room(void *machine)
{
	struct machine *m = machine;

	if (m->room && !atomic_exchange(&m->room_posted, true))
		loop_post(m->loop, &m->room_call);
}

void machine_on_serial_room(struct machine *m, void (*room)(void *ctx), void *ctx)
{
	m->room = room;
	m->room_ctx = ctx;
	m->room_call.run = tell_room;
	uart_on_room(m->device[DEV_UART], machine_console_has_room, m);
	i8042_on_room(m->device[DEV_I8042], machine_console_has_room, m);
}
