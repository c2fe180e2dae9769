/* init: what the host tells the agent when it is the first process of a VM that runs a container's
 * image: the file INIT_FILE in the initramfs, which is a list of items, each a character, text
 * and a zero byte. Host and guest are of one version. */
#pragma once

#define INIT_FILE "/holon.run"
#define INIT_MAX  (1u << 20) /* bytes of the file */
#define INIT_PORT 0xf4       /* writing the exit status there ends the VM */

enum init_item {
	INIT_MODULE = 'm', /* a kernel module's file in the initramfs, to be loaded in this order */
	INIT_ARG = 'a',    /* of the command, which the first one names */
	INIT_ENV = 'e',    /* NAME=VALUE */
	INIT_DIR = 'w',    /* where it starts */
	INIT_USER = 'u',   /* as whom: NAME|UID[:GROUP|GID] */
	INIT_HOST = 'h',   /* the host's name */
	INIT_SIGNAL = 's', /* that asks it to end; a number */
	INIT_TTY = 't',    /* the console is a terminal with somebody at it */
	INIT_CONSOLE = 'c', /* its device in /dev */
	INIT_KEEP = 'k',    /* the disk stays after this run, and is to be left in order */
};
