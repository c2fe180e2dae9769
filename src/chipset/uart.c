/* uart: a 16550A at COM1 (data sheet: PC16550D). Bytes leave at once through a byte
 * sink, so the transmitter is always empty; bytes arrive by uart_input, which takes no
 * more than fits, so that nothing is ever lost outside of loopback. As on a PC, MCR.OUT2
 * gates the interrupt.
 *
 * sink->put is called with the lock held (bytes must not pass each other): it must not
 * call back into the uart. room() is called without. */
#include "chipset/chipset.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

#define FIFO_LEN      16
#define UART_CLOCK_HZ 1843200

enum { REG_DATA, REG_IER, REG_IIR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RX       0x01
#define IER_THRE     0x02
#define IER_LINE     0x04
#define IER_MODEM    0x08
#define IIR_NONE     0x01
#define IIR_MODEM    0x00
#define IIR_THRE     0x02
#define IIR_RX       0x04
#define IIR_LINE     0x06
#define IIR_TIMEOUT  0x0c
#define IIR_FIFO     0xc0
#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define FCR_KEPT     0xc9 /* enable, DMA mode, trigger */
#define LCR_DLAB     0x80
#define MCR_DTR      0x01
#define MCR_RTS      0x02
#define MCR_OUT1     0x04
#define MCR_OUT2     0x08
#define MCR_LOOP     0x10
#define LSR_READY    0x01
#define LSR_OVERRUN  0x02
#define LSR_EMPTY    0x60 /* THRE and TEMT */
#define MSR_CTS      0x10
#define MSR_DSR      0x20
#define MSR_RI       0x40
#define MSR_DCD      0x80
#define MSR_DELTA_RI 0x04

struct uart {
	struct device dev;
	struct bus_region region;
	struct bus *bus;
	struct clock *clock;
	struct irq_line *irq;
	struct byte_sink *out;
	struct timer timeout;

	pthread_mutex_t lock; /* guards all below */
	void (*room)(void *ctx);
	void *room_ctx;
	bool want_room; /* uart_input came up short */

	uint8_t ier, fcr, lcr, mcr, scr;
	uint8_t lsr_errors, msr_delta;
	uint16_t divisor;
	bool thre_pending;      /* the THRE interrupt has not been seen yet */
	bool rx_timeout;        /* bytes have been lying in the FIFO */
	uint64_t rx_timeout_ns; /* when they will have; 0: not waiting */
	uint8_t rx[FIFO_LEN];   /* oldest first; zeros behind rx_len */
	uint8_t rx_len;
};

static struct uart *to_uart(struct device *d)
{
	return container_of(d, struct uart, dev);
}

static unsigned rx_capacity(const struct uart *u)
{
	return u->fcr & FCR_ENABLE ? FIFO_LEN : 1;
}

static unsigned rx_trigger(const struct uart *u)
{
	static const uint8_t level[4] = {1, 4, 8, 14};

	return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

/* The highest-priority interrupt (table 3 of the data sheet). */
static uint8_t uart_cause(const struct uart *u)
{
	if ((u->ier & IER_LINE) && u->lsr_errors)
		return IIR_LINE;
	if ((u->ier & IER_RX) && u->rx_len >= rx_trigger(u))
		return IIR_RX;
	if ((u->ier & IER_RX) && u->rx_timeout)
		return IIR_TIMEOUT;
	if ((u->ier & IER_THRE) && u->thre_pending)
		return IIR_THRE;
	if ((u->ier & IER_MODEM) && u->msr_delta)
		return IIR_MODEM;
	return IIR_NONE;
}

static void uart_update_irq(struct uart *u)
{
	bool wired = (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

	irq_set(u->irq, wired && uart_cause(u) != IIR_NONE);
}

/* Four character times at the speed programmed (8.4 of the data sheet). */
static uint64_t rx_timeout_len_ns(const struct uart *u)
{
	unsigned bits = 1 + 5 + (u->lcr & 3) + 1 + (u->lcr >> 2 & 1) + (u->lcr >> 3 & 1);
	uint64_t divisor = u->divisor ? u->divisor : 1;

	return mul_div(4 * bits * divisor * 16, 1000000000, UART_CLOCK_HZ);
}

/* The receive FIFO was touched: its timeout starts anew. */
static void rx_touched(struct uart *u)
{
	u->rx_timeout = false;
	if (u->rx_len && (u->fcr & FCR_ENABLE)) {
		u->rx_timeout_ns = clock_now(u->clock) + rx_timeout_len_ns(u);
		timer_arm(u->clock, &u->timeout, u->rx_timeout_ns);
	} else if (u->rx_timeout_ns) {
		u->rx_timeout_ns = 0;
		timer_cancel(u->clock, &u->timeout);
	}
}

static void uart_timeout(struct timer *t)
{
	struct uart *u = container_of(t, struct uart, timeout);
	AUTO_LOCK(&u->lock);

	if (!u->rx_timeout_ns || clock_now(u->clock) < u->rx_timeout_ns)
		return;
	u->rx_timeout_ns = 0;
	u->rx_timeout = u->rx_len > 0;
	uart_update_irq(u);
}

static uint8_t rx_pop(struct uart *u)
{
	uint8_t v = u->rx[0];

	if (u->rx_len) {
		memmove(u->rx, u->rx + 1, FIFO_LEN - 1);
		u->rx[FIFO_LEN - 1] = 0;
		u->rx_len--;
	}
	rx_touched(u);
	return v;
}

static void rx_clear(struct uart *u)
{
	memset(u->rx, 0, sizeof u->rx);
	u->rx_len = 0;
	rx_touched(u);
}

/* The modem lines: all there and ready, or in loopback those of MCR. */
static uint8_t modem_lines(const struct uart *u)
{
	if (!(u->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
	       (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void write_mcr(struct uart *u, uint8_t v)
{
	uint8_t before = modem_lines(u), changed;

	u->mcr = v & 0x1f;
	changed = before ^ modem_lines(u);
	/* RI counts only when it goes away (TERI). */
	u->msr_delta |= (changed & ~MSR_RI) >> 4;
	if ((changed & MSR_RI) && (before & MSR_RI))
		u->msr_delta |= MSR_DELTA_RI;
}

static void write_fcr(struct uart *u, uint8_t v)
{
	bool toggled = (u->fcr ^ v) & FCR_ENABLE;

	if (toggled || ((v & FCR_ENABLE) && (v & FCR_CLEAR_RX)))
		rx_clear(u);
	u->fcr = v & FCR_ENABLE ? v & FCR_KEPT : 0;
}

static void write_data(struct uart *u, uint8_t v)
{
	if (!(u->mcr & MCR_LOOP)) {
		if (u->out)
			u->out->put(u->out, &v, 1);
	} else if (u->rx_len < rx_capacity(u)) {
		u->rx[u->rx_len++] = v;
		rx_touched(u);
	} else {
		u->lsr_errors |= LSR_OVERRUN;
		if (!(u->fcr & FCR_ENABLE))
			u->rx[0] = v; /* without a FIFO the newcomer wins */
	}
	u->thre_pending = true; /* gone already, so empty again */
}

static uint8_t read_iir(struct uart *u)
{
	uint8_t cause = uart_cause(u);

	if (cause == IIR_THRE)
		u->thre_pending = false;
	return cause | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct uart *u)
{
	uint8_t v = LSR_EMPTY | u->lsr_errors | (u->rx_len ? LSR_READY : 0);

	u->lsr_errors = 0;
	return v;
}

static uint8_t read_msr(struct uart *u)
{
	uint8_t v = modem_lines(u) | u->msr_delta;

	u->msr_delta = 0;
	return v;
}

static uint8_t read_reg(struct uart *u, unsigned reg)
{
	bool dlab = u->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA: return dlab ? u->divisor & 0xff : rx_pop(u);
	case REG_IER: return dlab ? u->divisor >> 8 : u->ier;
	case REG_IIR: return read_iir(u);
	case REG_LCR: return u->lcr;
	case REG_MCR: return u->mcr;
	case REG_LSR: return read_lsr(u);
	case REG_MSR: return read_msr(u);
	default: return u->scr;
	}
}

static void write_reg(struct uart *u, unsigned reg, uint8_t v)
{
	bool dlab = u->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		if (dlab)
			u->divisor = (u->divisor & 0xff00) | v;
		else
			write_data(u, v);
		break;
	case REG_IER:
		if (dlab) {
			u->divisor = (u->divisor & 0xff) | v << 8;
			break;
		}
		if (v & ~u->ier & IER_THRE)
			u->thre_pending = true; /* enabling it while empty raises it */
		u->ier = v & 0x0f;
		break;
	case REG_IIR: write_fcr(u, v); break;
	case REG_LCR: u->lcr = v; break;
	case REG_MCR: write_mcr(u, v); break;
	case REG_SCR: u->scr = v; break;
	}
}

/* Whether room() is due; if so the caller calls it after unlocking. */
static bool room_due(struct uart *u)
{
	if (!u->want_room || !u->room || (u->mcr & MCR_LOOP) || u->rx_len >= rx_capacity(u))
		return false;
	u->want_room = false;
	return true;
}

static uint64_t uart_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	struct uart *u = container_of(r, struct uart, region);
	uint8_t v;
	bool due;

	pthread_mutex_lock(&u->lock);
	v = read_reg(u, offset);
	uart_update_irq(u);
	due = room_due(u);
	pthread_mutex_unlock(&u->lock);
	if (due)
		u->room(u->room_ctx);
	return v;
}

static void uart_write(struct bus_region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct uart *u = container_of(r, struct uart, region);
	bool due;

	pthread_mutex_lock(&u->lock);
	write_reg(u, offset, value);
	uart_update_irq(u);
	due = room_due(u);
	pthread_mutex_unlock(&u->lock);
	if (due)
		u->room(u->room_ctx);
}

uint32_t uart_input(struct device *d, const uint8_t *bytes, uint32_t len)
{
	struct uart *u = to_uart(d);
	uint32_t n = 0;
	AUTO_LOCK(&u->lock);

	if (!(u->mcr & MCR_LOOP)) /* in loopback the line is cut off */
		while (n < len && u->rx_len < rx_capacity(u))
			u->rx[u->rx_len++] = bytes[n++];
	u->want_room = n < len;
	if (n) {
		rx_touched(u);
		uart_update_irq(u);
	}
	return n;
}

void uart_on_room(struct device *d, void (*room)(void *ctx), void *ctx)
{
	struct uart *u = to_uart(d);
	AUTO_LOCK(&u->lock);

	u->room = room;
	u->room_ctx = ctx;
}

static void uart_reset(struct device *d)
{
	struct uart *u = to_uart(d);
	AUTO_LOCK(&u->lock);

	u->ier = u->fcr = u->lcr = u->mcr = u->scr = 0;
	u->lsr_errors = u->msr_delta = 0;
	u->divisor = 12; /* 9600 baud, as firmware leaves it */
	u->thre_pending = false;
	rx_clear(u);
	uart_update_irq(u);
}

static void uart_loaded(struct uart *u, struct state *s)
{
	if (u->rx_len > FIFO_LEN) {
		state_fail(s, "rx_len %u is past the FIFO", u->rx_len);
		return;
	}
	u->ier &= 0x0f;
	u->mcr &= 0x1f;
	u->fcr = u->fcr & FCR_ENABLE ? u->fcr & FCR_KEPT : 0;
	u->lsr_errors &= LSR_OVERRUN;
	u->msr_delta &= 0x0f;
	memset(u->rx + u->rx_len, 0, FIFO_LEN - u->rx_len);
	if (u->rx_timeout_ns)
		timer_arm(u->clock, &u->timeout, u->rx_timeout_ns);
	uart_update_irq(u);
}

static void uart_state(struct device *d, struct state *s)
{
	struct uart *u = to_uart(d);
	AUTO_LOCK(&u->lock);

	state_u8(s, "ier", &u->ier);
	state_u8(s, "fcr", &u->fcr);
	state_u8(s, "lcr", &u->lcr);
	state_u8(s, "mcr", &u->mcr);
	state_u8(s, "scr", &u->scr);
	state_u8(s, "lsr_errors", &u->lsr_errors);
	state_u8(s, "msr_delta", &u->msr_delta);
	state_u16(s, "divisor", &u->divisor);
	state_bool(s, "thre_pending", &u->thre_pending);
	state_bool(s, "rx_timeout", &u->rx_timeout);
	state_u64(s, "rx_timeout_ns", &u->rx_timeout_ns);
	state_bytes(s, "rx", u->rx, sizeof u->rx);
	state_u8(s, "rx_len", &u->rx_len);
	if (state_loading(s) && !state_failed(s))
		uart_loaded(u, s);
}

static void uart_free(struct device *d)
{
	struct uart *u;

	if (!d)
		return;
	u = to_uart(d);
	bus_unmap(u->bus, &u->region);
	timer_cancel(u->clock, &u->timeout);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

static int uart_new(struct device **out, const struct device_env *env, struct err *e)
{
	struct uart *u = calloc(1, sizeof *u);
	int r;

	if (!u)
		return err_set(e, ENOMEM, "uart");
	u->dev.type = &uart_type;
	u->bus = env->bus;
	u->clock = env->clock;
	u->irq = env->irq[IRQ_COM1];
	u->out = env->serial_out;
	u->timeout.fire = uart_timeout;
	pthread_mutex_init(&u->lock, NULL);
	u->region = (struct bus_region){"uart", 1, 1, uart_read, uart_write};
	uart_reset(&u->dev);
	r = bus_map(env->bus, BUS_PIO, PORT_COM1, 8, &u->region, e);
	if (r < 0)
		uart_free(&u->dev);
	else
		*out = &u->dev;
	return r;
}

const struct device_type uart_type = {
	.name = "uart",
	.new = uart_new,
	.reset = uart_reset,
	.state = uart_state,
	.free = uart_free,
};
