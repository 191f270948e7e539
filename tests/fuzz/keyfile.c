/*
 * libFuzzer over the parser of readers in C: as the bytes are, and again under a digest that is right, which no fuzzer
 * would ever find. What it accepts must be in bounds, and be the same to whoever reads it again.
 */
#include "keyrotd_keyfile.h"

#include <stdlib.h>

static const unsigned char boot_id[KEYROTD_BOOT_ID_BYTES] = {1};

static void parse(const unsigned char *data, size_t length, size_t size)
{
    keyrotd_window window, again;
    keyrotd_fault fault;
    size_t i, j;

    memset(&window, 0xa5, sizeof(window));
    fault = keyrotd_parse(data, length, size, &window);
    if (fault != KEYROTD_OK) {
        if (keyrotd_fault_word(fault) == NULL || window.count != (size_t) 0xa5a5a5a5a5a5a5a5)
            abort();
        return;
    }
    if (window.count < 1 || window.count > KEYROTD_MAX_RECORDS || window.size != size
        || window.records != data + KEYROTD_HEAD_BYTES
        || length != KEYROTD_HEAD_BYTES + window.count * size + KEYROTD_DIGEST_BYTES || length > KEYROTD_MAX_BYTES)
        abort();
    for (i = 0; i < window.count; i++)
        for (j = 0; j < i; j++)
            if (memcmp(window.records + i * size, window.records + j * size, KEYROTD_NAME_BYTES) == 0)
                abort();
    if (keyrotd_parse(data, length, size, &again) != KEYROTD_OK || again.epoch != window.epoch
        || memcmp(again.digest, data + length - KEYROTD_DIGEST_BYTES, KEYROTD_DIGEST_BYTES) != 0)
        abort();
    if (keyrotd_judge(&window, boot_id, 0, UINT64_MAX) == KEYROTD_OK && window.opens_until != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t length)
{
    unsigned char *right;
    size_t body;

    parse(data, length, KEYROTD_AES256_BYTES);
    parse(data, length, KEYROTD_AES128_BYTES);
    if (length < KEYROTD_DIGEST_BYTES)
        return 0;
    /* On the heap, exactly as long: the sanitizer sees whoever reads a byte too far. */
    right = (unsigned char *) malloc(length);
    if (right == NULL)
        return 0;
    body = length - KEYROTD_DIGEST_BYTES;
    memcpy(right, data, body);
    if (EVP_Digest(right, body, right + body, NULL, EVP_sha256(), NULL) == 1) {
        parse(right, length, KEYROTD_AES256_BYTES);
        parse(right, length, KEYROTD_AES128_BYTES);
    }
    free(right);
    return 0;
}
