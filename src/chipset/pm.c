/* pm: ACPI fixed hardware (ACPI 6.5, 4.8.3): the PM1a event and control blocks and the
 * 32-bit PM timer. There is no SMI and no legacy mode: SCI_EN is always set. The timer
 * counts guest time and has no state of its own; TMR_STS is set when its top bit
 * changes, which is found out when somebody looks, or by a timer if TMR_EN is on.
 * The reset register 0xcf9 stands within the PCI config ports, see pci_host.c. */
#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/auto.h"

#define PM_TIMER_HZ 3579545
#define PM_LEN      12

#define TMR_STS    0x0001
#define GBL_STS    0x0020
#define PWRBTN_STS 0x0100
#define RTC_STS    0x0400
#define WAK_STS    0x8000
#define STS_BITS   (TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS | WAK_STS)
#define EN_BITS    (TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS)

#define CNT_SCI_EN  0x0001
#define CNT_BM_RLD  0x0002
#define CNT_SLP_TYP 0x1c00
#define CNT_SLP_EN  0x2000
#define SLP_TYP_S5  5 /* as _S5 in dsdt.asl has it */
#define SLP_TYP_OFF 0 /* what OVMF writes, which asks no ACPI table */

struct pm {
	struct device dev;
	struct bus_region region;
	struct bus *bus;
	struct clock *clock;
	struct irq_line *sci;
	struct machine_port *machine;
	struct timer carry; /* armed while TMR_EN is on */

	pthread_mutex_t lock; /* guards all below */
	uint16_t status, enable, control;
	uint64_t seen_half; /* timer value >> 31 when TMR_STS was last brought up to date */
};

static struct pm *to_pm(struct device *d)
{
	return container_of(d, struct pm, dev);
}

static uint64_t pm_ticks(struct pm *p)
{
	return mul_div(clock_now(p->clock), PM_TIMER_HZ, 1000000000);
}

/* Brings TMR_STS, the SCI and the timer up to date. Called with lock held. */
static void pm_update(struct pm *p)
{
	uint64_t half = pm_ticks(p) >> 31;

	if (half != p->seen_half)
		p->status |= TMR_STS;
	p->seen_half = half;
	irq_set(p->sci, p->status & p->enable & EN_BITS);

	if ((p->enable & TMR_STS) && !(p->status & TMR_STS))
		timer_arm(p->clock, &p->carry,
			  mul_div((half + 1) << 31, 1000000000, PM_TIMER_HZ) + 1);
	else
		timer_cancel(p->clock, &p->carry);
}

static void pm_carry(struct timer *t)
{
	struct pm *p = container_of(t, struct pm, carry);
	AUTO_LOCK(&p->lock);

	pm_update(p);
}

static uint64_t pm_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct pm *p = container_of(r, struct pm, region);
	uint8_t regs[PM_LEN + 8] = {0};
	AUTO_LOCK(&p->lock);

	pm_update(p);
	store_le(regs + 0, p->status, 2);
	store_le(regs + 2, p->enable, 2);
	store_le(regs + 4, p->control | CNT_SCI_EN, 2);
	store_le(regs + 8, pm_ticks(p), 4);
	return load_le(regs + offset, size);
}

static bool is_off(unsigned sleep_type)
{
	return sleep_type == SLP_TYP_S5 || sleep_type == SLP_TYP_OFF;
}

/* One byte. Returns whether the guest asked for S5. Called with lock held. */
static bool pm_write_byte(struct pm *p, unsigned offset, uint8_t v)
{
	unsigned shift = offset % 2 * 8;
	uint16_t bits = (uint16_t)(v << shift), lane = (uint16_t)(0xff << shift);

	switch (offset & ~1u) {
	case 0: p->status &= ~bits; break; /* write 1 to clear */
	case 2: p->enable = (p->enable & ~lane) | (bits & EN_BITS); break;
	case 4:
		p->control = (p->control & ~lane) | (bits & (CNT_SLP_TYP | CNT_BM_RLD));
		return (bits & CNT_SLP_EN) && is_off((p->control & CNT_SLP_TYP) >> 10);
	}
	return false;
}

static void pm_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pm *p = container_of(r, struct pm, region);
	bool off = false;

	pthread_mutex_lock(&p->lock);
	pm_update(p);
	for (unsigned i = 0; i < size; i++)
		off |= pm_write_byte(p, offset + i, value >> (i * 8));
	pm_update(p);
	pthread_mutex_unlock(&p->lock);
	if (off && p->machine)
		p->machine->request(p->machine, MACHINE_POWER_OFF, 0);
}

void pm_power_button(struct device *d)
{
	struct pm *p = to_pm(d);
	AUTO_LOCK(&p->lock);

	p->status |= PWRBTN_STS;
	pm_update(p);
}

bool pm_power_button_armed(struct device *d)
{
	struct pm *p = to_pm(d);
	AUTO_LOCK(&p->lock);

	return p->enable & PWRBTN_STS;
}

static void pm_reset(struct device *d)
{
	struct pm *p = to_pm(d);
	AUTO_LOCK(&p->lock);

	p->status = p->enable = p->control = 0;
	p->seen_half = pm_ticks(p) >> 31;
	pm_update(p);
}

static void pm_state(struct device *d, struct state *s)
{
	struct pm *p = to_pm(d);
	AUTO_LOCK(&p->lock);

	if (!state_loading(s))
		pm_update(p);
	state_u16(s, "status", &p->status);
	state_u16(s, "enable", &p->enable);
	state_u16(s, "control", &p->control);
	state_u64(s, "seen_half", &p->seen_half);
	if (!state_loading(s) || state_failed(s))
		return;
	if ((p->status & ~STS_BITS) || (p->enable & ~EN_BITS) ||
	    (p->control & ~(CNT_SLP_TYP | CNT_BM_RLD)))
		state_fail(s, "a reserved PM1 bit is set");
	else
		pm_update(p);
}

static void pm_free(struct device *d)
{
	struct pm *p;

	if (!d)
		return;
	p = to_pm(d);
	bus_unmap(p->bus, &p->region);
	timer_cancel(p->clock, &p->carry);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int pm_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct pm *p = calloc(1, sizeof *p);
	int r;

	if (!p)
		return err_set(e, ENOMEM, "pm");
	p->dev.type = &pm_type;
	p->bus = env->bus;
	p->clock = env->clock;
	p->sci = env->irq[IRQ_SCI];
	p->machine = env->machine;
	p->carry.fire = pm_carry;
	pthread_mutex_init(&p->lock, NULL);
	p->region = (struct bus_region){"pm", 1, 4, pm_read, pm_write};
	pm_reset(&p->dev);
	r = bus_map(env->bus, BUS_PIO, PORT_PM_EVT, PM_LEN, &p->region, e);
	if (r < 0)
		pm_free(&p->dev);
	else
		*out = &p->dev;
	return r;
}

const struct device_type pm_type = {
	.name = "pm",
	.new = pm_new,
	.reset = pm_reset,
	.state = pm_state,
	.free = pm_free,
};
