#include "chipset/chipset.h"

#include <string.h>

#include "base/test.h"
#include "chipset/pci.h"
#include "chipset/test_board.h"

#define DEVFN    (3 << 3)
#define SLOT3    0x80001800u
#define MSIX_BAR 1
#define VECTORS  3
#define BAR_LEN  0x1000
#define BAR_AT   0xc1000000u
#define MSIX_AT  0xc2000000u

static struct test_board b;
static struct device *host;
static struct pci_device pci;
static struct bus_region regs;
static int msix_cap;

static uint64_t regs_read(struct bus_region *r, uint64_t offset, unsigned size)
{
	return 0xabc00000 + offset;
}

static void regs_write(struct bus_region *r, uint64_t offset, uint64_t v, unsigned size)
{
}

static uint32_t config(unsigned reg)
{
	board_out32(&b, PORT_PCI_CONFIG, SLOT3 | reg);
	return board_in32(&b, PORT_PCI_CONFIG + 4);
}

static void set_config(unsigned reg, uint32_t v)
{
	board_out32(&b, PORT_PCI_CONFIG, SLOT3 | reg);
	board_out32(&b, PORT_PCI_CONFIG + 4, v);
}

static int setup(void **state)
{
	static const struct pci_ids ids = {0x1af4, 0x1042, 0x1af4, 0x1100, 0x010000, 1};

	board_init(&b);
	host = board_add(&b, &pci_host_type);
	regs = (struct bus_region){"regs", 4, 4, regs_read, regs_write};
	pci_init(&pci, &ids);
	pci_add_bar(&pci, 4, PCI_BAR_MEM64, BAR_LEN, &regs);
	pci_add_intx(&pci, 1);
	msix_cap = 0x40;
	if (pci_add_msix(&pci, MSIX_BAR, VECTORS) < 0 || pci_attach(host, &pci, DEVFN, NULL) < 0)
		return -1;
	return 0;
}

static int teardown(void **state)
{
	pci_detach(&pci);
	pci_done(&pci);
	pci_host_type.free(host);
	board_done(&b);
	return 0;
}

static void host_bridge_is_found_by_ports_and_ecam(void **state)
{
	board_out32(&b, PORT_PCI_CONFIG, 0x80000000);
	assert_int_equal(board_in32(&b, PORT_PCI_CONFIG + 4), 0x29c08086);
	assert_int_equal(board_load(&b, ECAM_BASE), 0x29c08086);
	assert_int_equal(board_load(&b, ECAM_BASE + 8) >> 16, 0x0600);
}

static void empty_slots_and_other_buses_read_all_ones(void **state)
{
	board_out32(&b, PORT_PCI_CONFIG, 0x80002000);
	assert_int_equal(board_in32(&b, PORT_PCI_CONFIG + 4), 0xffffffff);
	assert_int_equal(board_load(&b, ECAM_BASE + (1 << 20)), 0xffffffff);
	board_out32(&b, PORT_PCI_CONFIG, 0);
	assert_int_equal(board_in32(&b, PORT_PCI_CONFIG + 4), 0xffffffff);
}

static void function_0_says_that_there_are_more(void **state)
{
	static const struct pci_ids ids = {0x1af4, 0x105a, 0x1af4, 0x1100, 0x018000, 1};
	struct pci_device more;

	assert_int_equal(config(PCI_HEADER_TYPE & ~3u) >> 16 & 0xff, 0);
	pci_init(&more, &ids);
	assert_int_equal(pci_attach(host, &more, DEVFN + 2, NULL), 0);
	assert_int_equal(config(PCI_HEADER_TYPE & ~3u) >> 16 & 0xff, PCI_HEADER_MULTI);
	pci_detach(&more);
	pci_done(&more);
}

static void bytes_and_words_of_a_register_are_reached(void **state)
{
	board_out32(&b, PORT_PCI_CONFIG, SLOT3);
	assert_int_equal(board_in(&b, PORT_PCI_CONFIG + 5), 0x1a);
	assert_int_equal(bus_read(b.bus, BUS_PIO, PORT_PCI_CONFIG + 6, 2), 0x1042);
	board_out32(&b, PORT_PCI_CONFIG, SLOT3 | PCI_INT_LINE);
	board_out(&b, PORT_PCI_CONFIG + 4, 0x0b);
	assert_int_equal(config(PCI_INT_LINE), 0x010b);
	set_config(0, 0); /* ids are read-only */
	assert_int_equal(config(0), 0x10421af4);
}

static void bars_are_sized_with_all_ones(void **state)
{
	set_config(0x20, 0xffffffff);
	set_config(0x24, 0xffffffff);
	assert_int_equal(config(0x20), 0xfffff004);
	assert_int_equal(config(0x24), 0xffffffff);
	set_config(0x14, 0xffffffff);
	assert_int_equal(config(0x14), 0xfffff000);
	assert_int_equal(config(0x18), 0);
}

static void a_bar_decodes_when_memory_is_enabled_and_moves(void **state)
{
	set_config(0x20, BAR_AT);
	assert_int_equal(board_load(&b, BAR_AT + 8), 0xffffffff);
	set_config(PCI_COMMAND, PCI_COMMAND_MEM);
	assert_int_equal(board_load(&b, BAR_AT + 8), 0xabc00008);
	set_config(0x24, 0x10); /* above 4 GiB */
	assert_int_equal(board_load(&b, BAR_AT + 8), 0xffffffff);
	assert_int_equal(board_load(&b, 0x1000000000ull + BAR_AT + 8), 0xabc00008);
	set_config(PCI_COMMAND, 0);
	assert_int_equal(board_load(&b, 0x1000000000ull + BAR_AT + 8), 0xffffffff);
}

static void a_bar_on_top_of_another_device_decodes_nothing(void **state)
{
	set_config(0x20, ECAM_BASE);
	set_config(PCI_COMMAND, PCI_COMMAND_MEM);
	assert_int_equal(board_load(&b, ECAM_BASE), 0x29c08086);
	set_config(0x20, BAR_AT);
	assert_int_equal(board_load(&b, BAR_AT), 0xabc00000);
}

static void enable_msix(void)
{
	set_config(0x14, MSIX_AT);
	set_config(PCI_COMMAND, PCI_COMMAND_MEM);
	set_config(msix_cap, 0x80000000);
}

static void vector(unsigned n, uint32_t data, bool masked)
{
	board_store(&b, MSIX_AT + n * 16, 0xfee01000);
	board_store(&b, MSIX_AT + n * 16 + 4, 0);
	board_store(&b, MSIX_AT + n * 16 + 8, data);
	board_store(&b, MSIX_AT + n * 16 + 12, masked);
}

static void msix_capability_names_table_and_pba(void **state)
{
	assert_int_equal(config(PCI_CAP_LIST) & 0xff, msix_cap);
	assert_int_equal(config(msix_cap), (VECTORS - 1) << 16 | 0x0011);
	assert_int_equal(config(msix_cap + 4), MSIX_BAR);
	assert_int_equal(config(msix_cap + 8), 0x800 | MSIX_BAR);
	assert_int_equal(config(PCI_COMMAND) >> 16 & 0x10, 0x10);
}

static void msix_sends_what_the_entry_says(void **state)
{
	enable_msix();
	vector(2, 0x41, false);
	pci_msix_send(&pci, 2);
	assert_int_equal(b.msis, 1);
	assert_int_equal(b.msi_addr, 0xfee01000);
	assert_int_equal(b.msi_data, 0x41);
	pci_msix_send(&pci, VECTORS);
	assert_int_equal(b.msis, 1);
}

static void a_masked_vector_is_pending_until_unmasked(void **state)
{
	enable_msix();
	vector(1, 0x42, true);
	pci_msix_send(&pci, 1);
	assert_int_equal(b.msis, 0);
	assert_int_equal(board_load(&b, MSIX_AT + 0x800), 2);
	board_store(&b, MSIX_AT + 16 + 12, 0);
	assert_int_equal(b.msis, 1);
	assert_int_equal(board_load(&b, MSIX_AT + 0x800), 0);
}

static void the_function_mask_holds_all_back(void **state)
{
	enable_msix();
	vector(0, 0x43, false);
	set_config(msix_cap, 0xc0000000);
	pci_msix_send(&pci, 0);
	assert_int_equal(b.msis, 0);
	set_config(msix_cap, 0x80000000);
	assert_int_equal(b.msis, 1);
}

static void intx_is_swizzled_shared_and_can_be_disabled(void **state)
{
	const unsigned gsi = 16 + 3; /* device 3, INTA */

	pci_irq(&pci, true);
	assert_true(b.wire[gsi].level);
	assert_int_equal(config(PCI_COMMAND) >> 16 & PCI_STATUS_INTX, PCI_STATUS_INTX);
	set_config(PCI_COMMAND, PCI_COMMAND_NO_INTX);
	assert_false(b.wire[gsi].level);
	set_config(PCI_COMMAND, 0);
	assert_true(b.wire[gsi].level);
	pci_irq(&pci, false);
	assert_false(b.wire[gsi].level);
}

static void reset_register_resets_amid_the_address_port(void **state)
{
	board_out32(&b, PORT_PCI_CONFIG, SLOT3);
	board_out(&b, PORT_RESET, 0x02);
	assert_int_equal(b.requests, 0);
	board_out(&b, PORT_RESET, 0x06);
	assert_int_equal(b.request, MACHINE_RESET);
	assert_int_equal(b.requests, 1);
	assert_int_equal(board_in32(&b, PORT_PCI_CONFIG), SLOT3);
}

static void save(struct state *s)
{
	state_begin(s, "pci", 0);
	pci_state(&pci, s);
	state_end(s);
}

static void state_brings_bars_and_vectors_back(void **state)
{
	struct state *w = state_writer(), *r;
	const void *bytes;
	size_t len;

	enable_msix();
	vector(1, 0x42, true);
	pci_msix_send(&pci, 1);
	save(w);
	bytes = state_written(w, &len);
	pci_reset(&pci);
	assert_int_equal(board_load(&b, MSIX_AT + 16), 0xffffffff);
	r = state_reader(bytes, len);
	save(r);
	assert_int_equal(state_result(r, NULL), 0);
	assert_int_equal(board_load(&b, MSIX_AT + 0x800), 2);
	board_store(&b, MSIX_AT + 16 + 12, 0);
	assert_int_equal(b.msi_data, 0x42);
	state_free(r);
	state_free(w);
}

static void state_of_another_function_is_refused(void **state)
{
	struct state *w = state_writer(), *r;
	const void *bytes;
	size_t len;

	pci.config[PCI_DEVICE] ^= 1;
	save(w);
	pci.config[PCI_DEVICE] ^= 1;
	bytes = state_written(w, &len);
	r = state_reader(bytes, len);
	save(r);
	assert_int_not_equal(state_result(r, NULL), 0);
	state_free(r);
	state_free(w);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(host_bridge_is_found_by_ports_and_ecam),
		T(empty_slots_and_other_buses_read_all_ones),
		T(function_0_says_that_there_are_more),
		T(bytes_and_words_of_a_register_are_reached),
		T(bars_are_sized_with_all_ones),
		T(a_bar_decodes_when_memory_is_enabled_and_moves),
		T(a_bar_on_top_of_another_device_decodes_nothing),
		T(msix_capability_names_table_and_pba),
		T(msix_sends_what_the_entry_says),
		T(a_masked_vector_is_pending_until_unmasked),
		T(the_function_mask_holds_all_back),
		T(intx_is_swizzled_shared_and_can_be_disabled),
		T(reset_register_resets_amid_the_address_port),
		T(state_brings_bars_and_vectors_back),
		T(state_of_another_function_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
