/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Right before the freeze: connections that no process holds come to rest, since they cannot be moved (src/procmig/settle.h). */
#include "base/cleanup.h"
#include "upgrade.h"

/* Of a note or a reply; 0: none, or nonsense. */
static long long count(const struct molt_json *u, const char *key)
{
    int64_t n = molt_json_get_int(u, key, 0);
    return n > 0 && n <= UINT32_MAX ? n : 0;
}

void up_warn_unsettled(struct molt_op *op, const struct molt_json *reply)
{
    const struct molt_json *u = molt_json_get(reply, "unsettled");
    const long long waiting = count(u, "waiting"), half = count(u, "half_open"), closing = count(u, "closing");
    if (waiting)
        molt_warn(molt_op_log(op), "%lld connection%s to %s came too late to be accepted, and will be reset", waiting, waiting == 1 ? "" : "s", up_param(op, "workload"));
    if (half)
        molt_warn(molt_op_log(op), "%lld connection%s to %s %s half open, and will be reset if the peer goes on with %s", half, half == 1 ? "" : "s", up_param(op, "workload"),
                  half == 1 ? "is" : "are", half == 1 ? "it" : "them");
    if (closing)
        molt_warn(molt_op_log(op), "%lld closed connection%s of the guest's %s not acknowledged to the end; what its peer has not got then is lost if a packet of it is", closing,
                  closing == 1 ? "" : "s", closing == 1 ? "is" : "are");
}

/* For the report: numbers, whatever the guest said. */
static void note_settle(struct molt_op *op, const struct molt_json *reply)
{
    static const char *const kinds[] = {"waiting", "half_open", "closing", "silent"};
    struct molt_json *o = molt_json_object(), *u = molt_json_object();
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        molt_json_set_int(u, kinds[i], count(molt_json_get(reply, "unsettled"), kinds[i]));
    molt_json_set(o, "unsettled", u);
    molt_json_set_double(o, "ms", molt_json_get_double(reply, "ms", 0));
    molt_op_note(op, "settle", o);
}

int up_settle(struct molt_op *op, struct molt_chan *active, bool bystanders, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *reply = NULL, *args = molt_json_object();
    const char *address = up_param(op, "address");
    molt_json_set_bool(args, "bystanders", bystanders);
    if (!bystanders) /* the guest stays, with all its connections but those of one address */
        molt_json_set_string(args, "address", address ? address : "");
    int r = up_long_call(active, "dump-settle", args, &reply, err);
    if (up_older_agent(active, r, err))
        return 0;
    if (r < 0)
        return r;
    note_settle(op, reply);
    const long long waiting = count(molt_json_get(reply, "unsettled"), "waiting");
    if (waiting)
        return molt_error_set(err, MOLT_E_CANNOT_MOVE, "%lld connection%s to %s wait%s to be accepted, and would be reset; try again when it accepts connections at once",
                              waiting, waiting == 1 ? "" : "s", up_param(op, "workload"), waiting == 1 ? "s" : "");
    up_warn_unsettled(op, reply);
    return 0;
}
