/*
 * Reads keyrotd's key file (docs/key-file.md) for servers written in C or C++. Bytes are believed only whole.
 *
 * keyrotd_read does all the I/O of a poll: one open, fstat, read, close, and the read only where the file changed.
 * keyrotd_parse and keyrotd_judge are functions of their arguments alone. Nothing allocates, nothing is kept, nothing
 * is logged. Whoever calls wipes the buffer, with OPENSSL_cleanse, whatever the verdict was.
 *
 * C99 and C++17; needs libcrypto and POSIX.1-2008 (under -std=c99 or c11 define _POSIX_C_SOURCE 200809L first).
 */
#ifndef KEYROTD_KEYFILE_H
#define KEYROTD_KEYFILE_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define KEYROTD_MAGIC_BYTES 8
#define KEYROTD_HEAD_BYTES 96
#define KEYROTD_DIGEST_BYTES 32
#define KEYROTD_NAME_BYTES 16
#define KEYROTD_BOOT_ID_BYTES 16
#define KEYROTD_AES256_BYTES 80 /* name[16] hmac[32] aes[32] */
#define KEYROTD_AES128_BYTES 48 /* name[16] hmac[16] aes[16] */
#define KEYROTD_MAX_RECORDS 96
#define KEYROTD_MAX_BYTES (KEYROTD_HEAD_BYTES + KEYROTD_MAX_RECORDS * KEYROTD_AES256_BYTES + KEYROTD_DIGEST_BYTES)

/* In the order in which they are looked for: a file with several faults has the first. */
typedef enum {
    KEYROTD_OK,
    KEYROTD_MISSING,
    KEYROTD_BAD_FILE,
    KEYROTD_BAD_MAGIC,
    KEYROTD_BAD_LENGTH,
    KEYROTD_BAD_VERSION,
    KEYROTD_BAD_SIZE,
    KEYROTD_BAD_COUNT,
    KEYROTD_BAD_RESERVED,
    KEYROTD_BAD_DIGEST,
    KEYROTD_TWIN_NAMES,
    KEYROTD_OTHER_BOOT,
    KEYROTD_OLDER,
    KEYROTD_EXPIRED
} keyrotd_fault;

/* What a good file says. `records` points into the buffer that was parsed: count * size bytes, the first seals. */
typedef struct {
    size_t size;
    size_t count;
    uint64_t epoch;
    uint64_t step;
    uint64_t seals_until; /* as keyrotd_boot_ms counts, in the boot `boot_id`; 0: no bound is known */
    uint64_t opens_until;
    unsigned char boot_id[KEYROTD_BOOT_ID_BYTES];
    const unsigned char *records;
    unsigned char digest[KEYROTD_DIGEST_BYTES];
} keyrotd_window;

/* Tells one content of the file from the next. All zero: no file was seen. */
typedef struct {
    dev_t device;
    ino_t inode;
    off_t bytes;
    struct timespec modified;
    struct timespec changed; /* a mode that was set right is news too */
} keyrotd_stamp;

typedef enum { KEYROTD_UNCHANGED, KEYROTD_CHANGED } keyrotd_news;

/* The word of the acknowledgement; NULL for KEYROTD_OK. */
static inline const char *keyrotd_fault_word(keyrotd_fault fault)
{
    static const char *const words[] = {NULL, "missing", "bad-file", "bad-magic", "bad-length", "bad-version",
                                        "bad-size", "bad-count", "bad-reserved", "bad-digest", "twin-names",
                                        "other-boot", "older", "expired"};
    return words[fault];
}

static inline uint64_t keyrotd_number(const unsigned char *at, size_t bytes)
{
    uint64_t number = 0;
    while (bytes-- > 0)
        number = number << 8 | *at++;
    return number;
}

/* What `length` bytes say to a reader of records of `size` bytes. `window` is whole on KEYROTD_OK, else untouched. */
static inline keyrotd_fault keyrotd_parse(const unsigned char *data, size_t length, size_t size, keyrotd_window *window)
{
    unsigned char digest[KEYROTD_DIGEST_BYTES];
    const unsigned char *records;
    size_t count, body, i, j;

    if (length < KEYROTD_MAGIC_BYTES || memcmp(data, "keyrotd\n", KEYROTD_MAGIC_BYTES) != 0)
        return KEYROTD_BAD_MAGIC;
    if (length < KEYROTD_HEAD_BYTES + KEYROTD_DIGEST_BYTES)
        return KEYROTD_BAD_LENGTH;
    if (keyrotd_number(data + 8, 2) != 1)
        return KEYROTD_BAD_VERSION;
    if ((size != KEYROTD_AES256_BYTES && size != KEYROTD_AES128_BYTES) || keyrotd_number(data + 10, 2) != size)
        return KEYROTD_BAD_SIZE;
    count = (size_t) keyrotd_number(data + 12, 4);
    if (count < 1 || count > KEYROTD_MAX_RECORDS)
        return KEYROTD_BAD_COUNT;
    body = KEYROTD_HEAD_BYTES + count * size;
    if (length != body + KEYROTD_DIGEST_BYTES)
        return KEYROTD_BAD_LENGTH;
    for (i = 64; i < KEYROTD_HEAD_BYTES; i++)
        if (data[i] != 0)
            return KEYROTD_BAD_RESERVED;
    if (EVP_Digest(data, body, digest, NULL, EVP_sha256(), NULL) != 1
        || memcmp(digest, data + body, KEYROTD_DIGEST_BYTES) != 0)
        return KEYROTD_BAD_DIGEST;
    records = data + KEYROTD_HEAD_BYTES;
    for (i = 1; i < count; i++)
        for (j = 0; j < i; j++)
            if (memcmp(records + i * size, records + j * size, KEYROTD_NAME_BYTES) == 0)
                return KEYROTD_TWIN_NAMES;

    window->size = size;
    window->count = count;
    window->epoch = keyrotd_number(data + 16, 8);
    window->step = keyrotd_number(data + 24, 8);
    window->seals_until = keyrotd_number(data + 32, 8);
    window->opens_until = keyrotd_number(data + 40, 8);
    memcpy(window->boot_id, data + 48, KEYROTD_BOOT_ID_BYTES);
    window->records = records;
    memcpy(window->digest, digest, KEYROTD_DIGEST_BYTES);
    return KEYROTD_OK;
}

/* Whether a process that has installed up to `epoch` (0: nothing yet) may install `window` at `now` in boot `boot_id`. */
static inline keyrotd_fault keyrotd_judge(const keyrotd_window *window, const unsigned char *boot_id, uint64_t epoch,
                                          uint64_t now)
{
    static const unsigned char no_boot[KEYROTD_BOOT_ID_BYTES] = {0};

    /* No boot's clock is not even that of a machine that could not learn its own. */
    if ((window->seals_until != 0 || window->opens_until != 0)
        && (memcmp(window->boot_id, boot_id, KEYROTD_BOOT_ID_BYTES) != 0
            || memcmp(window->boot_id, no_boot, KEYROTD_BOOT_ID_BYTES) == 0))
        return KEYROTD_OTHER_BOOT;
    /* Keys of no window are what an agent has left when its window's time is over: they are not older. */
    if (window->epoch != 0 && window->epoch < epoch)
        return KEYROTD_OLDER;
    if (window->opens_until != 0 && now >= window->opens_until)
        return KEYROTD_EXPIRED;
    return KEYROTD_OK;
}

static inline int keyrotd_same_time(const struct timespec *one, const struct timespec *other)
{
    return one->tv_sec == other->tv_sec && one->tv_nsec == other->tv_nsec;
}

static inline int keyrotd_same_stamp(const keyrotd_stamp *one, const keyrotd_stamp *other)
{
    return one->device == other->device && one->inode == other->inode && one->bytes == other->bytes
           && keyrotd_same_time(&one->modified, &other->modified) && keyrotd_same_time(&one->changed, &other->changed);
}

/* All bytes of an open file. Never KEYROTD_OK with less: errno says what stopped it, 0 where the file is too long. */
static inline keyrotd_fault keyrotd_read_all(int file, unsigned char *buffer, size_t *length)
{
    ssize_t more;

    /* One byte further than may be: what grew since fstat must not look whole. */
    while (*length <= KEYROTD_MAX_BYTES) {
        more = read(file, buffer + *length, KEYROTD_MAX_BYTES + 1 - *length);
        if (more == 0)
            return KEYROTD_OK;
        if (more < 0 && errno != EINTR)
            return KEYROTD_BAD_FILE;
        if (more > 0)
            *length += (size_t) more;
    }
    errno = 0;
    return KEYROTD_BAD_LENGTH;
}

/* Stamps an open file, and reads it unless `known` is its stamp. Sets errno on KEYROTD_BAD_FILE: 0 for a wrong kind. */
static inline keyrotd_fault keyrotd_read_new(int file, const keyrotd_stamp *known, keyrotd_stamp *seen,
                                             unsigned char *buffer, size_t *length)
{
    struct stat found;

    if (fstat(file, &found) != 0)
        return KEYROTD_BAD_FILE;
    seen->device = found.st_dev;
    seen->inode = found.st_ino;
    seen->bytes = found.st_size;
    seen->modified = found.st_mtim;
    seen->changed = found.st_ctim;
    errno = 0;
    if (!S_ISREG(found.st_mode) || (found.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return KEYROTD_BAD_FILE;
    if (found.st_size > KEYROTD_MAX_BYTES)
        return KEYROTD_BAD_LENGTH;
    return keyrotd_same_stamp(seen, known) ? KEYROTD_OK : keyrotd_read_all(file, buffer, length);
}

/*
 * Reads `path` into `buffer`, KEYROTD_MAX_BYTES + 1 bytes, unless it is what `stamp` saw; `news` says which.
 *
 * KEYROTD_OK and KEYROTD_CHANGED: parse `length` bytes. A fault is KEYROTD_CHANGED once and KEYROTD_UNCHANGED while it
 * lasts. errno is what the system said, 0 where it said nothing. A `stamp` of zeros makes the next call read.
 */
static inline keyrotd_fault keyrotd_read(const char *path, keyrotd_stamp *stamp, keyrotd_news *news,
                                         unsigned char *buffer, size_t *length)
{
    keyrotd_fault fault;
    keyrotd_stamp seen;
    int file, cause;

    memset(&seen, 0, sizeof(seen));
    *length = 0;
    /* O_NONBLOCK: whoever puts a FIFO there shall not make a server wait. */
    file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) {
        fault = errno == ENOENT ? KEYROTD_MISSING : KEYROTD_BAD_FILE;
        cause = errno;
    } else {
        fault = keyrotd_read_new(file, stamp, &seen, buffer, length);
        cause = fault == KEYROTD_OK ? 0 : errno;
        (void) close(file);
    }
    if (cause != 0) {
        /* What could not be read must be tried again, so its stamp is no file's: the cause alone. */
        memset(&seen, 0, sizeof(seen));
        seen.bytes = -(off_t) cause;
    }
    *news = keyrotd_same_stamp(&seen, stamp) ? KEYROTD_UNCHANGED : KEYROTD_CHANGED;
    *stamp = seen;
    errno = cause;
    return fault;
}

/* Milliseconds since this boot, suspended ones too: no wall clock moves it. */
static inline uint64_t keyrotd_boot_ms(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_BOOTTIME, &now) != 0)
        return UINT64_MAX; /* without a clock every bound has passed */
    return (uint64_t) now.tv_sec * 1000 + (uint64_t) now.tv_nsec / 1000000;
}

/* Which boot this is. Answers 0, or an errno and a `boot_id` of zeros, in which no bounded keys are good. */
static inline int keyrotd_boot_id(unsigned char *boot_id)
{
    char text[36]; /* 8-4-4-4-12 hex digits */
    size_t length = 0, i;
    unsigned digit, digits = 0;
    int file, cause = 0;
    ssize_t more;

    memset(boot_id, 0, KEYROTD_BOOT_ID_BYTES);
    file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return errno;
    while (length < sizeof(text) && cause == 0) {
        more = read(file, text + length, sizeof(text) - length);
        if (more > 0)
            length += (size_t) more;
        else if (more == 0)
            cause = EIO;
        else if (errno != EINTR)
            cause = errno;
    }
    (void) close(file);
    for (i = 0; cause == 0 && i < sizeof(text); i++) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            cause = text[i] == '-' ? 0 : EILSEQ;
            continue;
        }
        if (text[i] >= '0' && text[i] <= '9')
            digit = (unsigned) (text[i] - '0');
        else if (text[i] >= 'a' && text[i] <= 'f')
            digit = (unsigned) (text[i] - 'a') + 10;
        else {
            cause = EILSEQ;
            continue;
        }
        boot_id[digits / 2] = (unsigned char) (boot_id[digits / 2] * 16U + digit);
        digits++;
    }
    if (cause != 0)
        memset(boot_id, 0, KEYROTD_BOOT_ID_BYTES);
    return cause;
}

#endif
