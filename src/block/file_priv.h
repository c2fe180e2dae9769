/* file_priv: what file.c and its helpers share. */
#pragma once

#include "block/block_priv.h"

/* A write under way, so that a read-change-write of a block excludes others there. */
struct file_range {
	uint64_t start, end;
	bool exclusive; /* overlaps with nobody; others may overlap with each other */
	struct file_range *next, **at;
	struct coro_queue waiters;
};

struct file {
	struct proto proto;
	int fd;
	bool is_device, direct, unsafe;
	unsigned mem_align; /* of buffers, when direct; of offsets: proto.align */
	bool no_zero, no_discard, no_allocate;
	int flush_error; /* once set, the cache and the disk differ for good */
	struct file_range *ranges;
	unsigned exclusive;
};

/* Waits for those that r may not run beside. */
void file_range_enter(struct file *f, struct file_range *r);
void file_range_leave(struct file *f, struct file_range *r);

/* Whole ranges, wherever offset and iov lie. */
int file_direct_readv(struct file *f, uint64_t offset, const struct iovec *iov, unsigned n);
int file_direct_writev(struct file *f, uint64_t offset, const struct iovec *iov, unsigned n);
/* As the kernel takes them; short counts are made up for. */
int file_readv_all(struct file *f, uint64_t offset, const struct iovec *iov, unsigned n);
int file_writev_all(struct file *f, uint64_t offset, const struct iovec *iov, unsigned n);
int file_truncate(struct file *f, uint64_t size);

/* Finds what O_DIRECT wants of f->fd. */
void file_direct_probe(struct file *f);

/* Locks fd for as long as it is open. -EAGAIN: somebody else has it. */
int file_lock(int fd, bool writer, struct err *e);
/* Before fd is closed: io_uring may hold the open file a little longer, and its locks with it. */
void file_unlock(int fd);
