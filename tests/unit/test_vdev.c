/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of virtual disks: what Linux shows for a vdev, and which name the base of a disk gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "disk.h"

static void expect(const char *vdev, const char *name)
{
    char got[16] = "";
    assert_int_equal(molt_vdev_guest_name(vdev, got, sizeof(got)), name != NULL);
    if (name)
        assert_string_equal(got, name);
}

static void test_guest_names(void **state)
{
    (void)state;
    expect("xvda", "xvda");
    expect("xvda1", "xvda1");
    expect("xvdz15", "xvdz15");
    expect("hda", "xvda");
    expect("hdd2", "xvdd2");
    expect("sda", "xvde");
    expect("sdb3", "xvdf3");
}

static void test_unknown_names(void **state)
{
    static const char *const bad[] = {"", "xvd", "xvdA", "xvdaa", "xvda01", "xvda1p2", "xvda1000", "hde", "sdq", "d0p1", "51712", "../xvda", "xvda/"};
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect(bad[i], NULL);
}

/* A configuration with these disks. */
static libxl_domain_config config(libxl_device_disk *disks, char *const *vdevs, int n)
{
    libxl_domain_config cfg;
    memset(&cfg, 0, sizeof(cfg));
    memset(disks, 0, (size_t)n * sizeof(*disks));
    for (int i = 0; i < n; i++)
        disks[i].vdev = vdevs[i];
    cfg.disks = disks;
    cfg.num_disks = n;
    return cfg;
}

static void test_free_names(void **state)
{
    (void)state;
    libxl_device_disk disks[4];
    char *vdevs[] = {"xvda", "xvdb1", "xvdx", "hdc"};
    libxl_domain_config cfg = config(disks, vdevs, 4);
    char base[4][16] = {{0}};
    static const char *const want[] = {"xvdy", "xvdw1", "xvdv", "xvdu"};
    for (size_t i = 0; i < 4; i++) {
        assert_true(molt_vdev_free(&cfg, (const char (*)[16])base, i, vdevs[i], base[i]));
        assert_string_equal(base[i], want[i]);
    }
}

/* A partition as a vdev of its own takes its letter. */
static void test_partition_takes_its_letter(void **state)
{
    (void)state;
    libxl_device_disk disks[2];
    char *vdevs[] = {"xvda1", "xvdy7"};
    libxl_domain_config cfg = config(disks, vdevs, 2);
    char base[16];
    assert_true(molt_vdev_free(&cfg, NULL, 0, "xvda1", base));
    assert_string_equal(base, "xvdx1");
    assert_false(molt_vdev_free(&cfg, NULL, 0, "d0p1", base));
}

static void test_all_taken(void **state)
{
    (void)state;
    libxl_device_disk disks[25];
    char names[25][8];
    char *vdevs[25];
    for (int i = 0; i < 25; i++) {
        memcpy(names[i], "xvda", 5);
        names[i][3] = (char)('a' + i);
        vdevs[i] = names[i];
    }
    libxl_domain_config cfg = config(disks, vdevs, 25);
    char base[16];
    assert_false(molt_vdev_free(&cfg, NULL, 0, "xvda", base));
    cfg.num_disks = 24; /* all but xvdy */
    assert_true(molt_vdev_free(&cfg, NULL, 0, "xvda", base));
    assert_string_equal(base, "xvdy");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guest_names),
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_free_names),
        cmocka_unit_test(test_partition_takes_its_letter),
        cmocka_unit_test(test_all_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
