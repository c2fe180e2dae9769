/* The table of 'holon image'. */
#include "cli/cli.h"

#include "cli/image.h"

static const struct option build_options[] = {
	{"suite", OPT_TEXT, offsetof(struct image_build_opts, suite), "NAME",
	 "The release of Debian. Default: bookworm."},
	{"package", OPT_TEXT, offsetof(struct image_build_opts, package), "NAME",
	 "A package to be there beyond a small system with SSH and cloud-init.", .repeats = true},
	{"size", OPT_SIZE, offsetof(struct image_build_opts, size), "SIZE",
	 "Size of the disk; on the host it takes what is in use. Default: 4G."},
	{"name", OPT_TEXT, offsetof(struct image_build_opts, name), "NAME",
	 "What the image is called. Default: debian."},
	{0}};

static const struct image_build_opts build_defaults = {
	.suite = "bookworm", .size = GIB(4), .name = "debian"};

static const struct option list_options[] = {
	{"json", OPT_FLAG, offsetof(struct image_list_opts, json), NULL, "Print JSON."}, {0}};

static const struct image_list_opts list_defaults = {0};

static const struct option pull_options[] = {
	{"sha256", OPT_TEXT, offsetof(struct image_pull_opts, sha256), "DIGEST",
	 "What the file must be. Default: what a SHA512SUMS or SHA256SUMS beside it says."},
	{"name", OPT_TEXT, offsetof(struct image_pull_opts, name), "NAME",
	 "What the image is called. Default: the file's name without its suffix."},
	{0}};

static const struct image_pull_opts pull_defaults = {0};

static const struct option rm_options[] = {
	{"force", OPT_FLAG, offsetof(struct image_rm_opts, force), NULL,
	 "Remove it although VMs are based on it; their disks are good for nothing then.",
	 .letter = 'f'},
	{0}};

static const struct image_rm_opts rm_defaults = {0};

static const struct command build_command = {
	.name = "image build",
	.words = "debian",
	.summary = "Make a disk image with a Debian on it, without root",
	.text = "Packages come from the system's own apt sources. Needs mmdebstrap, e2fsprogs and\n"
		"fdisk, and one of: root, a range of user ids in /etc/subuid, or fakechroot.\n"
		"SOURCE_DATE_EPOCH makes two builds from the same packages equal.\n",
	.option = build_options,
	.defaults = &build_defaults,
	.opts_size = sizeof(struct image_build_opts),
	.min_words = 1,
	.max_words = 1,
	.complete = "debian",
	.run = cmd_image_build,
};

static const struct command pull_command = {
	.name = "image pull",
	.words = "URL|FILE|oci:IMAGE",
	.summary = "Take a disk image, or a container's image, into the store",
	.text = "The disk is qcow2 or raw, plain or packed with gzip or zstd, with a system that\n"
		"boots in a virtual machine, such as distributions' cloud images. A download that\n"
		"broke off or was interrupted goes on where it was when it is asked for again.\n"
		"oci:IMAGE is what 'holon run' takes; its registry is asked for the newest.\n"
		"$SSL_CERT_FILE names other certificate authorities; http_proxy and so on are\n"
		"honoured.\n",
	.option = pull_options,
	.defaults = &pull_defaults,
	.opts_size = sizeof(struct image_pull_opts),
	.min_words = 1,
	.max_words = 1,
	.complete = WORDS_FILES,
	.run = cmd_image_pull,
};

static const struct command ls_command = {
	.name = "image ls",
	.summary = "List the images that are there",
	.option = list_options,
	.defaults = &list_defaults,
	.opts_size = sizeof(struct image_list_opts),
	.run = cmd_image_ls,
};

static const struct command info_command = {
	.name = "image info",
	.words = "IMAGE",
	.summary = "Show how an image was made, and what uses it",
	.text = "IMAGE is a name, or the first digits of a digest.\n",
	.option = list_options,
	.defaults = &list_defaults,
	.opts_size = sizeof(struct image_list_opts),
	.min_words = 1,
	.max_words = 1,
	.run = cmd_image_info,
};

static const struct command rm_command = {
	.name = "image rm",
	.words = "IMAGE...",
	.summary = "Remove images",
	.text = "An image that VMs are based on stays, unless --force is given.\n",
	.option = rm_options,
	.defaults = &rm_defaults,
	.opts_size = sizeof(struct image_rm_opts),
	.min_words = 1,
	.max_words = WORDS_MANY,
	.run = cmd_image_rm,
};

static const struct command *const image_commands[] = {&build_command, &pull_command, &ls_command,
						       &info_command,  &rm_command,   NULL};

const struct command image_command = {
	.name = "image",
	.summary = "Make, fetch, list and remove images of whole systems",
	.text = "Images live under $XDG_DATA_HOME/holon (~/.local/share/holon), named by what is\n"
		"in them. 'holon run IMAGE' starts a VM on a thin disk over one.\n",
	.group = image_commands,
};
