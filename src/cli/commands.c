/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of subcommands with their help; the manual pages say the same at more length. */
#include "cli/cli.h"

#define COMMON                                                                                               \
    "  -v, --verbose            say more; twice: debug\n"                                                    \
    "      --state-dir DIR      operations live there (default: XENMOLT_STATE_DIR, else /var/lib/xenmolt)\n" \
    "  -h, --help               this text\n"

static int no_run(struct cli *cli, int argc, char **argv);

const struct cli_command cli_commands[] = {
    {"guest-upgrade", "[OPTIONS] DOMAIN", "Upgrade the operating system under a running domain",
     "DOMAIN is a name or an id. The domain goes on serving while a clone of it is upgraded; then its workload\n"
     "moves into the clone, which takes its place.\n\n"
     "  --workload UNIT          a systemd service that moves; may be repeated (default: those in\n"
     "                           the guest's /etc/xenmolt/workload)\n"
     "  --recipe NAME|FILE       how to upgrade: debian-security (default), debian-release, or a script of yours\n"
     "  --to SUITE               argument of the recipe; without --recipe it implies debian-release\n"
     "  --on-conflict WHO        active, upgrade or refuse (default): who wins where no merge rule decides\n"
     "  --resolve FILE           decisions about single conflicts, as the file that an earlier operation left\n"
     "  --wait[=HOURS]           merge, then wait (default 24 hours) for op-continue; look by delta-merge -n\n"
     "  -n, --dry-run            check only: print each check, then the estimate; change nothing\n"
     "  --report FILE            write the report (JSON) there\n"
     "  --no-rehearsal           do not try the restore in the clone before the freeze\n"
     "  --keep-active            keep the old domain, also from op-commit --older-than\n"
     "  --json                   events as JSON lines on stdout, the report as the last line\n" COMMON
     "\nCtrl-C asks for an abort: everything is undone and the guest runs on as before.\n",
     true, cli_guest_upgrade},
    {"delta-merge", "[-n | --resolve FILE] [--json] DOMAIN|OPERATION", "Look at, decide or advance the merge of an upgrade that waits",
     "For an upgrade that was started with --wait and waits. Without an option it makes a pass of the merge now.\n\n"
     "  -n, --dry-run            show the plan as of now: counts, bytes, conflicts with both sides and a diff\n"
     "  --resolve FILE           give it these decisions, then show what is left\n"
     "  --json                   the same as JSON\n" COMMON,
     true, cli_delta_merge},
    {"op-list", "[--json]", "List operations", "  --json                   as a JSON array\n" COMMON, true,
     cli_op_list},
    {"op-show", "[--json | --report] OPERATION", "Show one operation",
     "OPERATION is an id or the unique beginning of one.\n\n"
     "  --json                   everything, as one JSON object\n"
     "  --report                 the report alone, as JSON\n" COMMON,
     true, cli_op_show},
    {"op-log", "[--json] OPERATION", "Print the journal of an operation",
     "  --json                   as a JSON array\n" COMMON, true, cli_op_log},
    {"op-abort", "[--wait SECONDS] OPERATION", "Stop an operation before its point of no return, and undo it",
     "  --wait SECONDS           wait so long for its end (default 600; 0: only ask)\n" COMMON, true,
     cli_op_abort},
    {"op-continue", "OPERATION|DOMAIN", "Let an upgrade that waits go on", "Refused while conflicts are open.\n\n" COMMON, true,
     cli_op_continue},
    {"op-commit", "OPERATION | --older-than HOURS", "Delete what a finished operation retains: the old domain and its disks",
     "  --older-than HOURS       all that ended so long ago, but for those with --keep-active: a retention time\n" COMMON,
     true, cli_op_commit},
    {"op-rollback", "--discard-new-writes OPERATION", "Bring the old domain of a finished operation back",
     "  --discard-new-writes     needed: what was written since the switch-over is lost\n" COMMON, true,
     cli_op_rollback},
    {"op-recover", "OPERATION", "Bring an operation to an end whose command died or got stuck", COMMON, true,
     cli_op_recover},
    {"app-compare", "[--json] [--all] [--workload UNIT] FROM TO", "Compare two guests' systems, and what a service would find on the other",
     "FROM and TO are running domains with agents. Says which level is the newer one, and of each service of FROM\n"
     "whether it could move to TO as it is, with an overlay of old files, only by a restart there, or not at all.\n\n"
     "  --workload UNIT          a service of FROM; may be repeated (default: those in its\n"
     "                           /etc/xenmolt/workload)\n"
     "  --all                    name all packages and files that differ\n"
     "  --json                   everything as JSON\n" COMMON,
     true, cli_app_compare},
    {"app-migrate", "[OPTION]... FROM TO UNIT", "Move a running service from one guest to another",
     "FROM and TO are running domains with agents, at any two levels of their systems; TO has the unit, and it does not\n"
     "run there. Its process keeps its memory, files, connections and PID.\n\n"
     "  --address ADDRESS/LENGTH the service's own address, which goes along, with its connections\n"
     "  --path DIRECTORY         a directory of the service, which goes along; may be repeated; in TO missing\n"
     "                           or empty\n"
     "  --no-rehearsal           do not try the restore before the freeze\n"
     "  -n, --dry-run            only check whether it can be done\n"
     "  --report FILE            write the report, as JSON, to FILE\n"
     "  --json                   everything as JSON lines\n" COMMON,
     true, cli_app_migrate},
    {"app-overlays", "[--json] DOMAIN", "List the services of a domain that still run old code",
     "Those that moved in an upgrade and were not restarted since, and from which packages their old files are.\n\n"
     "  --json                   the same as JSON\n" COMMON,
     true, cli_app_overlays},
    {"domain-monitor", "[--log FILE] DOMID", "Act on the shutdown of a domain that xenmolt created",
     "Started by xenmolt itself for each domain it creates, as xl does; runs until the domain is gone.\n\n"
     "  --log FILE               append messages there\n" COMMON,
     true, cli_domain_monitor},
    {"shim-install", "[OPTIONS]", "Let xl know our subcommands",
     "Puts a small script in the place of xl, which hands our subcommands to xenmolt and all others to the real\n"
     "xl, unchanged. Run again after an update of xenmolt; shim-remove takes it back exactly.\n\n"
     "  --xl FILE                the xl to replace (default: XENMOLT_XL, else /usr/sbin/xl)\n"
     "  --lib-dir DIR            where the link to the real xl lives (default: XENMOLT_SHIM_DIR, else\n"
     "                           /usr/lib/xenmolt/shim)\n"
     "  --xenmolt FILE           the xenmolt to call (default: this one)\n"
     "  --divert, --no-divert    tell dpkg or do not (default: when FILE is dpkg's to manage)\n" COMMON,
     false, cli_shim_install},
    {"shim-remove", "[OPTIONS]", "Put the real xl back",
     "  --xl FILE, --lib-dir DIR, --divert, --no-divert\n"
     "                           as for shim-install\n" COMMON,
     false, cli_shim_remove},
    {"help", "[SUBCOMMAND | exit-codes]", "Explain a subcommand, or the exit statuses", "", false, no_run},
    {"subcommands", "", "List the subcommands that xl hands over", "", false, no_run},
    {"version", "", "Print the version", "", false, no_run},
    {NULL, NULL, NULL, NULL, false, NULL},
};

/* main() serves these itself. */
static int no_run(struct cli *cli, int argc, char **argv)
{
    (void)cli;
    (void)argc;
    (void)argv;
    return CLI_STATUS_USAGE;
}
