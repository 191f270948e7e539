/*
 * Writes what one process of a server has installed (docs/key-file.md): <directory>/<pid>, whole or not at all.
 *
 * No secret is in it. keyrotd believes a process that says nothing to be gone, so every poll ends in keyrotd_ack_say.
 * Nothing is logged, and nothing allocates but opendir; each function answers 0, or an errno.
 *
 * C99 and C++17; needs POSIX.1-2008 (under -std=c99 or c11 define _POSIX_C_SOURCE 200809L first).
 */
#ifndef KEYROTD_ACK_H
#define KEYROTD_ACK_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define KEYROTD_ACK_BYTES 512
#define KEYROTD_ACK_PATH_BYTES 4096
#define KEYROTD_ACK_DIGEST_BYTES 32
#define KEYROTD_ACK_NAME_BYTES 16

typedef struct {
    pid_t pid;
    pid_t parent;
    unsigned processes;          /* how many should acknowledge */
    uint64_t poll_ms;
    const unsigned char *digest; /* the last 32 bytes of the installed file; NULL: none is installed */
    const unsigned char *seals;  /* 16 bytes, the name of the file's key that seals; NULL: none of them does */
    uint64_t epoch;
    uint64_t step;
    uint64_t installed_at;       /* Unix ms */
    unsigned contexts;           /* SSL contexts that have the keys; 0 where that says nothing */
    const char *fault;           /* a word of docs/key-file.md; NULL: none */
} keyrotd_ack;

static inline const char *keyrotd_ack_hex(const unsigned char *bytes, size_t count, char *text)
{
    static const char digits[] = "0123456789abcdef";
    size_t i;

    if (bytes == NULL)
        return "-";
    for (i = 0; i < count; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[2 * count] = '\0';
    return text;
}

/* The text in `text`, KEYROTD_ACK_BYTES long; answers its length, 0 when a word is too long for it. */
static inline size_t keyrotd_ack_text(const keyrotd_ack *ack, char *text)
{
    char digest[2 * KEYROTD_ACK_DIGEST_BYTES + 1], seals[2 * KEYROTD_ACK_NAME_BYTES + 1];
    int length;

    length = snprintf(text, KEYROTD_ACK_BYTES,
                      "keyrotd-ack 1\npid %ld\nparent %ld\nprocesses %u\npoll_ms %" PRIu64 "\ndigest %s\nseals %s\n"
                      "epoch %" PRIu64 "\nstep %" PRIu64 "\ninstalled_at %" PRIu64 "\ncontexts %u\nfault %s\n",
                      (long) ack->pid, (long) ack->parent, ack->processes, ack->poll_ms,
                      keyrotd_ack_hex(ack->digest, KEYROTD_ACK_DIGEST_BYTES, digest),
                      keyrotd_ack_hex(ack->seals, KEYROTD_ACK_NAME_BYTES, seals), ack->epoch, ack->step,
                      ack->installed_at, ack->contexts, ack->fault == NULL ? "-" : ack->fault);
    return length < 0 || length >= KEYROTD_ACK_BYTES ? 0 : (size_t) length;
}

static inline int keyrotd_ack_path(const char *directory, const char *before, pid_t pid, const char *after, char *path)
{
    int length = snprintf(path, KEYROTD_ACK_PATH_BYTES, "%s/%s%ld%s", directory, before, (long) pid, after);

    return length < 0 || length >= KEYROTD_ACK_PATH_BYTES ? ENAMETOOLONG : 0;
}

static inline int keyrotd_ack_put(const char *path, const char *text, size_t length)
{
    int fault = 0, file;
    ssize_t put;

    /* Left behind by a process that had our pid and was killed. */
    (void) unlink(path);
    file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (file < 0)
        return errno;
    /* Whatever the umask: the agent must be able to read it. */
    if (fchmod(file, 0644) != 0)
        fault = errno;
    while (fault == 0 && length > 0) {
        put = write(file, text, length);
        if (put < 0 && errno != EINTR)
            fault = errno;
        if (put > 0) {
            text += put;
            length -= (size_t) put;
        }
    }
    if (close(file) != 0 && fault == 0)
        fault = errno;
    return fault;
}

/* Says it: touches the file while that is what `said` (KEYROTD_ACK_BYTES, zeros at first) has, writes it otherwise. */
static inline int keyrotd_ack_say(const char *directory, const keyrotd_ack *ack, char *said)
{
    char text[KEYROTD_ACK_BYTES], temp[KEYROTD_ACK_PATH_BYTES], path[KEYROTD_ACK_PATH_BYTES];
    size_t length = keyrotd_ack_text(ack, text);
    int fault;

    if (length == 0)
        return EOVERFLOW;
    if (keyrotd_ack_path(directory, ".", ack->pid, ".tmp", temp) != 0
        || keyrotd_ack_path(directory, "", ack->pid, "", path) != 0)
        return ENAMETOOLONG;
    /* What cannot be touched has been taken away, and is written anew. */
    if (strcmp(text, said) == 0 && utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    fault = keyrotd_ack_put(temp, text, length);
    if (fault == 0 && rename(temp, path) != 0)
        fault = errno;
    if (fault != 0)
        (void) unlink(temp);
    else
        memcpy(said, text, length + 1);
    return fault;
}

static inline void keyrotd_ack_remove(const char *directory, pid_t pid)
{
    char path[KEYROTD_ACK_PATH_BYTES];

    if (keyrotd_ack_path(directory, "", pid, "", path) == 0)
        (void) unlink(path);
}

/* Whether a file of a directory begins as an acknowledgement does: nobody else's is ever taken away. */
static inline int keyrotd_ack_is_one(int directory, const char *name)
{
    static const char begins[] = "keyrotd-ack 1\n";
    char text[sizeof(begins) - 1];
    int file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), is_one;

    if (file < 0)
        return 0;
    is_one = read(file, text, sizeof(text)) == (ssize_t) sizeof(text) && memcmp(text, begins, sizeof(text)) == 0;
    (void) close(file);
    return is_one;
}

/* Takes away what processes left that were killed, so that nobody waits for them. */
static inline void keyrotd_ack_sweep(const char *directory)
{
    DIR *entries = opendir(directory);
    struct dirent *entry;
    char *end;
    long pid;

    if (entries == NULL)
        return;
    while ((entry = readdir(entries)) != NULL) {
        pid = strtol(entry->d_name, &end, 10);
        if (pid > 0 && (pid_t) pid == pid && *end == '\0' && kill((pid_t) pid, 0) != 0 && errno == ESRCH
            && keyrotd_ack_is_one(dirfd(entries), entry->d_name))
            (void) unlinkat(dirfd(entries), entry->d_name, 0);
    }
    (void) closedir(entries);
}

#endif
