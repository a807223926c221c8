/* SPDX-License-Identifier: MIT */
/*
 * ustar headers, strictly (POSIX.1-2017 pax, "ustar Interchange Format"; docs/format.md,
 * "Container").
 *
 * An .hva is hostile input, so anything beyond plain files, folders and harmless pax records is an
 * error with a sentence: links, devices, GNU extensions, base-256 sizes, pax records that change a
 * size or a name. Archives re-packed with GNU tar, bsdtar or Python are accepted. Any thread.
 */
#include <appliance-format/io.h>
#include <appliance-format/tar.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define MAX_MEMBERS   100000u
#define MAX_PAX_BYTES 65536u

/* POSIX header fields: name 0+100, mode 100+8, uid 108+8, gid 116+8, size 124+12, mtime 136+12,
   chksum 148+8, typeflag 156, linkname 157+100, magic 257+6, version 263+2, uname 265+32, gname
   297+32, devmajor 329+8, devminor 337+8, prefix 345+155 */
enum { SIZE = 124, CHKSUM = 148, TYPE = 156, LINKNAME = 157, MAGIC = 257, PREFIX = 345 };

bool hsk_tar_name_ok(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > HSK_TAR_NAME_MAX)
        return false;
    size_t start = 0;
    for (size_t i = 0; i <= len; i++) {
        char c = name[i];
        if (c != '/' && c != '\0') {
            if (!g_ascii_isalnum(c) && c != '.' && c != '_' && c != '-')
                return false;
            continue;
        }
        size_t n = i - start;
        if (n == 0 || (n == 1 && name[start] == '.') ||
            (n == 2 && memcmp(name + start, "..", 2) == 0))
            return false;
        start = i + 1;
    }
    return true;
}

static uint32_t checksum(const uint8_t *block)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < HSK_TAR_BLOCK; i++)
        sum += i >= CHKSUM && i < CHKSUM + 8 ? ' ' : block[i];
    return sum;
}

/* Octal digits, then NUL or space to the end of the field. */
static bool parse_octal(const uint8_t *field, size_t width, uint64_t *out)
{
    uint64_t v = 0;
    size_t i = 0;
    for (; i < width && field[i] >= '0' && field[i] <= '7'; i++)
        v = v << 3 | (uint64_t)(field[i] - '0');
    if (i == 0)
        return false;
    for (; i < width; i++) {
        if (field[i] != '\0' && field[i] != ' ')
            return false;
    }
    *out = v;
    return true;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Records "LEN key=value\n"; refuses the keys that would change what the header says. */
static bool check_pax(const char *body, size_t bytes, const char **why)
{
    static const char *const refused[] = {"size", "path", "linkpath", "hdrcharset"};
    size_t pos = 0;
    while (pos < bytes) {
        size_t len = 0, i = pos;
        for (; i < bytes && g_ascii_isdigit(body[i]) && len < MAX_PAX_BYTES; i++)
            len = len * 10 + (size_t)(body[i] - '0');
        *why = "a pax record with a wrong length";
        if (i == pos || i >= bytes || body[i] != ' ' || len > bytes - pos || len < i - pos + 3 ||
            body[pos + len - 1] != '\n')
            return false;
        const char *key = body + i + 1;
        const char *eq = memchr(key, '=', pos + len - 1 - (i + 1));
        if (eq == NULL)
            return false;
        size_t n = (size_t)(eq - key);
        *why = "a pax record that changes a name or a size";
        for (size_t k = 0; k < G_N_ELEMENTS(refused); k++) {
            if (n == strlen(refused[k]) && memcmp(key, refused[k], n) == 0)
                return false;
        }
        if (n >= 10 && memcmp(key, "GNU.sparse", 10) == 0)
            return false;
        pos += len;
    }
    return true;
}

/* Checks one header; name gets a leading "./" and a folder's trailing "/" removed ("" for the
 * folder "./" itself). */
static bool parse_header(const uint8_t *b, char name[HSK_TAR_NAME_MAX + 1], char *type,
                         uint64_t *size, const char **why)
{
    uint64_t sum;
    *why = "a header with a wrong checksum";
    if (!parse_octal(b + CHKSUM, 8, &sum) || sum != checksum(b))
        return false;
    *why = "not a ustar header";
    bool posix = memcmp(b + MAGIC, "ustar\00000", 8) == 0;
    if (!posix && memcmp(b + MAGIC, "ustar  ", 8) != 0)
        return false;
    *why = "a member of a kind that does not belong here";
    *type = (char)b[TYPE];
    if (*type != '0' && *type != '5' && *type != 'x')
        return false;
    if (b[LINKNAME] != 0)
        return false;
    *why = "a member with an impossible size";
    if (!parse_octal(b + SIZE, 12, size) || (*type == '5' && *size != 0))
        return false;
    *why = "a member with an impossible name";
    if (b[HSK_TAR_NAME_MAX] != 0 || (posix && b[PREFIX] != 0))
        return false;
    const char *src = (const char *)b;
    size_t len = strlen(src);
    if (*type == 'x') {
        name[0] = '\0'; /* whatever the packer called it */
        return true;
    }
    if (len >= 2 && memcmp(src, "./", 2) == 0) {
        src += 2;
        len -= 2;
    }
    if (*type == '5' && len > 0 && src[len - 1] == '/')
        len--;
    memcpy(name, src, len);
    name[len] = '\0';
    return (*type == '5' && len == 0) || hsk_tar_name_ok(name);
}

static bool may_repeat(const char *name)
{
    static const char *const names[] = {"ROOT", "ROOT.minisig", "MAP", "TAIL", "manifest.json"};
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        if (strcmp(name, names[i]) == 0)
            return true;
    }
    return false;
}

static bool scan_pax(int fd, uint64_t pos, uint64_t size, const char **why)
{
    *why = "a pax header that is too large";
    if (size > MAX_PAX_BYTES)
        return false;
    g_autofree char *body = g_malloc(size + 1);
    *why = "an unreadable pax header";
    return hsk_pread_all(fd, body, size, pos) == 0 && check_pax(body, size, why);
}

GArray *hsk_tar_scan(int fd, const char *label, uint64_t *end, GError **error)
{
    off_t file_size = lseek(fd, 0, SEEK_END);
    if (file_size < 0) {
        hsk_io_error(error, errno, "read %s", label);
        return NULL;
    }
    g_autoptr(GArray) members = g_array_new(FALSE, FALSE, sizeof(struct hsk_tar_member));
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    uint64_t pos = 0;
    bool after_pax = false;
    for (;;) {
        uint8_t block[HSK_TAR_BLOCK];
        if (!hsk_range_ok(pos, HSK_TAR_BLOCK, (uint64_t)file_size)) {
            hsk_damaged(error, label, "it is cut off after %" PRIu64 " bytes; copy it again",
                        (uint64_t)file_size);
            return NULL;
        }
        int r = hsk_pread_all(fd, block, sizeof(block), pos);
        if (r < 0) {
            hsk_io_error(error, r, "read %s", label);
            return NULL;
        }
        if (all_zero(block, sizeof(block)))
            break;
        struct hsk_tar_member m = {0};
        char type;
        const char *why;
        bool ok = parse_header(block, m.name, &type, &m.size, &why);
        m.data = pos + HSK_TAR_BLOCK;
        if (ok && !hsk_range_ok(m.data, m.size, (uint64_t)file_size)) {
            hsk_damaged(error, label, "it is cut off after %" PRIu64 " bytes; copy it again",
                        (uint64_t)file_size);
            return NULL;
        }
        if (ok && type == 'x') {
            why = "two pax headers in a row";
            ok = !after_pax && scan_pax(fd, m.data, m.size, &why);
        } else if (ok && type == '0') {
            why = "the same name twice";
            ok = g_hash_table_add(seen, g_ascii_strdown(m.name, -1)) || may_repeat(m.name);
            g_array_append_val(members, m);
        }
        if (ok && members->len > MAX_MEMBERS) {
            why = "too many members";
            ok = false;
        }
        if (!ok) {
            hsk_damaged(error, label, "%s at byte %" PRIu64, why, pos);
            return NULL;
        }
        after_pax = type == 'x';
        pos = m.data + (m.size + HSK_TAR_BLOCK - 1) / HSK_TAR_BLOCK * HSK_TAR_BLOCK;
    }
    *end = pos;
    return g_steal_pointer(&members);
}

void hsk_tar_header(uint8_t block[HSK_TAR_BLOCK], const char *name, char type, uint64_t size)
{
    hsk_assert(strlen(name) <= HSK_TAR_NAME_MAX && size < (1ull << 33));
    char *b = (char *)block;
    memset(b, 0, HSK_TAR_BLOCK);
    memcpy(b, name, strlen(name));
    memcpy(b + 100, "0000644", 7);
    memcpy(b + 108, "0000000", 7);
    memcpy(b + 116, "0000000", 7);
    snprintf(b + SIZE, 12, "%011" PRIo64, size);
    memcpy(b + 136, "00000000000", 11);
    b[TYPE] = type;
    memcpy(b + MAGIC, "ustar\00000", 8);
    snprintf(b + CHKSUM, 8, "%06o", checksum(block));
    b[CHKSUM + 7] = ' ';
}

void hsk_tar_padding(uint8_t *body, size_t bytes)
{
    int head = snprintf((char *)body, bytes, "%zu comment=", bytes);
    memset(body + head, '.', bytes - (size_t)head - 1);
    body[bytes - 1] = '\n';
}
