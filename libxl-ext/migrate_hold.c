/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* app-migrate: what comes for the service's address in the pause is held (divert.h), so that no peer has to send it again. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "divert.h"
#include "guard.h"
#include "migrate.h"

#define FACT "diverted" /* {"from", "to"}: interfaces; there before anything is changed */

static bool parse_mac(const char *text, uint8_t ret[MOLT_MAC_LEN])
{
    int end = 0;
    return text && sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &ret[0], &ret[1], &ret[2], &ret[3], &ret[4], &ret[5], &end) == 6 && !text[end];
}

/* The vif of a domain that has this address. What the guest tells of itself only chooses among its own. */
static int vif_of(struct molt_op *op, uint32_t domid, const uint8_t mac[MOLT_MAC_LEN], char **ret, struct molt_error **err)
{
    libxl_domain_config cfg;
    int r = molt_domain_config(up_of(op)->x, domid, &cfg, err);
    if (r < 0)
        return r;
    for (int i = 0; i < cfg.num_nics && !*ret; i++)
        if (!memcmp(cfg.nics[i].mac, mac, MOLT_MAC_LEN))
            *ret = molt_vif_name(&cfg.nics[i], domid);
    libxl_domain_config_dispose(&cfg);
    return *ret ? 0 : molt_error_set(err, MOLT_E_UNSUPPORTED, "domain %u has no vif with the address that its agent tells", domid);
}

/* Where nothing is diverted, false. */
static bool diverted(struct molt_op *op, struct molt_divert *ret)
{
    const struct molt_json *f = molt_json_get(molt_op_facts(op), FACT);
    const char *from = molt_json_get_string(f, "from"), *to = molt_json_get_string(f, "to");
    if (!from || !to || !up_param(op, "address") || !parse_mac(up_param(op, "to_mac"), ret->to_mac) ||
        molt_divert_address(up_param(op, "address"), &ret->address, NULL) < 0)
        return false;
    snprintf(ret->from, sizeof(ret->from), "%s", from);
    snprintf(ret->to, sizeof(ret->to), "%s", to);
    return true;
}

static int choose(struct molt_op *op, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_FREE char *from = NULL, *to = NULL;
    uint8_t mac[MOLT_MAC_LEN], to_mac[MOLT_MAC_LEN];
    if (!parse_mac(up_param(op, "mac"), mac) || !parse_mac(up_param(op, "to_mac"), to_mac))
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "an agent does not tell the address of its network device");
    int r = vif_of(op, (uint32_t)up_param_int(op, "domid"), mac, &from, err);
    if (r == 0)
        r = vif_of(op, (uint32_t)up_param_int(op, "to_domid"), to_mac, &to, err);
    if (r < 0)
        return r;
    *ret = molt_json_object();
    molt_json_set_string(*ret, "from", from);
    molt_json_set_string(*ret, "to", to);
    return 0;
}

int mig_hold_prepare(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *why = NULL;
    CLEANUP_JSON struct molt_json *fact = NULL;
    struct molt_divert d;
    if (!up_param(op, "address"))
        return 0;
    int r = choose(op, &fact, &why);
    if (r == 0) {
        if ((r = molt_op_put(op, FACT, molt_json_copy(fact), err)) < 0)
            return r;
        r = diverted(op, &d) ? molt_divert_prepare(molt_op_id(op), &d, &why) : molt_error_set(&why, MOLT_E_INTERNAL, "nothing to divert");
        if (r < 0 && molt_op_put(op, FACT, molt_json_bool(false), err) < 0)
            return MOLT_E_INTERNAL;
    }
    if (r < 0)
        molt_warn(molt_op_log(op), "packets that arrive in the freeze are not held, clients have to send them again: %s", molt_error_text(why));
    return 0;
}

static void give_back(const char *op_id, const void *ctx)
{
    (void)molt_divert_return(op_id, ctx, NULL);
}

int mig_hold_guard(struct molt_op *op, struct molt_error **err)
{
    struct molt_divert d;
    return diverted(op, &d) ? molt_guard_start(molt_op_id(op), give_back, &d, &up_of(op)->guard, err) : 0;
}

int mig_hold_requests(struct molt_op *op, struct molt_error **err)
{
    struct molt_divert d;
    return diverted(op, &d) ? molt_divert_requests(molt_op_id(op), &d, err) : 0;
}

int mig_hold_engage(struct molt_op *op, struct molt_error **err)
{
    struct molt_divert d;
    int r = diverted(op, &d) ? molt_divert_engage(molt_op_id(op), &d, err) : 0;
    up_note_us(op, "t_held");
    return r;
}

int mig_hold_release(struct molt_op *op, struct molt_error **err)
{
    struct molt_divert d;
    struct molt_hold_stats st;
    if (!diverted(op, &d))
        return 0;
    int r = molt_divert_release(molt_op_id(op), &d, &st, err);
    if (r == 0)
        up_note_held(op, &st);
    up_note_us(op, "t_released");
    return r;
}

int mig_hold_return(struct molt_op *op, struct molt_error **err)
{
    struct molt_divert d;
    int r = diverted(op, &d) ? molt_divert_return(molt_op_id(op), &d, err) : 0;
    molt_guard_stop(up_of(op)->guard);
    up_of(op)->guard = -1;
    return r;
}

int mig_hold_remove(struct molt_op *op, struct molt_error **err)
{
    struct molt_divert d;
    return diverted(op, &d) ? molt_divert_remove(molt_op_id(op), &d, err) : 0;
}
