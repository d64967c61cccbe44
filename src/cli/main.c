/* SPDX-License-Identifier: GPL-2.0-or-later */
/* xenmolt: the multi-call command. */
#include "cli/cli.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

const struct cli_command *cli_find(const char *name)
{
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        if (!strcmp(c->name, name))
            return c;
    }
    return NULL;
}

void cli_help(const struct cli_command *c)
{
    printf("Usage: xenmolt %s%s%s\n\n%s.\n", c->name, c->synopsis[0] ? " " : "", c->synopsis, c->summary);
    if (c->help[0])
        printf("\n%s", c->help);
}

static void overview(FILE *to)
{
    fprintf(to, "Usage: xenmolt [-v] [--state-dir DIR] SUBCOMMAND [OPTIONS] ...\n\n"
                "Changes the operating system under a running Xen guest.\n\n");
    for (const struct cli_command *c = cli_commands; c->name; c++)
        fprintf(to, "  %-16s %s\n", c->name, c->summary);
    fprintf(to, "\n\"xenmolt help SUBCOMMAND\" says more.\n");
}

static void exit_codes(void)
{
#define MOLT_X(name, value, status, text) printf("%3d  %s\n", status, text);
    MOLT_CODES(MOLT_X)
#undef MOLT_X
}

int cli_usage(const struct cli *cli, const char *fmt, ...)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    const char *name = cli->command ? cli->command->name : NULL;
    va_list ap;

    va_start(ap, fmt);
    molt_strbuf_vaddf(&b, fmt, ap);
    va_end(ap);
    fprintf(stderr, "xenmolt%s%s: %s\nTry \"xenmolt help%s%s\".\n", name ? " " : "", name ? name : "",
            molt_strbuf_str(&b), name ? " " : "", name ? name : "");
    return CLI_STATUS_USAGE;
}

int cli_result(const struct cli *cli, int code, xenmolt_error *err)
{
    if (code < 0) {
        const char *text = err ? xenmolt_error_text(err) : "";

        fprintf(stderr, "xenmolt %s: %s\n", cli->command->name, text[0] ? text : xenmolt_strerror(code));
    }
    xenmolt_error_free(err);
    return code < 0 ? xenmolt_exit_status(code) : 0;
}

static void plain_log(void *ctx, enum xenmolt_level level, const char *line)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};

    (void)ctx;
    fprintf(stderr, "%s: %s\n", (unsigned)level < 4 ? names[level] : "log", line);
}

int cli_open(struct cli *cli, xenmolt **ret)
{
    xenmolt_config config = {.size = sizeof(config), .state_dir = cli->state_dir};
    xenmolt_error *err = NULL;

    config.log = cli->log ? cli->log : plain_log;
    config.event = cli->event;
    config.ctx = cli->ctx;
    config.log_level = cli->verbose == 0 ? XENMOLT_WARN : cli->verbose == 1 ? XENMOLT_INFO : XENMOLT_DEBUG;
    return cli_result(cli, xenmolt_open(&config, ret, &err), err);
}

int cli_common_option(struct cli *cli, int opt, char **argv)
{
    switch (opt) {
    case 'h': cli_help(cli->command); return 0;
    case 'v': cli->verbose++; return -1;
    case CLI_OPT_STATE_DIR: cli->state_dir = optarg; return -1;
    case ':': return cli_usage(cli, "option %s needs an argument", argv[optind - 1]);
    default:
        if (optopt > 0 && optopt < 256)
            return cli_usage(cli, "unknown option -%c", optopt);
        return cli_usage(cli, "unknown or malformed option %s", argv[optind - 1]);
    }
}

const char *cli_one_argument(struct cli *cli, int argc, char **argv, const char *what)
{
    if (optind >= argc || !argv[optind][0])
        cli_usage(cli, "%s is missing", what);
    else if (optind + 1 < argc)
        cli_usage(cli, "one %s only, but there is also %s", what, argv[optind + 1]);
    else
        return argv[optind];
    return NULL;
}

void cli_print_json(const struct molt_json *v, bool pretty)
{
    CLEANUP_FREE char *text = molt_json_print(v, pretty);

    puts(text);
    fflush(stdout);
}

static int help(struct cli *cli, int argc, char **argv)
{
    const struct cli_command *c;

    if (argc < 2) {
        overview(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "exit-codes")) {
        exit_codes();
        return 0;
    }
    c = cli_find(argv[1]);
    if (!c)
        return cli_usage(cli, "no subcommand %s", argv[1]);
    cli_help(c);
    return 0;
}

static int dispatch(struct cli *cli, int argc, char **argv)
{
    cli->command = cli_find(argv[0]);
    if (!cli->command)
        return cli_usage(cli, "unknown subcommand %s", argv[0]);
    if (argc > 1 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
        cli_help(cli->command);
        return 0;
    }
    if (!strcmp(argv[0], "help"))
        return help(cli, argc, argv);
    if (!strcmp(argv[0], "version")) {
        printf("xenmolt %s\n", xenmolt_version());
        return 0;
    }
    if (!strcmp(argv[0], "subcommands")) {
        for (const struct cli_command *c = cli_commands; c->name; c++) {
            if (c->shim)
                puts(c->name);
        }
        return 0;
    }
    optind = 0; /* the global options used it */
    return cli->command->run(cli, argc, argv);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"version", no_argument, NULL, 'V'},
        CLI_COMMON_LONG,
        {NULL, 0, NULL, 0},
    };
    const char *env = getenv("XENMOLT_STATE_DIR");
    struct cli cli = {.state_dir = env && env[0] ? env : NULL};
    int opt, r;

    signal(SIGPIPE, SIG_IGN); /* "| head" must not end an operation */
    opterr = 0;
    /* -f -N -t -T: xl's own global options, so that "xl -f guest-upgrade" works as with any xl subcommand. */
    while ((opt = getopt_long(argc, argv, "+:hvVfNtT", options, NULL)) != -1) {
        switch (opt) {
        case 'h': overview(stdout); return 0;
        case 'V': printf("xenmolt %s\n", xenmolt_version()); return 0;
        case 'N': cli.dry_run = true; break;
        case 'f':
        case 't':
        case 'T': break;
        default:
            r = cli_common_option(&cli, opt, argv);
            if (r >= 0)
                return r;
        }
    }
    if (optind >= argc) {
        overview(stderr);
        return CLI_STATUS_USAGE;
    }
    return dispatch(&cli, argc - optind, argv + optind);
}
