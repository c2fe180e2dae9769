/* Directories are composed here block by block: libext2fs would look through a directory for
 * each name it adds, which takes forever where somebody has put very many. */
#include "oci/mkext.h"

#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"

#define BLOCK           4096u
#define BYTES_PER_INODE 16384u
#define JOURNAL_BLOCKS  4096u
#define INODE_SIZE      256u
#define PIECE           MIB(1)
#define LINKS_MAX       65000u /* of a directory; beyond, ext4 does not count */

struct mkext {
	struct tree *tree;
	const struct mkext_opts *o;
	struct err *e;
	ext2_filsys fs;
	ext2_ino_t next;
	uint64_t done, total;
	uint8_t *buf; /* PIECE bytes */
};

static int failed(struct mkext *m, errcode_t code, const char *what)
{
	if (code < 256) /* an errno of the system's */
		return err_sys(m->e, (int)code, "%s", what);
	return err_set(m->e, code == EXT2_ET_NO_MEMORY ? ENOMEM : EIO, "%s: %s", what,
		       error_message(code));
}

/* --- the empty file system --- */

static void sum_up(const struct tree_node *n, uint64_t *bytes, uint64_t *nodes)
{
	(*nodes)++;
	*bytes += BLOCK; /* a directory, or a file's last block */
	if (S_ISREG(n->inode->mode))
		*bytes += n->inode->size;
	for (const struct tree_node *c = n->child; c; c = c->next)
		sum_up(c, bytes, nodes);
}

static void set_parameters(struct mkext *m, struct ext2_super_block *p, uint64_t bytes,
			   uint64_t nodes)
{
	uint64_t size = bytes + bytes / 32 + nodes * 512 + m->o->room;

	*p = (struct ext2_super_block){.s_rev_level = EXT2_DYNAMIC_REV,
				       .s_log_block_size = 2,
				       .s_log_cluster_size = 2,
				       .s_inode_size = INODE_SIZE};
	ext2fs_blocks_count_set(p, size / BLOCK);
	p->s_inodes_count = (uint32_t)(nodes + size / BYTES_PER_INODE);
	p->s_feature_compat = EXT3_FEATURE_COMPAT_HAS_JOURNAL | EXT2_FEATURE_COMPAT_EXT_ATTR |
			      EXT2_FEATURE_COMPAT_DIR_INDEX;
	p->s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
				EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_FLEX_BG;
	p->s_feature_ro_compat =
		EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE |
		EXT4_FEATURE_RO_COMPAT_HUGE_FILE | EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
		EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE | EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
	p->s_log_groups_per_flex = 4;
	p->s_desc_size = EXT2_MIN_DESC_SIZE_64BIT;
}

static int reserve_inodes(struct mkext *m)
{
	for (ext2_ino_t i = 1; i < EXT2_FIRST_INODE(m->fs->super); i++)
		if (i != EXT2_ROOT_INO)
			ext2fs_inode_alloc_stats2(m->fs, i, +1, 0);
	m->next = EXT2_FIRST_INODE(m->fs->super);
	return 0;
}

static int make_empty(struct mkext *m, uint64_t bytes, uint64_t nodes)
{
	struct ext2_super_block p;
	AUTO_CLOSE int fd = open(m->o->file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	errcode_t r;

	set_parameters(m, &p, bytes, nodes);
	if (fd < 0 || ftruncate(fd, (off_t)(ext2fs_blocks_count(&p) * BLOCK)) < 0)
		return err_sys(m->e, errno, "'%s'", m->o->file);
	r = ext2fs_initialize(m->o->file, EXT2_FLAG_64BITS, &p, unix_io_manager, &m->fs);
	if (r)
		return failed(m, r, "a new file system");
	memcpy(m->fs->super->s_uuid, m->o->uuid, 16);
	memcpy(m->fs->super->s_hash_seed, m->o->uuid, 16);
	m->fs->super->s_def_hash_version = EXT2_HASH_HALF_MD4;
	m->fs->super->s_flags |= EXT2_FLAGS_UNSIGNED_HASH;
	m->fs->super->s_checksum_type = EXT2_CRC32C_CHKSUM;
	m->fs->super->s_min_extra_isize = m->fs->super->s_want_extra_isize =
		sizeof(struct ext2_inode_large) - EXT2_GOOD_OLD_INODE_SIZE;
	ext2fs_init_csum_seed(m->fs);
	/* The file is new, and reads as zeros. */
	for (dgrp_t g = 0; g < m->fs->group_desc_count; g++)
		ext2fs_bg_flags_set(m->fs, g, EXT2_BG_INODE_ZEROED);
	if ((r = ext2fs_allocate_tables(m->fs)))
		return failed(m, r, "a new file system");
	return reserve_inodes(m);
}

/* --- inodes --- */

static void set_owner(struct ext2_inode_large *to, const struct tree_inode *i)
{
	uint32_t time = (uint32_t)i->mtime;
	uint32_t extra = (uint32_t)((uint64_t)(i->mtime - (int32_t)time) >> 32) & 3;

	to->i_uid = (uint16_t)i->uid;
	ext2fs_set_i_uid_high(*to, i->uid >> 16);
	to->i_gid = (uint16_t)i->gid;
	ext2fs_set_i_gid_high(*to, i->gid >> 16);
	to->i_atime = to->i_ctime = to->i_mtime = to->i_crtime = time;
	to->i_atime_extra = to->i_ctime_extra = to->i_mtime_extra = to->i_crtime_extra = extra;
	to->i_extra_isize = sizeof *to - EXT2_GOOD_OLD_INODE_SIZE;
}

static int new_number(struct mkext *m, bool directory, ext2_ino_t *out)
{
	if (m->next > m->fs->super->s_inodes_count)
		return err_set(m->e, ENOSPC, "the image has too many files");
	*out = m->next++;
	ext2fs_inode_alloc_stats2(m->fs, *out, +1, directory);
	return 0;
}

static struct ext2_inode *small(struct ext2_inode_large *i)
{
	return (struct ext2_inode *)i;
}

static int write_inode(struct mkext *m, ext2_ino_t n, struct ext2_inode_large *i)
{
	errcode_t r = ext2fs_write_inode_full(m->fs, n, small(i), sizeof *i);

	return r ? failed(m, r, "write an inode") : 0;
}

/* As Linux's new_encode_dev has it. */
static void set_device(struct ext2_inode_large *to, const struct tree_inode *i)
{
	if (i->dev_major < 256 && i->dev_minor < 256)
		to->i_block[0] = i->dev_major * 256 + i->dev_minor;
	else
		to->i_block[1] =
			(i->dev_minor & 0xff) | i->dev_major << 8 | (i->dev_minor & ~0xffu) << 12;
}

/* --- bytes --- */

static int read_layer(struct mkext *m, const struct tree_inode *i, uint64_t at, uint64_t len)
{
	uint64_t had = 0;

	while (had < len) {
		ssize_t n = pread(m->o->layer[i->layer], m->buf + had, len - had,
				  (off_t)(i->at + at + had));

		if (n <= 0)
			return err_sys(m->e, n < 0 ? errno : EIO, "read a layer");
		had += (uint64_t)n;
	}
	return 0;
}

static int write_bytes(struct mkext *m, ext2_file_t f, const struct tree_inode *i)
{
	for (uint64_t at = 0; at < i->size;) {
		uint64_t len = min_u64(PIECE, i->size - at);
		unsigned wrote;
		errcode_t code;
		int r = read_layer(m, i, at, len);

		if (r < 0)
			return r;
		code = ext2fs_file_write(f, m->buf, (unsigned)len, &wrote);
		if (code || wrote != len)
			return failed(m, code ? code : EIO, "write a file");
		at += len;
		m->done += len;
		if (m->o->step && !m->o->step(m->o->ctx, m->done, m->total))
			return err_set(m->e, ECANCELED, "interrupted");
	}
	return 0;
}

static int write_file(struct mkext *m, ext2_ino_t n, const struct tree_inode *i)
{
	ext2_file_t f;
	errcode_t code, closed;
	int r;

	if (!i->size)
		return 0;
	if ((code = ext2fs_file_open(m->fs, n, EXT2_FILE_WRITE, &f)))
		return failed(m, code, "write a file");
	r = write_bytes(m, f, i);
	closed = ext2fs_file_close(f);
	return r < 0 ? r : closed ? failed(m, closed, "write a file") : 0;
}

static int write_link(struct mkext *m, ext2_ino_t n, struct ext2_inode_large *i, const char *target)
{
	size_t len = strlen(target);
	blk64_t block = 0;
	errcode_t code;

	ext2fs_inode_size_set(m->fs, small(i), (ext2_off64_t)len);
	if (len < sizeof i->i_block) {
		i->i_flags &= ~(uint32_t)EXT4_EXTENTS_FL;
		memcpy(i->i_block, target, len);
		return write_inode(m, n, i);
	}
	memset(m->buf, 0, BLOCK);
	memcpy(m->buf, target, len);
	if ((code = ext2fs_bmap2(m->fs, n, small(i), NULL, BMAP_ALLOC, 0, NULL, &block)) ||
	    (code = io_channel_write_blk64(m->fs->io, block, 1, m->buf)))
		return failed(m, code, "write a symbolic link");
	return write_inode(m, n, i);
}

/* --- attributes --- */

static bool is_kept(const char *name)
{
	return !strncmp(name, "user.", 5) || !strncmp(name, "security.", 9) ||
	       !strncmp(name, "trusted.", 8);
}

static int write_xattrs(struct mkext *m, ext2_ino_t n, const struct tree_inode *i)
{
	struct ext2_xattr_handle *h;
	const uint8_t *p = i->xattrs, *end;
	errcode_t code;

	if (!i->xattrs_len)
		return 0;
	end = p + i->xattrs_len;
	if ((code = ext2fs_xattrs_open(m->fs, n, &h)))
		return failed(m, code, "write attributes");
	while (!code && p < end) {
		const char *name = (const char *)p;
		uint32_t len = (uint32_t)load_le(p + strlen(name) + 1, 4);

		p += strlen(name) + 5;
		if (is_kept(name))
			code = ext2fs_xattr_set(h, name, p, len);
		p += len;
	}
	ext2fs_xattrs_close(&h);
	return code ? failed(m, code, "write attributes") : 0;
}

/* --- directories --- */

struct filler {
	struct mkext *m;
	ext2_ino_t number;
	struct ext2_inode_large *inode;
	uint8_t *block; /* BLOCK bytes */
	unsigned used, last, blocks;
};

static unsigned room_in_block(void)
{
	return BLOCK - sizeof(struct ext2_dir_entry_tail);
}

static int flush_block(struct filler *f)
{
	struct ext2_dir_entry *d = (void *)(f->block + f->last);
	blk64_t where = 0;
	errcode_t code;

	ext2fs_set_rec_len(f->m->fs, room_in_block() - f->last, d);
	ext2fs_initialize_dirent_tail(f->m->fs, EXT2_DIRENT_TAIL(f->block, BLOCK));
	if ((code = ext2fs_bmap2(f->m->fs, f->number, small(f->inode), NULL, BMAP_ALLOC, f->blocks,
				 NULL, &where)) ||
	    (code = ext2fs_write_dir_block4(f->m->fs, where, f->block, 0, f->number)))
		return failed(f->m, code, "write a directory");
	f->blocks++;
	f->used = 0;
	memset(f->block, 0, BLOCK);
	return 0;
}

static int add_name(struct filler *f, const char *name, ext2_ino_t to, int type)
{
	unsigned len = (unsigned)strlen(name), need = (unsigned)align_up(8 + len, 4);
	struct ext2_dir_entry *d;
	int r;

	if (f->used + need > room_in_block() && (r = flush_block(f)) < 0)
		return r;
	d = (void *)(f->block + f->used);
	d->inode = to;
	ext2fs_set_rec_len(f->m->fs, need, d);
	ext2fs_dirent_set_name_len(d, (int)len);
	ext2fs_dirent_set_file_type(d, type);
	memcpy(d->name, name, len);
	f->last = f->used;
	f->used += need;
	return 0;
}

static int file_type(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR: return EXT2_FT_DIR;
	case S_IFLNK: return EXT2_FT_SYMLINK;
	case S_IFCHR: return EXT2_FT_CHRDEV;
	case S_IFBLK: return EXT2_FT_BLKDEV;
	case S_IFIFO: return EXT2_FT_FIFO;
	default: return EXT2_FT_REG_FILE;
	}
}

static int fill_directory(struct filler *f, const struct tree_node *n, ext2_ino_t parent)
{
	int r = add_name(f, ".", f->number, EXT2_FT_DIR);

	if (r == 0)
		r = add_name(f, "..", parent, EXT2_FT_DIR);
	for (const struct tree_node *c = n->child; r == 0 && c; c = c->next)
		r = add_name(f, c->name, c->inode->number, file_type(c->inode->mode));
	if (r == 0)
		r = flush_block(f);
	if (r == 0)
		ext2fs_inode_size_set(f->m->fs, small(f->inode), (ext2_off64_t)f->blocks * BLOCK);
	return r;
}

static unsigned directory_links(const struct tree_node *n)
{
	unsigned links = 2;

	for (const struct tree_node *c = n->child; c; c = c->next)
		links += S_ISDIR(c->inode->mode);
	return links > LINKS_MAX ? 1 : links;
}

static int write_directory(struct mkext *m, const struct tree_node *n, struct ext2_inode_large *i)
{
	AUTO_FREE uint8_t *block = calloc(1, BLOCK);
	struct filler f = {m, n->inode->number, i, block, 0, 0, 0};
	int r;

	if (!block)
		return err_set(m->e, ENOMEM, "out of memory");
	i->i_links_count = (uint16_t)directory_links(n);
	if ((r = fill_directory(&f, n, n->parent ? n->parent->inode->number : EXT2_ROOT_INO)) < 0)
		return r;
	return write_inode(m, f.number, i);
}

/* --- the whole tree --- */

/* Names point to numbers, so all numbers are given before. */
static int give_numbers(struct mkext *m, struct tree_node *n)
{
	int r;

	if (!n->parent) {
		n->inode->number = EXT2_ROOT_INO;
		ext2fs_inode_alloc_stats2(m->fs, EXT2_ROOT_INO, +1, 1);
	} else if (!n->inode->number) {
		ext2_ino_t number = 0;

		if ((r = new_number(m, S_ISDIR(n->inode->mode), &number)) < 0)
			return r;
		n->inode->number = number;
	}
	for (struct tree_node *c = n->child; c; c = c->next)
		if ((r = give_numbers(m, c)) < 0)
			return r;
	return 0;
}

#define WRITTEN BIT(31) /* of tree_inode.mode: a further name needs no more */

static int write_one(struct mkext *m, struct tree_node *n)
{
	struct tree_inode *i = n->inode;
	struct ext2_inode_large to = {.i_mode = (uint16_t)i->mode,
				      .i_links_count = (uint16_t)i->links};
	ext2_ino_t number = i->number;
	bool data = S_ISREG(i->mode) || S_ISDIR(i->mode) || S_ISLNK(i->mode);
	errcode_t code;
	int r;

	set_owner(&to, i);
	if (data)
		to.i_flags = EXT4_EXTENTS_FL;
	else if (S_ISCHR(i->mode) || S_ISBLK(i->mode))
		set_device(&to, i);
	if (S_ISREG(i->mode))
		ext2fs_inode_size_set(m->fs, small(&to), (ext2_off64_t)i->size);
	if (data) { /* an empty tree of extents; ext2fs_extent_open writes its head */
		ext2_extent_handle_t h;

		if ((r = write_inode(m, number, &to)) < 0)
			return r;
		if (!S_ISLNK(i->mode) || strlen(i->target) >= sizeof to.i_block) {
			if ((code = ext2fs_extent_open2(m->fs, number, small(&to), &h)))
				return failed(m, code, "write an inode");
			ext2fs_extent_free(h);
		}
	}
	if ((r = write_inode(m, number, &to)) < 0)
		return r;
	if (S_ISREG(i->mode))
		r = write_file(m, number, i);
	else if (S_ISLNK(i->mode))
		r = write_link(m, number, &to, i->target);
	else if (S_ISDIR(i->mode))
		r = write_directory(m, n, &to);
	return r < 0 ? r : write_xattrs(m, number, i);
}

static int write_all(struct mkext *m, struct tree_node *n)
{
	int r = 0;

	if (!(n->inode->mode & WRITTEN)) {
		r = write_one(m, n);
		if (!S_ISDIR(n->inode->mode))
			n->inode->mode |= (uint32_t)WRITTEN;
	}
	for (struct tree_node *c = n->child; r == 0 && c; c = c->next)
		r = write_all(m, c);
	return r;
}

static int fill(struct mkext *m)
{
	uint64_t nodes = 0;
	errcode_t code;
	int r;

	sum_up(tree_root(m->tree), &m->total, &nodes);
	if ((r = make_empty(m, m->total, nodes)) < 0 ||
	    (r = give_numbers(m, tree_root(m->tree))) < 0 ||
	    (r = write_all(m, tree_root(m->tree))) < 0)
		return r;
	if ((code = ext2fs_add_journal_inode(m->fs, JOURNAL_BLOCKS, 0)))
		return failed(m, code, "a journal");
	ext2fs_mark_super_dirty(m->fs);
	return 0;
}

int mkext(struct tree *t, const struct mkext_opts *o, struct err *e)
{
	AUTO_FREE uint8_t *buf = malloc(PIECE);
	struct mkext m = {.tree = t, .o = o, .e = e, .buf = buf};
	errcode_t code;
	int r;

	if (!buf)
		return err_set(e, ENOMEM, "out of memory");
	initialize_ext2_error_table();
	r = fill(&m);
	if (m.fs && r == 0) {
		code = ext2fs_close_free(&m.fs);
		if (code)
			r = failed(&m, code, "write a file system");
	} else if (m.fs) {
		ext2fs_free(m.fs);
	}
	return r;
}
