/* What is asked before the start. Each is checked by itself, as far as Firecracker does that too, and
 * kept as a document; the rest shows when the VM is started. */
#include "firecracker/fc_priv.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

#define VCPUS_MAX 32u

static json_t *copy_of(const struct api_call *call)
{
	return call->body ? json_deep_copy(call->body) : json_object();
}

/* The document is what was sent. */
static int keep(struct fc *f, enum fc_doc n, const struct api_call *call, struct err *e)
{
	json_t *doc = copy_of(call);

	if (!doc)
		return err_set(e, ENOMEM, "out of memory");
	fc_set(f, n, doc);
	return 0;
}

static int can_read(const char *what, const char *path, bool writable, struct err *e)
{
	int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return err_set(e, EINVAL, "The %s '%s' cannot be opened: %s", what, path,
			       strerror(errno));
	close(fd);
	return 0;
}

static int not_there(const char *what, struct err *e)
{
	return err_set(e, ENOTSUP, "%s: Holon does not have that", what);
}

int fc_put_boot(void *ctx, const struct api_call *call, const void *args, struct api_reply *reply,
		struct err *e)
{
	const struct fc_boot *a = args;
	int r = can_read("kernel file", a->kernel_image_path, false, e);

	if (r == 0 && a->initrd_path)
		r = can_read("initrd file", a->initrd_path, false, e);
	return r == 0 ? keep(ctx, FC_BOOT, call, e) : r;
}

/* --- machine-config --- */

static int check_machine(const struct fc_machine *a, struct err *e)
{
	if (a->vcpu_count < 1 || a->vcpu_count > VCPUS_MAX ||
	    (a->smt && a->vcpu_count > 1 && a->vcpu_count % 2))
		return err_set(
			e, EINVAL,
			"The vCPU number is invalid! The vCPU number can only be 1 or an even "
			"number when SMT is enabled, and at most %u.",
			VCPUS_MAX);
	if (a->mem_size_mib < 1 || a->mem_size_mib > UINT64_C(1) << 24)
		return err_set(e, EINVAL, "The memory size (MiB) is invalid.");
	if (a->cpu_template)
		return not_there("cpu_template", e);
	return a->huge_pages == 2 ? not_there("huge_pages: 2M", e) : 0;
}

static int set_machine(struct fc *f, json_t *doc, struct err *e)
{
	struct fc_machine a = fc_machine_defaults;
	struct fc_balloon b = {0};
	int r = fc_read(doc, fc_machine_options, &a, e);

	if (r == 0)
		r = check_machine(&a, e);
	if (r == 0 && (r = fc_read(f->doc[FC_BALLOON], fc_balloon_options, &b, e)) == 0 &&
	    b.amount_mib > a.mem_size_mib)
		r = err_set(e, EINVAL, "The balloon would be larger than the memory.");
	if (r < 0)
		json_decref(doc);
	else
		fc_set(f, FC_MACHINE, doc);
	return r;
}

int fc_put_machine(void *ctx, const struct api_call *call, const void *args,
		   struct api_reply *reply, struct err *e)
{
	return set_machine(ctx, copy_of(call), e);
}

int fc_patch_machine(void *ctx, const struct api_call *call, const void *args,
		     struct api_reply *reply, struct err *e)
{
	struct fc *f = ctx;
	json_t *doc = f->doc[FC_MACHINE] ? json_deep_copy(f->doc[FC_MACHINE]) : json_object();

	if (!call->body || !json_object_size(call->body)) {
		json_decref(doc);
		return err_set(e, EINVAL, "Empty PATCH request.");
	}
	json_object_update(doc, call->body);
	return set_machine(f, doc, e);
}

/* --- drives and network interfaces --- */

static int check_id(const char *path_id, const char *body_id, struct err *e)
{
	for (const char *c = path_id; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '_')
			return err_set(
				e, EINVAL,
				"API Resource IDs can only contain alphanumeric characters and "
				"underscores.");
	if (strcmp(path_id, body_id) != 0)
		return err_set(e, EINVAL,
			       "The id from the path [%.64s] does not match the id from the body "
			       "[%.64s]!",
			       path_id, body_id);
	return 0;
}

/* Takes the place of the one with that id, or comes behind the last. */
static int keep_in_list(json_t *list, const char *member, const char *id,
			const struct api_call *call, size_t max, struct err *e)
{
	json_t *doc = copy_of(call);
	size_t at;

	if (fc_find(list, member, id, &at))
		return json_array_set_new(list, at, doc) < 0 ? err_set(e, ENOMEM, "out of memory")
							     : 0;
	if (json_array_size(list) == max) {
		json_decref(doc);
		return err_set(e, EINVAL, "at most %zu of them are possible", max);
	}
	return json_array_append_new(list, doc) < 0 ? err_set(e, ENOMEM, "out of memory") : 0;
}

static bool has_other_root(const json_t *drives, const char *id)
{
	json_t *one;
	size_t i;

	json_array_foreach(drives, i,
			   one) if (json_is_true(json_object_get(one, "is_root_device")) &&
				    strcmp(json_string_value(json_object_get(one, "drive_id")),
					   id) != 0) return true;
	return false;
}

int fc_put_drive(void *ctx, const struct api_call *call, const void *args, struct api_reply *reply,
		 struct err *e)
{
	const struct fc_drive *a = args;
	struct fc *f = ctx;
	int r = check_id(call->id, a->drive_id, e);

	if (r < 0)
		return r;
	if (a->socket)
		return not_there("vhost-user drives", e);
	if (!a->path_on_host)
		return err_set(e, EINVAL, "path_on_host is missing");
	if (a->is_root_device && has_other_root(f->doc[FC_DRIVES], a->drive_id))
		return err_set(e, EINVAL, "A root block device already exists!");
	r = can_read("file of the drive", a->path_on_host, !a->is_read_only, e);
	return r == 0 ? keep_in_list(f->doc[FC_DRIVES], "drive_id", a->drive_id, call,
				     MACHINE_DISKS_MAX, e)
		      : r;
}

static int mac_is_free(const json_t *nets, const struct fc_net *a, struct err *e)
{
	uint8_t mac[6];
	json_t *one;
	size_t i;
	int r = a->guest_mac ? net_mac_parse(a->guest_mac, mac, e) : 0;

	if (r < 0 || !a->guest_mac)
		return r;
	json_array_foreach(nets, i, one)
	{
		const char *other = json_string_value(json_object_get(one, "guest_mac"));

		if (other && !strcasecmp(other, a->guest_mac) &&
		    strcmp(json_string_value(json_object_get(one, "iface_id")), a->iface_id) != 0)
			return err_set(e, EINVAL, "The MAC address is already in use: %s", other);
	}
	return 0;
}

int fc_put_net(void *ctx, const struct api_call *call, const void *args, struct api_reply *reply,
	       struct err *e)
{
	const struct fc_net *a = args;
	struct fc *f = ctx;
	int r = check_id(call->id, a->iface_id, e);

	if (r == 0)
		r = mac_is_free(f->doc[FC_NETS], a, e);
	if (r == 0 && a->mtu && (a->mtu < 68 || a->mtu > 65535))
		r = err_set(e, EINVAL, "mtu: from 68 to 65535");
	return r == 0 ? keep_in_list(f->doc[FC_NETS], "iface_id", a->iface_id, call,
				     MACHINE_NETS_MAX, e)
		      : r;
}

/* --- the small devices --- */

int fc_put_vsock(void *ctx, const struct api_call *call, const void *args, struct api_reply *reply,
		 struct err *e)
{
	const struct fc_vsock *a = args;

	if (a->guest_cid < 3 || a->guest_cid > 0xfffffffe)
		return err_set(e, EINVAL, "guest_cid: from 3 to 4294967294");
	return keep(ctx, FC_VSOCK, call, e);
}

int fc_put_balloon(void *ctx, const struct api_call *call, const void *args,
		   struct api_reply *reply, struct err *e)
{
	const struct fc_balloon *a = args;
	struct fc_machine m = fc_machine_defaults;
	struct fc *f = ctx;
	int r = fc_read(f->doc[FC_MACHINE], fc_machine_options, &m, e);

	if (r < 0)
		return r;
	if (a->amount_mib > m.mem_size_mib)
		return err_set(e, EINVAL, "The balloon would be larger than the memory.");
	if (a->free_page_hinting)
		return not_there("free_page_hinting (free pages are reported at all times)", e);
	return keep(f, FC_BALLOON, call, e);
}

int fc_put_entropy(void *ctx, const struct api_call *call, const void *args,
		   struct api_reply *reply, struct err *e)
{
	if (json_object_size(json_object_get(call->body, "rate_limiter")))
		return not_there("a rate limiter of the entropy device", e);
	return keep(ctx, FC_ENTROPY, call, e);
}

static void serial_put(struct byte_sink *s, const uint8_t *bytes, uint32_t len)
{
	const struct fc_serial *serial = container_of(s, struct fc_serial, sink);

	/* What does not fit into a pipe is lost: the guest waits for nobody there. */
	while (len) {
		ssize_t n = write(serial->fd, bytes, len);

		if (n <= 0)
			return;
		bytes += n;
		len -= (uint32_t)n;
	}
}

int fc_put_serial(void *ctx, const struct api_call *call, const void *args, struct api_reply *reply,
		  struct err *e)
{
	const struct fc_device *a = args;
	struct fc *f = ctx;
	int fd;

	if (json_object_size(json_object_get(call->body, "rate_limiter")))
		return not_there("a rate limiter of the serial port", e);
	if (!a->serial_out_path)
		return keep(f, FC_SERIAL, call, e);
	fd = fc_open_output(a->serial_out_path, e);
	if (fd < 0)
		return fd;
	if (f->serial.fd >= 0)
		close(f->serial.fd);
	f->serial = (struct fc_serial){.sink.put = serial_put, .fd = fd};
	return keep(f, FC_SERIAL, call, e);
}

/* --- where things are written --- */

static int set_level(const char *level, struct err *e)
{
	static const struct {
		const char *name;
		enum log_level level;
	} levels[] = {
		{"Off", LOG_ERROR},    {"Error", LOG_ERROR}, {"Warn", LOG_WARN},
		{"Warning", LOG_WARN}, {"Info", LOG_INFO},   {"Debug", LOG_DEBUG},
		{"Trace", LOG_DEBUG},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(levels); i++)
		if (!strcasecmp(levels[i].name, level)) {
			log_set_level(levels[i].level);
			return 0;
		}
	return err_set(e, EINVAL, "level: Off, Error, Warning, Info, Debug or Trace");
}

/* Lines of the log say their level at all times, and have no origin. */
int fc_put_logger(void *ctx, const struct api_call *call, const void *args, struct api_reply *reply,
		  struct err *e)
{
	const struct fc_output *a = args;
	int fd, r = a->level ? set_level(a->level, e) : 0;

	if (r < 0)
		return r;
	if (a->path) {
		fd = fc_open_output(a->path, e);
		if (fd < 0)
			return fd;
		if (dup2(fd, STDERR_FILENO) < 0)
			r = err_set(e, errno, "logger: %s", strerror(errno));
		close(fd);
	}
	return r < 0 ? r : keep(ctx, FC_LOGGER, call, e);
}

static int check_properties(const json_t *properties, struct err *e)
{
	const char *name;
	json_t *v;

	if (properties && !json_is_object(properties))
		return err_set(e, EINVAL, "properties: an object is expected");
	json_object_foreach((json_t *)properties, name, v) if (!json_is_string(v)) return err_set(
		e, EINVAL, "properties: %.64s: a text is expected", name);
	return 0;
}

int fc_put_metrics(void *ctx, const struct api_call *call, const void *args,
		   struct api_reply *reply, struct err *e)
{
	const struct fc_output *a = args;
	struct fc *f = ctx;
	int fd, r = check_properties(a->properties, e);

	if (r < 0)
		return r;
	if (f->metrics.fd >= 0)
		return err_set(
			e, EINVAL,
			"Cannot initialize the metrics system: Reinitialization of metrics not "
			"allowed.");
	fd = fc_open_output(a->path, e);
	if (fd < 0)
		return fd;
	f->metrics.fd = fd;
	f->metrics.emit_id = a->emit_id;
	f->metrics.properties = a->properties ? json_deep_copy(a->properties) : NULL;
	return keep(f, FC_METRICS, call, e);
}

/* --- the metadata service --- */

/* 169.254.1.0 to 169.254.254.255 (RFC 3927). */
static int check_address(const char *text, struct err *e)
{
	struct in_addr in;
	uint32_t a;

	if (inet_pton(AF_INET, text, &in) == 1) {
		a = ntohl(in.s_addr);
		if (a >> 16 == (169u << 8 | 254u) && (a >> 8 & 255) >= 1 && (a >> 8 & 255) <= 254)
			return 0;
	}
	return err_set(e, EINVAL, "The MMDS IPv4 address is not link local.");
}

int fc_put_mmds_config(void *ctx, const struct api_call *call, const void *args,
		       struct api_reply *reply, struct err *e)
{
	const struct fc_mmds *a = args;
	struct fc *f = ctx;
	int r = a->ipv4_address ? check_address(a->ipv4_address, e) : 0;

	if (r < 0)
		return r;
	if (!a->network_interfaces.n)
		return err_set(
			e, EINVAL,
			"The list of network interface IDs that allow forwarding MMDS requests "
			"is empty.");
	for (unsigned i = 0; i < a->network_interfaces.n; i++)
		if (!fc_find(f->doc[FC_NETS], "iface_id", a->network_interfaces.value[i], NULL))
			return err_set(
				e, EINVAL,
				"The list of network interface IDs provided contains at least "
				"one ID that does not correspond to any existing network "
				"interface.");
	mmds_configure(f->mmds, a->version == 1, a->imds_compat);
	return keep(f, FC_MMDS, call, e);
}
