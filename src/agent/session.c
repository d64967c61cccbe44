/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/units.h"
#include "base/cleanup.h"
#include "procmig/settle.h"

static const struct molt_handler handlers[] = {
    {"hello", h_hello},
    {"preflight", h_preflight},
    {"os", h_os},
    {"health", h_health},
    {"poweroff", h_poweroff},
    {"boot-files", h_boot_files},
    {"record-start", h_record_start},
    {"fs-freeze", h_fs_freeze},
    {"fs-thaw", h_fs_thaw},
    {"net-setup", h_net_setup},
    {"net-announce", h_net_announce},
    {"address-look", h_address_look},
    {"address-hide", h_address_hide},
    {"address-show", h_address_show},
    {"folders", h_folders},
    {"folders-drop", h_folders_drop},
    {"recipe", h_recipe},
    {"peer-listen", h_peer_listen},
    {"peer-connect", h_peer_connect},
    {"disks-wait", h_disks_wait},
    {"disks-forget", h_disks_forget},
    {"volumes-release", h_volumes_release},
    {"volumes-check", h_volumes_check},
    {"volumes-mount", h_volumes_mount},
    {"volumes-freeze", h_volumes_freeze},
    {"volumes-thaw", h_volumes_thaw},
    {"merge-begin", h_merge_begin},
    {"merge-pass", h_merge_pass},
    {"merge-report", h_merge_report},
    {"merge-plan", h_merge_plan},
    {"merge-resolve", h_merge_resolve},
    {"merge-check", h_merge_check},
    {"pins-fetch", h_pins_fetch},
    {"fileset", h_fileset},
    {"fileset-compare", h_fileset_compare},
    {"overlays", h_overlays},
    {"hooks", h_hooks},
    {"dump-prepare", h_dump_prepare},
    {"predump", h_predump},
    {"predump-fetch", h_predump_fetch},
    {"rehearsal-dump", h_rehearsal_dump},
    {"rehearse", h_rehearse},
    {"dump-arm", h_dump_arm},
    {"dump-settle", h_dump_settle},
    {"dump-freeze", h_dump_freeze},
    {"dump", h_dump},
    {"dump-written", h_dump_written},
    {"dump-end", h_dump_end},
    {"depart", h_depart},
    {"resume", h_resume},
    {"restore-prepare", h_restore_prepare},
    {"images-fetch", h_images_fetch},
    {"restore-go", h_restore_go},
    {"restore-thaw", h_restore_thaw},
    {"restore-kill", h_restore_kill},
    {"restore-undo", h_restore_undo},
    {"memory-wait", h_memory_wait},
    {"go-live", h_go_live},
    {"verify", h_verify},
    {NULL, NULL},
};

/* The host went away: what it had stopped goes on, unless the pivot gave it to another domain. */
static void take_back(struct session *s)
{
    bool replaced = agent_was_replaced();
    arrival_hurry(false);
    arrival_usual_turns();
    fs_thaw_all(s);
    departure_disarm(s);
    volumes_thaw(s); /* also where another domain took over: that one stands on a snapshot of them */
    if (units_frozen(s) && !replaced) {
        molt_warn(s->log, "the host went away: the workload goes on here");
        departure_resume(s);
    }
    if (departure_begun(s) && !replaced) {
        departure_thaw_bystanders(s->log); /* they stood still before the workload did */
        departure_forget_images();
    }
    if (!agent_took_over())
        arrival_give_up(s);
    peer_stop(s);
    record_end(s);
    molt_chan_close(s->peer);
    merge_free(s);
    molt_json_free(s->pins);
    molt_json_free(s->bystanders);
    molt_listeners_free(s->listeners);
    molt_json_free(s->folders);
    units_free(s);
}

void agent_session(struct molt_chan *host, struct molt_log *log)
{
    struct unit_moves units = {.n = 0};
    struct session s = {.host = host, .log = log, .units = &units};
    CLEANUP_ERROR struct molt_error *err = NULL;
    molt_info(log, "host connected");
    while (molt_serve_one(host, handlers, &s, -1, &err) == 0)
        molt_error_clear(&err);
    molt_info(log, "host gone: %s", molt_error_text(err));
    take_back(&s);
    molt_chan_close(host);
}
