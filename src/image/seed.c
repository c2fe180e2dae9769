/* The seed's texts. They are JSON, which is YAML too, so that quoting is the library's work. */
#include "image/seed.h"

#include <crypt.h>
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/auto.h"
#include "image/iso.h"

static bool is_name(const char *s, const char *more, unsigned max)
{
	size_t len = strlen(s);

	if (!len || len > max || s[0] == '-' || s[0] == '.')
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr(more, *s))
			return false;
	return true;
}

static bool is_key(const char *line, size_t len)
{
	return len > 8 && memchr(line, ' ', len) &&
	       (!strncmp(line, "ssh-", 4) || !strncmp(line, "ecdsa-", 6) ||
		!strncmp(line, "sk-", 3) || memmem(line, len, " ssh-", 5) ||
		memmem(line, len, " ecdsa-", 7));
}

static int check_keys(const char *keys, struct err *e)
{
	if (strstr(keys, "PRIVATE KEY"))
		return err_set(e, EINVAL, "the SSH key is a private one; give its .pub file");
	for (const char *line = keys; *line;) {
		size_t len = strcspn(line, "\n");

		if (len && *line != '#' && !is_key(line, len))
			return err_set(e, EINVAL, "'%.*s' is no SSH public key",
				       (int)(len < 40 ? len : 40), line);
		line += len + (line[len] == '\n');
	}
	return 0;
}

int seed_check(const struct seed_opts *o, struct err *e)
{
	if (o->hostname && !is_name(o->hostname, "-.", 64))
		return err_set(e, EINVAL,
			       "'%s' is no host name (letters, digits, '-' and '.', at most 64)",
			       o->hostname);
	if (o->user_data && (o->user || o->ssh_keys || o->password))
		return err_set(e, EINVAL,
			       "user data of your own says itself which users there are: it goes "
			       "with neither a user, nor keys, nor a password");
	if (o->user && (!is_name(o->user, "-_.", 32) || isdigit((unsigned char)*o->user)))
		return err_set(e, EINVAL,
			       "'%s' is no user name (a letter, then letters, digits, '-', '_' "
			       "and '.', at most 32)",
			       o->user);
	if (!o->user && (o->ssh_keys || o->password))
		return err_set(e, EINVAL, "keys and a password need a user");
	return o->ssh_keys ? check_keys(o->ssh_keys, e) : 0;
}

/* --- user-data --- */

/* crypt(5)'s sha512crypt: every Linux of the last fifteen years takes it. */
static int hash_password(const char *password, char to[CRYPT_OUTPUT_SIZE], struct err *e)
{
	static const char digit[] =
		"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	struct crypt_data *data = calloc(1, sizeof *data);
	char setting[3 + 16 + 1] = "$6$";
	uint8_t random[16];
	const char *hash;

	if (!data)
		return err_set(e, ENOMEM, "out of memory");
	if (getrandom(random, sizeof random, 0) != sizeof random) {
		free(data);
		return err_sys(e, errno, "random numbers");
	}
	for (unsigned i = 0; i < 16; i++)
		setting[3 + i] = digit[random[i] % 64];
	/* Not crypt_r, which sanitizers replace by something that wants the shared library. */
	hash = crypt_rn(password, setting, data, sizeof *data);
	if (hash)
		memcpy(to, hash, strlen(hash) + 1);
	explicit_bzero(data, sizeof *data);
	free(data);
	return hash ? 0 : err_set(e, EINVAL, "this password cannot be hashed");
}

static json_t *key_list(const char *keys)
{
	json_t *list = json_array();

	while (keys && *keys) {
		size_t len = strcspn(keys, "\r\n");

		if (len && *keys != '#')
			json_array_append_new(list, json_stringn(keys, len));
		keys += len + strspn(keys + len, "\r\n");
	}
	return list;
}

static json_t *user_entry(const struct seed_opts *o, const char *hash)
{
	json_t *u = json_pack("{s:s, s:s, s:s, s:b}", "name", o->user, "shell", "/bin/bash", "sudo",
			      "ALL=(ALL) NOPASSWD:ALL", "lock_passwd", !hash);

	if (u && hash)
		json_object_set_new(u, "passwd", json_string(hash));
	if (u && o->ssh_keys)
		json_object_set_new(u, "ssh_authorized_keys", key_list(o->ssh_keys));
	return u;
}

/* The images that Holon builds read this file where the console's login starts. */
static json_t *console_login(const struct seed_opts *o)
{
	char line[80];

	snprintf(line, sizeof line, "LOGIN=\"--autologin %s\"\n", o->user);
	return json_pack("[{s:s, s:s}]", "path", "/etc/default/serial-login", "content", line);
}

static json_t *user_data(const struct seed_opts *o, const char *hash)
{
	json_t *root = json_object();

	json_object_set_new(root, "hostname", json_string(o->hostname ? o->hostname : "holon"));
	json_object_set_new(root, "manage_etc_hosts", json_true());
	if (!o->user)
		return root;
	json_object_set_new(root, "users", json_pack("[o]", user_entry(o, hash)));
	json_object_set_new(root, "ssh_pwauth", json_boolean(hash));
	if (!hash)
		json_object_set_new(root, "write_files", console_login(o));
	return root;
}

int seed_user_data(const struct seed_opts *o, char **text, struct err *e)
{
	char hash[CRYPT_OUTPUT_SIZE];
	AUTO_FREE char *body = NULL;
	json_t *root;
	int r = seed_check(o, e);

	if (r < 0 || (o->password && (r = hash_password(o->password, hash, e)) < 0))
		return r;
	root = user_data(o, o->password ? hash : NULL);
	body = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	if (!body || asprintf(text, "#cloud-config\n%s\n", body) < 0)
		return err_set(e, ENOMEM, "the seed's user-data: out of memory, or no UTF-8");
	return 0;
}

/* --- the disk --- */

static int meta_data(const struct seed_opts *o, char **text, struct err *e)
{
	json_t *root = json_pack("{s:s, s:s}", "instance-id", o->instance_id, "local-hostname",
				 o->hostname ? o->hostname : "holon");

	*text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	return *text ? 0 : err_set(e, ENOMEM, "the seed's meta-data: out of memory, or no UTF-8");
}

static int to_file(const uint8_t *bytes, uint32_t len, int *out, struct err *e)
{
	int fd = memfd_create("cidata", MFD_CLOEXEC);
	uint32_t done = 0;

	if (fd < 0)
		return err_sys(e, errno, "the seed's disk");
	while (done < len) {
		ssize_t n = write(fd, bytes + done, len - done);

		if (n <= 0) {
			int code = errno;

			close(fd);
			return err_sys(e, code, "the seed's disk");
		}
		done += (uint32_t)n;
	}
	*out = fd;
	return 0;
}

int seed_make(const struct seed_opts *o, int *fd, struct err *e)
{
	AUTO_FREE char *user = NULL, *meta = NULL;
	AUTO_FREE uint8_t *disk = NULL;
	struct iso_file file[2] = {{"user-data", o->user_data, o->user_data_len}, {"meta-data"}};
	uint32_t len;
	int r = seed_check(o, e);

	if (r < 0 || (r = meta_data(o, &meta, e)) < 0)
		return r;
	if (!o->user_data) {
		if ((r = seed_user_data(o, &user, e)) < 0)
			return r;
		file[0].bytes = user;
		file[0].len = (uint32_t)strlen(user);
	}
	file[1].bytes = meta;
	file[1].len = (uint32_t)strlen(meta);
	r = iso_make("cidata", file, 2, &disk, &len, e);
	return r < 0 ? r : to_file(disk, len, fd, e);
}
