/* firecracker: the API of Firecracker for one VM (docs/firecracker.md): what its clients configure is
 * kept as JSON, as they sent it, until they start the VM; then it becomes a machine's config. From
 * then on requests go to the machine through its control.
 *
 * Threads: the API server's for the methods; before it exists, the main thread, which also builds
 * the machine while the API waits for that. */
#pragma once

#include "api/method.h"
#include "control/control.h"
#include "machine/machine.h"

/* Of the API that is served: its fields and its rules. */
#define FC_API_VERSION "1.14.0"
#define FC_ID_DEFAULT  "anonymous-instance"
#define FC_BODY_MAX    51200u

struct fc;

/* What the program around it does. */
struct fc_host {
	/* Builds the machine and lets it run; 0: it does. API thread. */
	int (*start)(struct fc_host *h, struct err *e);
};

struct fc_opts {
	const char *id;
	size_t body_max, mmds_max; /* 0: FC_BODY_MAX; the first */
};

WARN_UNUSED int fc_new(struct fc **out, const struct fc_opts *o, struct fc_host *h, struct err *e);
void fc_free(struct fc *f); /* accepts NULL */
const struct api_table *fc_table(const struct fc *f);
const char *fc_id(const struct fc *f);

/* The files of --config-file and --metadata; likewise by words of the command line. Main thread,
 * before there is a server. */
WARN_UNUSED int fc_load_config(struct fc *f, const char *path, struct err *e);
WARN_UNUSED int fc_load_metadata(struct fc *f, const char *path, struct err *e);
/* As a request with that body. */
WARN_UNUSED int fc_put(struct fc *f, const char *path, json_t *body, struct err *e);

/* Nothing can be configured from now on; no: it can again. */
void fc_starting(struct fc *f, bool yes);
/* What is configured; its texts and lists are f's. */
WARN_UNUSED int fc_config(struct fc *f, struct machine_config *c, struct err *e);
/* The machine is there; NULL: it is gone. Its metrics are written each minute on its loop. */
WARN_UNUSED int fc_attach(struct fc *f, struct control *c, struct machine *m, struct err *e);
void fc_detach(struct fc *f);
