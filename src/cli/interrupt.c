#include "cli/interrupt.h"

#include <errno.h>
#include <sys/signalfd.h>
#include <unistd.h>

int interrupt_init(struct interrupt *i, struct err *e)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGHUP);
	i->signal = 0;
	pthread_sigmask(SIG_BLOCK, &mask, &i->old_mask);
	i->fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (i->fd >= 0)
		return 0;
	pthread_sigmask(SIG_SETMASK, &i->old_mask, NULL);
	return err_sys(e, errno, "signalfd");
}

bool interrupt_came(struct interrupt *i)
{
	struct signalfd_siginfo info;

	while (read(i->fd, &info, sizeof info) == sizeof info)
		i->signal = (int)info.ssi_signo;
	return i->signal != 0;
}

void interrupt_done(struct interrupt *i)
{
	close(i->fd);
	pthread_sigmask(SIG_SETMASK, &i->old_mask, NULL);
}
