/*
 * A reader in C with nothing around it: it does what its lines of input say, and says what it found. For tests.
 *
 *   judge FILE SIZE BOOT EPOCH NOW   the verdict of a reader that knows records of SIZE, has EPOCH, at NOW of BOOT
 *   poll FILE                        changed|unchanged, and the verdict, without the clock; one memory for all lines
 *   ack DIRECTORY PID                an acknowledgement with a digest, and a word of ours as its fault
 *   ack-nothing DIRECTORY PID        one of a process that has installed nothing
 *   remove DIRECTORY PID             what an exit does to it
 *   sweep DIRECTORY                  what a start does to those of the dead
 *   boot -                           which boot this is, and how long ago it began
 */
#include "keyrotd_ack.h"
#include "keyrotd_keyfile.h"

#include <stdlib.h>

static const char *word(keyrotd_fault fault)
{
    return fault == KEYROTD_OK ? "ok" : keyrotd_fault_word(fault);
}

static void judge(const char *path, size_t size, const char *boot, uint64_t epoch, uint64_t now)
{
    /* Exactly as long as the content, so that a sanitizer sees whoever reads on. */
    static unsigned char buffer[KEYROTD_MAX_BYTES + 1];
    keyrotd_stamp stamp;
    keyrotd_window window;
    keyrotd_news news;
    unsigned char *exact, boot_id[KEYROTD_BOOT_ID_BYTES];
    size_t length, i;
    keyrotd_fault fault;
    unsigned byte;

    for (i = 0; i < sizeof(boot_id); i++) {
        if (sscanf(boot + 2 * i, "%2x", &byte) != 1)
            exit(2);
        boot_id[i] = (unsigned char) byte;
    }
    memset(&stamp, 0, sizeof(stamp));
    fault = keyrotd_read(path, &stamp, &news, buffer, &length);
    if (fault == KEYROTD_OK) {
        exact = (unsigned char *) malloc(length + 1);
        if (exact == NULL)
            exit(1);
        memcpy(exact + 1, buffer, length);
        fault = keyrotd_parse(exact + 1, length, size, &window);
        if (fault == KEYROTD_OK)
            fault = keyrotd_judge(&window, boot_id, epoch, now);
        free(exact);
    }
    printf("%s\n", word(fault));
}

static void poll_once(const char *path)
{
    static unsigned char buffer[KEYROTD_MAX_BYTES + 1];
    static keyrotd_stamp stamp;
    keyrotd_window window;
    keyrotd_news news;
    size_t length;
    keyrotd_fault fault;

    fault = keyrotd_read(path, &stamp, &news, buffer, &length);
    if (fault == KEYROTD_OK && news == KEYROTD_CHANGED)
        fault = keyrotd_parse(buffer, length, KEYROTD_AES256_BYTES, &window);
    printf("%s %s\n", news == KEYROTD_CHANGED ? "changed" : "unchanged", word(fault));
}

static void acknowledge(const char *directory, pid_t pid, int nothing)
{
    static char said[KEYROTD_ACK_BYTES];
    static const unsigned char digest[32] = {0xab, 0xcd, 0xef}, seals[16] = {0x01, 0x23};
    keyrotd_ack ack;

    memset(&ack, 0, sizeof(ack));
    ack.pid = pid;
    ack.parent = 4700;
    ack.processes = 2;
    ack.poll_ms = 1000;
    if (!nothing) {
        ack.digest = digest;
        ack.seals = seals;
        ack.epoch = UINT64_MAX;
        ack.step = UINT64_MAX - 1;
        ack.installed_at = 1800000000000;
        ack.contexts = 3;
        ack.fault = keyrotd_fault_word(KEYROTD_TWIN_NAMES);
    }
    printf("%d\n", keyrotd_ack_say(directory, &ack, said));
}

int main(void)
{
    char line[8192], verb[16], path[4096], size[32] = "", boot[33] = "", epoch[32] = "", now[32] = "";
    unsigned char boot_id[KEYROTD_BOOT_ID_BYTES];
    size_t i;
    pid_t pid;

    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "%15s %4095s %31s %32s %31s %31s", verb, path, size, boot, epoch, now) < 2)
            return 2;
        pid = (pid_t) atol(size);
        if (strcmp(verb, "judge") == 0)
            judge(path, strtoull(size, NULL, 10), boot, strtoull(epoch, NULL, 10), strtoull(now, NULL, 10));
        else if (strcmp(verb, "poll") == 0)
            poll_once(path);
        else if (strcmp(verb, "ack") == 0)
            acknowledge(path, pid, 0);
        else if (strcmp(verb, "ack-nothing") == 0)
            acknowledge(path, pid, 1);
        else if (strcmp(verb, "remove") == 0) {
            keyrotd_ack_remove(path, pid);
            printf("0\n");
        } else if (strcmp(verb, "sweep") == 0) {
            keyrotd_ack_sweep(path);
            printf("0\n");
        } else if (strcmp(verb, "boot") == 0) {
            printf("%d ", keyrotd_boot_id(boot_id));
            for (i = 0; i < sizeof(boot_id); i++)
                printf("%02x", boot_id[i]);
            printf(" %" PRIu64 "\n", keyrotd_boot_ms());
        } else
            return 2;
        fflush(stdout);
    }
    return 0;
}
