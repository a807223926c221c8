/* SPDX-License-Identifier: MIT */
/* virtio-blk over a back end in memory that completes when it is told to: requests, errors, reset,
 * save with work in flight. */
#include <errno.h>
#include <virtio-driver.h>

#define SLOT       4
#define DISK_BYTES (1u << 20)
#define HEADER     VDATA_BASE
#define STATUS     (VDATA_BASE + 0x100)
#define DATA       (VDATA_BASE + 0x1000)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
#define F_FLUSH (1ull << 9)

struct memdisk {
    struct hsk_block block;
    uint8_t data[DISK_BYTES];
    struct hsk_block_req *waiting[256];
    unsigned n;
    unsigned flushes, gathered;
    int fail;   /* result of the next requests */
    bool stuck; /* drain completes nothing, as with a full host disk */
};

struct fixture {
    struct hsk_machine *m;
    struct memdisk *disk;
    struct vdriver d;
};

static void disk_submit(struct hsk_block *b, struct hsk_block_req *req)
{
    struct memdisk *k = hsk_container_of(b, struct memdisk, block);

    assert_true(req->op == HSK_BLOCK_FLUSH || hsk_range_ok(req->offset, req->len, DISK_BYTES));
    k->waiting[k->n++] = req;
}

static void gather(struct memdisk *k, const struct hsk_block_req *req)
{
    uint8_t *to = k->data + req->offset;

    assert_true(k->block.gathers);
    assert_null(req->buf);
    for (unsigned i = 0; i < req->niov; i++) {
        memcpy(to, req->iov[i].iov_base, req->iov[i].iov_len);
        to += req->iov[i].iov_len;
    }
    assert_ptr_equal(to, k->data + req->offset + req->len);
    k->gathered++;
}

static void disk_complete(struct memdisk *k)
{
    for (unsigned i = 0; i < k->n; i++) { /* a completion may submit */
        struct hsk_block_req *req = k->waiting[i];

        req->result = k->fail;
        if (!k->fail && req->op == HSK_BLOCK_READ)
            memcpy(req->buf, k->data + req->offset, req->len);
        else if (!k->fail && req->op == HSK_BLOCK_WRITE && req->niov)
            gather(k, req);
        else if (!k->fail && req->op == HSK_BLOCK_WRITE)
            memcpy(k->data + req->offset, req->buf, req->len);
        else if (!k->fail && req->op == HSK_BLOCK_FLUSH)
            k->flushes++;
        else if (!k->fail)
            memset(k->data + req->offset, 0, req->len);
        req->done(req);
    }
    k->n = 0;
}

static void disk_drain(struct hsk_block *b)
{
    struct memdisk *k = hsk_container_of(b, struct memdisk, block);

    if (!k->stuck)
        disk_complete(k);
}

static void disk_free(struct hsk_block *b)
{
    g_free(hsk_container_of(b, struct memdisk, block));
}

static const struct hsk_block_ops disk_ops = {
    .submit = disk_submit, .drain = disk_drain, .free = disk_free};

static struct hsk_machine *machine_with_disk(struct memdisk **disk, bool readonly)
{
    struct hsk_machine_config cfg = fake_config();

    *disk = g_new0(struct memdisk, 1);
    (*disk)->block =
        (struct hsk_block){.ops = &disk_ops, .size_bytes = DISK_BYTES, .readonly = readonly};
    cfg.ndisks = 1;
    cfg.disks[0].block = &(*disk)->block;
    g_strlcpy(cfg.disks[0].serial, "serial-number", sizeof cfg.disks[0].serial);
    return fake_machine_from(&cfg);
}

static int setup(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);

    f->m = machine_with_disk(&f->disk, false);
    f->d = vdriver(f->m, "virtio-blk.0", SLOT);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    hsk_machine_free(f->m);
    g_free(f);
    return 0;
}

/* Header, data, status as descriptors from first on; returns nothing, the request is in the ring.
 */
static void request(struct vdriver *d, unsigned first, uint32_t type, uint64_t sector, uint32_t len,
                    bool device_writes)
{
    uint8_t *h = guest(d, HEADER + 16 * first);

    hsk_put32(h, type);
    hsk_put32(h + 4, 0);
    hsk_put64(h + 8, sector);
    *guest(d, STATUS + first) = 0xaa;
    vdesc(d, ring(0, 0), first, HEADER + 16 * first, 16, VDESC_NEXT,
          (uint16_t)(first + (len ? 1 : 2)));
    vdesc(d, ring(0, 0), first + 1, DATA, len, VDESC_NEXT | (device_writes ? VDESC_WRITE : 0),
          (uint16_t)(first + 2));
    vdesc(d, ring(0, 0), first + 2, STATUS + first, 1, VDESC_WRITE, 0);
    vavail(d, 0, (uint16_t)first);
    vkick(d, 0);
}

static uint8_t status(struct vdriver *d, unsigned first)
{
    return *guest(d, STATUS + first);
}

static uint8_t ask(struct fixture *f, uint32_t type, uint64_t sector, uint32_t len,
                   bool device_writes)
{
    request(&f->d, 0, type, sector, len, device_writes);
    disk_complete(f->disk);
    return status(&f->d, 0);
}

static void data_goes_both_ways(void **state)
{
    struct fixture *f = *state;

    vstart(&f->d, VIRTIO_F_VERSION_1 | F_FLUSH, 1);
    memset(guest(&f->d, DATA), 0x77, 4096);
    request(&f->d, 0, T_OUT, 8, 4096, false);
    assert_int_equal(vused_idx(&f->d, 0), 0); /* not before it is done */
    memset(guest(&f->d, DATA), 0, 4096);      /* the device has its copy */
    disk_complete(f->disk);
    assert_int_equal(vused_idx(&f->d, 0), 1);
    assert_int_equal(status(&f->d, 0), S_OK);
    assert_int_equal(f->disk->data[8 * 512], 0x77);
    assert_int_equal(f->disk->data[16 * 512], 0);
    assert_int_equal(f->disk->flushes, 0);
    assert_int_equal(ask(f, T_IN, 9, 512, true), S_OK);
    assert_int_equal(*guest(&f->d, DATA + 511), 0x77);
    assert_int_equal(hsk_get32(guest(&f->d, ring(0, 2) + 4 + 8 + 4)), 513);
    assert_int_equal(ask(f, T_FLUSH, 0, 0, false), S_OK);
    assert_int_equal(f->disk->flushes, 1);
}

static void without_flush_every_write_is_flushed(void **state)
{
    struct fixture *f = *state;

    vstart(&f->d, VIRTIO_F_VERSION_1, 1);
    assert_int_equal(ask(f, T_OUT, 0, 512, false), S_OK);
    assert_int_equal(f->disk->flushes, 1);
    assert_int_equal(vused_idx(&f->d, 0), 1);
}

/* Three descriptors of data, the first with the header in front of it. */
static void large_writes_are_gathered(void **state)
{
    enum { PART = 48 << 10, ALL = 3 * PART };
    struct fixture *f = *state;
    struct vdriver *d = &f->d;
    uint8_t *data = guest(d, DATA);

    f->disk->block.gathers = true;
    vstart(d, VIRTIO_F_VERSION_1 | F_FLUSH, 1);
    for (unsigned i = 0; i < ALL; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    hsk_put32(data - 16, T_OUT);
    hsk_put32(data - 12, 0);
    hsk_put64(data - 8, 16);
    for (unsigned pass = 0; pass < 2; pass++) {
        uint64_t last = pass ? 1u << 31 : DATA + 2 * PART; /* in the second pass not memory */

        *guest(d, STATUS) = 0xaa;
        vdesc(d, ring(0, 0), 0, DATA - 16, PART + 16, VDESC_NEXT, 1);
        vdesc(d, ring(0, 0), 1, DATA + PART, PART, VDESC_NEXT, 2);
        vdesc(d, ring(0, 0), 2, last, PART, VDESC_NEXT, 3);
        vdesc(d, ring(0, 0), 3, STATUS, 1, VDESC_WRITE, 0);
        vavail(d, 0, 0);
        vkick(d, 0);
        disk_complete(f->disk);
        assert_int_equal(status(d, 0), pass ? S_IOERR : S_OK);
        assert_int_equal(f->disk->gathered, 1);
    }
    assert_memory_equal(f->disk->data + 16 * 512, data, ALL);
    assert_int_equal(ask(f, T_OUT, 0, 4096, false), S_OK); /* a small one is copied */
    assert_int_equal(f->disk->gathered, 1);
}

static void identity_and_size_are_told(void **state)
{
    struct fixture *f = *state;

    vstart(&f->d, VIRTIO_F_VERSION_1, 1);
    assert_int_equal(ask(f, T_GET_ID, 0, 20, true), S_OK);
    assert_string_equal((const char *)guest(&f->d, DATA), "serial-number");
    assert_int_equal(vread(&f->d, V_DEVICE, 4), DISK_BYTES / 512);
    assert_int_equal(vread(&f->d, V_DEVICE + 20, 4), 512);
    assert_int_equal(pci_read(f->m, SLOT, 0), 0x10421af4);
}

static void ranges_are_zeroed(void **state)
{
    struct fixture *f = *state;
    uint8_t *range = guest(&f->d, DATA);

    vstart(&f->d, VIRTIO_F_VERSION_1, 1);
    memset(f->disk->data, 0xff, DISK_BYTES);
    hsk_put64(range, 2);
    hsk_put32(range + 8, 3);
    hsk_put32(range + 12, 1);
    assert_int_equal(ask(f, T_WRITE_ZEROES, 0, 16, false), S_OK);
    assert_int_equal(f->disk->data[2 * 512 - 1], 0xff);
    assert_int_equal(f->disk->data[2 * 512], 0);
    assert_int_equal(f->disk->data[5 * 512], 0xff);
    assert_int_equal(ask(f, T_DISCARD, 0, 16, false), S_UNSUPP); /* has no flags */
    hsk_put32(range + 12, 0);
    hsk_put32(range + 8, 0xffffffff);
    assert_int_equal(ask(f, T_DISCARD, 0, 16, false), S_IOERR);
}

static void bad_requests_fail_and_touch_nothing(void **state)
{
    struct fixture *f = *state;

    vstart(&f->d, VIRTIO_F_VERSION_1, 1);
    assert_int_equal(ask(f, T_IN, DISK_BYTES / 512, 512, true), S_IOERR);
    assert_int_equal(ask(f, T_OUT, DISK_BYTES / 512 - 1, 1024, false), S_IOERR);
    assert_int_equal(ask(f, T_OUT, UINT64_MAX / 512, 512, false), S_IOERR);
    assert_int_equal(ask(f, T_OUT, UINT64_MAX, 512, false), S_IOERR);
    assert_int_equal(ask(f, T_IN, 0, 100, true), S_IOERR);
    assert_int_equal(ask(f, 99, 0, 512, true), S_UNSUPP);
    f->disk->fail = -EIO;
    assert_int_equal(ask(f, T_IN, 0, 512, true), S_IOERR);
    assert_int_equal(vused_idx(&f->d, 0), 7);
    assert_false(vstatus(&f->d) & VSTATUS_NEEDS_RESET);
}

static void chain_that_is_no_request_stops_the_device(void **state)
{
    struct fixture *f = *state;

    vstart(&f->d, VIRTIO_F_VERSION_1, 1);
    vdesc(&f->d, ring(0, 0), 0, HEADER, 8, 0, 0);
    vavail(&f->d, 0, 0);
    vkick(&f->d, 0);
    assert_true(vstatus(&f->d) & VSTATUS_NEEDS_RESET);
}

static void readonly_disk_says_so(void **state)
{
    struct fixture f = {0};

    f.m = machine_with_disk(&f.disk, true);
    f.d = vdriver(f.m, "virtio-blk.0", SLOT);
    assert_true(voffered(&f.d) & 1u << 5);
    vstart(&f.d, VIRTIO_F_VERSION_1, 1);
    assert_int_equal(ask(&f, T_OUT, 0, 512, false), S_IOERR);
    assert_int_equal(ask(&f, T_IN, 0, 512, true), S_OK);
    hsk_machine_free(f.m);
}

static void indirect_chain_with_several_pieces(void **state)
{
    struct fixture *f = *state;
    struct vdriver *d = &f->d;
    const gpa_t table = VDATA_BASE + 0x8000;

    vstart(d, VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT, 1);
    memset(f->disk->data, 0x11, 512);
    memset(f->disk->data + 512, 0x22, 512);
    memset(guest(d, HEADER), 0, 16);
    vdesc(d, ring(0, 0), 3, table, 5 * 16, VDESC_INDIRECT, 0);
    vdesc(d, table, 0, HEADER, 10, VDESC_NEXT, 1); /* the header may be in pieces too */
    vdesc(d, table, 1, HEADER + 10, 6, VDESC_NEXT, 2);
    vdesc(d, table, 2, DATA, 700, VDESC_NEXT | VDESC_WRITE, 3);
    vdesc(d, table, 3, DATA + 0x2000, 324, VDESC_NEXT | VDESC_WRITE, 4);
    vdesc(d, table, 4, STATUS, 1, VDESC_WRITE, 0);
    vavail(d, 0, 3);
    vkick(d, 0);
    disk_complete(f->disk);
    assert_int_equal(status(d, 0), S_OK);
    assert_int_equal(*guest(d, DATA + 511), 0x11);
    assert_int_equal(*guest(d, DATA + 699), 0x22);
    assert_int_equal(*guest(d, DATA + 700), 0);
    assert_int_equal(*guest(d, DATA + 0x2000 + 323), 0x22);
    assert_int_equal(hsk_get32(guest(d, ring(0, 2) + 4)), 3);
}

static void reset_waits_for_what_is_in_flight(void **state)
{
    struct fixture *f = *state;

    vstart(&f->d, VIRTIO_F_VERSION_1, 1);
    request(&f->d, 0, T_IN, 0, 512, true);
    vwrite(&f->d, 0x14, 1, 0);
    assert_int_not_equal(vstatus(&f->d), 0);
    disk_complete(f->disk);
    assert_int_equal(vstatus(&f->d), 0);
    assert_int_equal(vused_idx(&f->d, 0), 0); /* and the old driver's memory stays as it is */
    assert_int_equal(status(&f->d, 0), 0xaa);
}

static void pause_finishes_and_resume_looks_again(void **state)
{
    struct fixture *f = *state;

    vstart(&f->d, VIRTIO_F_VERSION_1, 1);
    request(&f->d, 0, T_IN, 0, 512, true);
    f->d.dev->ops->pause(f->d.dev);
    assert_int_equal(vused_idx(&f->d, 0), 1);
    f->d.dev->ops->pause(f->d.dev);
    request(&f->d, 3, T_IN, 0, 512, true); /* came in before the vCPUs stopped, say */
    assert_int_equal(f->disk->n, 0);
    f->d.dev->ops->resume(f->d.dev);
    disk_complete(f->disk);
    assert_int_equal(vused_idx(&f->d, 0), 2);
    assert_int_equal(status(&f->d, 3), S_OK);
}

/* The host's disk is full: a write cannot finish, the machine is saved all the same, and the write
 * happens after the load. */
static void request_that_hangs_survives_save_and_load(void **state)
{
    struct fixture *f = *state, g = {0};
    g_autoptr(GBytes) saved = NULL;
    g_autoptr(GError) error = NULL;
    struct hsk_memobj *ram = hsk_machine_memobj(f->m, "ram");

    vstart(&f->d, VIRTIO_F_VERSION_1, 1);
    memset(guest(&f->d, DATA), 0x3c, 512);
    request(&f->d, 3, T_OUT, 1, 512, false);
    f->disk->stuck = true;
    f->d.dev->ops->pause(f->d.dev);
    saved = hsk_machine_save(f->m);

    g.m = machine_with_disk(&g.disk, false);
    memcpy(hsk_machine_memobj(g.m, "ram")->host, ram->host, ram->size_bytes);
    if (!hsk_machine_load(g.m, saved, &error))
        fail_msg("%s", error->message);
    g.d = f->d;
    g.d.m = g.m;
    g.d.dev = hsk_machine_find_dev(g.m, "virtio-blk.0");
    vsettle(&g.d);
    vsettle(&g.d);
    assert_int_equal(vused_idx(&g.d, 0), 1);
    assert_int_equal(status(&g.d, 3), S_OK);
    assert_int_equal(g.disk->data[512], 0x3c);
    hsk_machine_free(g.m);
    f->disk->stuck = false;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(data_goes_both_ways),
        T(without_flush_every_write_is_flushed),
        T(large_writes_are_gathered),
        T(identity_and_size_are_told),
        T(ranges_are_zeroed),
        T(bad_requests_fail_and_touch_nothing),
        T(chain_that_is_no_request_stops_the_device),
        cmocka_unit_test(readonly_disk_says_so),
        T(indirect_chain_with_several_pieces),
        T(reset_waits_for_what_is_in_flight),
        T(pause_finishes_and_resume_looks_again),
        T(request_that_hangs_survives_save_and_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
