#include "cli/disk_option.h"

#include <errno.h>
#include <stdlib.h>

#include "cli/suboptions.h"

int disk_options_parse(struct disk_options *out, const struct option_list *list, struct err *e)
{
	for (unsigned i = 0; i < list->n; i++) {
		struct disk_args p = disk_defaults;
		int r;

		if (i == MACHINE_DISKS_MAX)
			return err_set(e, EINVAL, "--disk: %u disks are the most", i);
		r = suboptions_parse(disk_parts, list->value[i], &p.file, &p, &out->storage[i], e);
		if (r < 0)
			return err_wrap(e, "--disk %.80s", list->value[i]);
		out->n = i + 1;
		if (disk_args_fill(&out->disk[i], &p, e) < 0)
			return err_wrap(e, "--disk %.80s", list->value[i]);
	}
	return 0;
}

void disk_options_done(struct disk_options *d)
{
	for (unsigned i = 0; i < d->n; i++)
		free(d->storage[i]);
}
