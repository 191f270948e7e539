
/*
 * Session ticket keys for every SSL server of an nginx, taken from keyrotd's key file without a reload.
 *
 * Each worker reads the file by itself, once before its first connection and then by a timer, and looks keys up in a
 * table of its own through OpenSSL's callback. Until it has read a first good file it touches nothing: nginx goes on
 * with its own keys. After that nothing but a good file, or the end of the time that a good file gave, changes a key.
 * No fault of the file, the directory or the system ends a worker, or stops one from serving.
 *
 * What the file says, who refuses it, and what is acknowledged: docs/key-file.md of keyrotd.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>
#include <ngx_stream.h>
#include <ngx_stream_ssl_module.h>

#if !defined(OPENSSL_VERSION_NUMBER) || OPENSSL_VERSION_NUMBER < 0x30000000L || defined(LIBRESSL_VERSION_NUMBER)  \
    || defined(OPENSSL_IS_BORINGSSL)
#error keyrotd: this module needs an nginx that was built with OpenSSL 3.0 or newer
#endif

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <sys/mman.h>

#include "keyrotd_ack.h"
#include "keyrotd_keyfile.h"


#if (nginx_version >= 1025005)
#define ngx_keyrotd_stream_ssl_t  ngx_stream_ssl_srv_conf_t
#else
#define ngx_keyrotd_stream_ssl_t  ngx_stream_ssl_conf_t
#endif

#define NGX_KEYROTD_IV_BYTES      16
#define NGX_KEYROTD_HMAC_BYTES    32
#define NGX_KEYROTD_AES_BYTES     32

/* Slower would make a worker that is gone look alive for long. */
#define NGX_KEYROTD_MIN_INTERVAL  1
#define NGX_KEYROTD_MAX_INTERVAL  60000


typedef struct {
    ngx_str_t    key_file;
    ngx_str_t    ack_dir;
    ngx_msec_t   interval;
} ngx_keyrotd_conf_t;


/* A record of the file, as it lies there. */
typedef struct {
    u_char       name[KEYROTD_NAME_BYTES];
    u_char       hmac[NGX_KEYROTD_HMAC_BYTES];
    u_char       aes[NGX_KEYROTD_AES_BYTES];
} ngx_keyrotd_key_t;

typedef char ngx_keyrotd_key_is_a_record[sizeof(ngx_keyrotd_key_t) == KEYROTD_AES256_BYTES ? 1 : -1];


/* All secrets of a worker, in pages of their own: kept out of swap and core dumps where the system lets us. */
typedef struct {
    ngx_keyrotd_key_t   keys[KEYROTD_MAX_RECORDS];
    u_char              buffer[KEYROTD_MAX_BYTES + 1];
} ngx_keyrotd_secrets_t;


/* One worker. */
typedef struct {
    ngx_keyrotd_secrets_t  *secrets;
    ngx_uint_t              count;         /* of keys; 0 before the first good file, and once they were wiped */
    keyrotd_window          window;        /* what was installed; without its records */
    uint64_t                epoch;         /* the highest that was */
    keyrotd_fault           fault;         /* of the last look */
    keyrotd_stamp           stamp;
    u_char                  boot_id[KEYROTD_BOOT_ID_BYTES];
    ngx_cycle_t            *cycle;         /* whose SSL contexts call us; NULL: none does */
    ngx_uint_t              contexts;
    keyrotd_ack             ack;
    int                     ack_fault;     /* errno that the log has been told */
    char                    said[KEYROTD_ACK_BYTES];
    ngx_event_t             event;
    ngx_connection_t        connection;    /* ngx_event_ident() wants one */
} ngx_keyrotd_worker_t;


static void *ngx_keyrotd_create_conf(ngx_cycle_t *cycle);
static char *ngx_keyrotd_init_conf(ngx_cycle_t *cycle, void *conf);
static ngx_int_t ngx_keyrotd_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_keyrotd_init_process(ngx_cycle_t *cycle);
static void ngx_keyrotd_exit_process(ngx_cycle_t *cycle);

static ngx_int_t ngx_keyrotd_enabled(ngx_keyrotd_conf_t *kcf);
static void ngx_keyrotd_make_ack_dir(ngx_keyrotd_conf_t *kcf, ngx_cycle_t *cycle);
static void ngx_keyrotd_timer(ngx_event_t *ev);
static void ngx_keyrotd_poll(ngx_keyrotd_conf_t *kcf, ngx_cycle_t *cycle);
static ngx_uint_t ngx_keyrotd_look(ngx_keyrotd_conf_t *kcf, ngx_log_t *log);
static keyrotd_fault ngx_keyrotd_take(size_t length, ngx_uint_t *installed);
static void ngx_keyrotd_keep_time(ngx_log_t *log);
static void ngx_keyrotd_wipe(void);
static void ngx_keyrotd_acknowledge(ngx_keyrotd_conf_t *kcf, ngx_log_t *log);
static ngx_uint_t ngx_keyrotd_past(uint64_t bound);
static void ngx_keyrotd_attach(ngx_cycle_t *cycle);
static void ngx_keyrotd_attach_http(ngx_cycle_t *cycle);
static void ngx_keyrotd_attach_stream(ngx_cycle_t *cycle);
static void ngx_keyrotd_attach_one(SSL_CTX *ctx, ngx_log_t *log);
static ngx_module_t *ngx_keyrotd_module_named(ngx_cycle_t *cycle, const char *name);
static int ngx_keyrotd_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
    EVP_MAC_CTX *mac, int seal);


static ngx_command_t  ngx_keyrotd_commands[] = {

    { ngx_string("keyrotd_key_file"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      0,
      offsetof(ngx_keyrotd_conf_t, key_file),
      NULL },

    { ngx_string("keyrotd_ack_dir"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      0,
      offsetof(ngx_keyrotd_conf_t, ack_dir),
      NULL },

    { ngx_string("keyrotd_poll_interval"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      0,
      offsetof(ngx_keyrotd_conf_t, interval),
      NULL },

      ngx_null_command
};


static ngx_core_module_t  ngx_keyrotd_module_ctx = {
    ngx_string("keyrotd"),
    ngx_keyrotd_create_conf,
    ngx_keyrotd_init_conf
};


ngx_module_t  ngx_keyrotd_module = {
    NGX_MODULE_V1,
    &ngx_keyrotd_module_ctx,               /* module context */
    ngx_keyrotd_commands,                  /* module directives */
    NGX_CORE_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_keyrotd_init_module,               /* init module */
    ngx_keyrotd_init_process,              /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_keyrotd_exit_process,              /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_keyrotd_worker_t  ngx_keyrotd_worker;


/* Configuration. */


static void *
ngx_keyrotd_create_conf(ngx_cycle_t *cycle)
{
    ngx_keyrotd_conf_t  *kcf;

    kcf = ngx_pcalloc(cycle->pool, sizeof(ngx_keyrotd_conf_t));
    if (kcf == NULL) {
        return NULL;
    }

    kcf->interval = NGX_CONF_UNSET_MSEC;

    return kcf;
}


static char *
ngx_keyrotd_init_conf(ngx_cycle_t *cycle, void *conf)
{
    ngx_keyrotd_conf_t  *kcf = conf;

    ngx_conf_init_msec_value(kcf->interval, 1000);

    if (kcf->key_file.len == 0 && kcf->ack_dir.len == 0) {
        return NGX_CONF_OK;
    }

    if (kcf->key_file.len == 0 || kcf->ack_dir.len == 0) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "keyrotd_key_file and keyrotd_ack_dir go together, one of them is missing");
        return NGX_CONF_ERROR;
    }

    if (kcf->interval < NGX_KEYROTD_MIN_INTERVAL || kcf->interval > NGX_KEYROTD_MAX_INTERVAL) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0, "keyrotd_poll_interval is %M ms, not within %d ms and %d ms",
                      kcf->interval, NGX_KEYROTD_MIN_INTERVAL, NGX_KEYROTD_MAX_INTERVAL);
        return NGX_CONF_ERROR;
    }

    if (ngx_conf_full_name(cycle, &kcf->key_file, 0) != NGX_OK
        || ngx_conf_full_name(cycle, &kcf->ack_dir, 0) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_keyrotd_enabled(ngx_keyrotd_conf_t *kcf)
{
    return kcf->key_file.len != 0;
}


/* The master. An error here would end it in the middle of a reload, so there is none. */


static ngx_int_t
ngx_keyrotd_init_module(ngx_cycle_t *cycle)
{
    ngx_keyrotd_conf_t  *kcf;

    kcf = (ngx_keyrotd_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_keyrotd_module);

    if (ngx_keyrotd_enabled(kcf) && !ngx_test_config) {
        ngx_keyrotd_make_ack_dir(kcf, cycle);
    }

    /* Without a master process this one goes on over a reload, when the former log goes. */
    ngx_keyrotd_worker.event.log = cycle->log;

    return NGX_OK;
}


/* After a boot there is an empty tmpfs; only the master can make what its workers may write in. */

static void
ngx_keyrotd_make_ack_dir(ngx_keyrotd_conf_t *kcf, ngx_cycle_t *cycle)
{
    int               dir;
    ngx_core_conf_t  *ccf;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    if (mkdir((char *) kcf->ack_dir.data, 0755) != 0) {
        if (ngx_errno != NGX_EEXIST) {
            ngx_log_error(NGX_LOG_ERR, cycle->log, ngx_errno, "keyrotd: making keyrotd_ack_dir \"%V\" failed",
                          &kcf->ack_dir);
        }

        return;
    }

    if (geteuid() != 0 || ccf->user == (ngx_uid_t) NGX_CONF_UNSET_UINT) {
        return;
    }

    dir = open((char *) kcf->ack_dir.data, O_RDONLY|O_DIRECTORY|O_NOFOLLOW|O_CLOEXEC);

    if (dir == -1 || fchown(dir, ccf->user, ccf->group) != 0 || fchmod(dir, 0755) != 0) {
        ngx_log_error(NGX_LOG_ERR, cycle->log, ngx_errno, "keyrotd: giving keyrotd_ack_dir \"%V\" to workers failed",
                      &kcf->ack_dir);
    }

    if (dir != -1) {
        (void) close(dir);
    }
}


/* A worker. */


static ngx_int_t
ngx_keyrotd_init_process(ngx_cycle_t *cycle)
{
    void                  *pages;
    ngx_err_t              err;
    ngx_core_conf_t       *ccf;
    ngx_keyrotd_conf_t    *kcf;
    ngx_keyrotd_worker_t  *worker = &ngx_keyrotd_worker;

    kcf = (ngx_keyrotd_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_keyrotd_module);
    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    /* Helpers, such as the cache manager, serve nobody. */
    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE) {
        return NGX_OK;
    }

    ngx_memzero(worker, sizeof(ngx_keyrotd_worker_t));

    /* Also where there is nothing to do yet: without a master process a reload may bring it. */
    worker->connection.fd = (ngx_socket_t) -1;
    worker->event.data = &worker->connection;
    worker->event.handler = ngx_keyrotd_timer;
    worker->event.log = cycle->log;
    worker->event.cancelable = 1;

    pages = mmap(NULL, sizeof(ngx_keyrotd_secrets_t), PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        ngx_log_error(NGX_LOG_ALERT, cycle->log, ngx_errno, "keyrotd: no memory for keys; nginx keeps its own");
        return NGX_OK;
    }

    /* Best effort: a limit on locked memory is no reason to go without keys. */
    (void) mlock(pages, sizeof(ngx_keyrotd_secrets_t));
    (void) madvise(pages, sizeof(ngx_keyrotd_secrets_t), MADV_DONTDUMP);

    worker->secrets = pages;
    worker->ack.pid = ngx_pid;
    worker->ack.parent = getppid();
    worker->ack.processes = ngx_process == NGX_PROCESS_SINGLE ? 1 : (unsigned) ccf->worker_processes;

    err = keyrotd_boot_id(worker->boot_id);
    if (err != 0) {
        ngx_log_error(NGX_LOG_ERR, cycle->log, err, "keyrotd: which boot this is cannot be read");
    }

    if (ngx_keyrotd_enabled(kcf)) {
        keyrotd_ack_sweep((char *) kcf->ack_dir.data);
        ngx_keyrotd_poll(kcf, cycle);
    }

    if (ngx_keyrotd_enabled(kcf) || ngx_process == NGX_PROCESS_SINGLE) {
        ngx_add_timer(&worker->event, kcf->interval);
    }

    return NGX_OK;
}


static void
ngx_keyrotd_exit_process(ngx_cycle_t *cycle)
{
    ngx_keyrotd_conf_t  *kcf;

    if (ngx_keyrotd_worker.secrets == NULL) {
        return;
    }

    kcf = (ngx_keyrotd_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_keyrotd_module);

    ngx_keyrotd_wipe();

    if (ngx_keyrotd_enabled(kcf)) {
        keyrotd_ack_remove((char *) kcf->ack_dir.data, ngx_keyrotd_worker.ack.pid);
    }
}


static void
ngx_keyrotd_timer(ngx_event_t *ev)
{
    ngx_cycle_t         *cycle = (ngx_cycle_t *) ngx_cycle;
    ngx_keyrotd_conf_t  *kcf;

    kcf = (ngx_keyrotd_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_keyrotd_module);

    if (ngx_keyrotd_enabled(kcf)) {
        ngx_keyrotd_poll(kcf, cycle);
    }

    /* Also while the worker is about to end: as long as it holds keys, they must leave it on time. */
    ngx_add_timer(ev, kcf->interval);
}


static void
ngx_keyrotd_poll(ngx_keyrotd_conf_t *kcf, ngx_cycle_t *cycle)
{
    ngx_uint_t             news;
    ngx_keyrotd_worker_t  *worker = &ngx_keyrotd_worker;

    news = ngx_keyrotd_look(kcf, cycle->log);

    ngx_keyrotd_keep_time(cycle->log);

    /* A callback stays, even over no key at all: it is nginx's own keys that nobody would ever rotate again. */
    if ((worker->count != 0 || worker->cycle != NULL) && worker->cycle != cycle) {
        ngx_keyrotd_attach(cycle);
    }

    if (news) {
        ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0, "keyrotd: epoch %uL, step %uL: %ui keys in %ui SSL contexts",
                      worker->window.epoch, worker->window.step, worker->count, worker->contexts);
    }

    ngx_keyrotd_acknowledge(kcf, cycle->log);
}


/* Whether there are new keys. */

static ngx_uint_t
ngx_keyrotd_look(ngx_keyrotd_conf_t *kcf, ngx_log_t *log)
{
    size_t                 length;
    ngx_err_t              err;
    ngx_uint_t             installed = 0;
    keyrotd_news           news;
    keyrotd_fault          fault;
    ngx_keyrotd_worker_t  *worker = &ngx_keyrotd_worker;

    fault = keyrotd_read((char *) kcf->key_file.data, &worker->stamp, &news, worker->secrets->buffer, &length);
    err = ngx_errno;

    if (news == KEYROTD_UNCHANGED) {
        return 0;
    }

    if (fault == KEYROTD_OK) {
        fault = ngx_keyrotd_take(length, &installed);
    }

    OPENSSL_cleanse(worker->secrets->buffer, sizeof(worker->secrets->buffer));

    worker->fault = fault;

    if (fault != KEYROTD_OK) {
        ngx_log_error(NGX_LOG_ERR, log, err, "keyrotd: keyrotd_key_file \"%V\" is refused: %s; %s keys stay",
                      &kcf->key_file, keyrotd_fault_word(fault), worker->cycle == NULL ? "nginx's own" : "former");
    }

    return installed;
}


static keyrotd_fault
ngx_keyrotd_take(size_t length, ngx_uint_t *installed)
{
    ngx_time_t            *now = ngx_timeofday();
    keyrotd_fault          fault;
    keyrotd_window         window;
    ngx_keyrotd_worker_t  *worker = &ngx_keyrotd_worker;

    fault = keyrotd_parse(worker->secrets->buffer, length, sizeof(ngx_keyrotd_key_t), &window);
    if (fault != KEYROTD_OK) {
        return fault;
    }

    fault = keyrotd_judge(&window, worker->boot_id, worker->epoch, keyrotd_boot_ms());
    if (fault != KEYROTD_OK) {
        return fault;
    }

    if (worker->count != 0 && ngx_memcmp(window.digest, worker->window.digest, KEYROTD_DIGEST_BYTES) == 0) {
        return KEYROTD_OK;
    }

    /* Between two events no handshake is under way, so none sees half of this. */
    ngx_keyrotd_wipe();
    ngx_memcpy(worker->secrets->keys, window.records, window.count * sizeof(ngx_keyrotd_key_t));

    worker->count = window.count;
    worker->epoch = ngx_max(worker->epoch, window.epoch);
    worker->window = window;
    worker->window.records = NULL;
    worker->ack.installed_at = (uint64_t) now->sec * 1000 + now->msec;
    *installed = 1;

    return KEYROTD_OK;
}


static void
ngx_keyrotd_keep_time(ngx_log_t *log)
{
    ngx_keyrotd_worker_t  *worker = &ngx_keyrotd_worker;

    if (worker->count == 0 || !ngx_keyrotd_past(worker->window.opens_until)) {
        return;
    }

    ngx_keyrotd_wipe();
    worker->fault = KEYROTD_EXPIRED;

    ngx_log_error(NGX_LOG_ERR, log, 0, "keyrotd: the time of all keys is over, and no newer ones came; wiped");
}


static void
ngx_keyrotd_wipe(void)
{
    ngx_keyrotd_worker_t  *worker = &ngx_keyrotd_worker;

    OPENSSL_cleanse(worker->secrets->keys, sizeof(worker->secrets->keys));
    ngx_memzero(&worker->window, sizeof(keyrotd_window));

    worker->count = 0;
}


static void
ngx_keyrotd_acknowledge(ngx_keyrotd_conf_t *kcf, ngx_log_t *log)
{
    int                    fault;
    keyrotd_ack           *ack;
    ngx_keyrotd_worker_t  *worker = &ngx_keyrotd_worker;

    ack = &worker->ack;

    if (ngx_exiting) {
        /* It serves those whom it has, and nobody new. */
        keyrotd_ack_remove((char *) kcf->ack_dir.data, ack->pid);
        return;
    }

    ack->poll_ms = kcf->interval;
    ack->epoch = worker->window.epoch;
    ack->step = worker->window.step;
    ack->contexts = (unsigned) worker->contexts;
    ack->fault = keyrotd_fault_word(worker->fault);
    ack->digest = worker->count == 0 ? NULL : worker->window.digest;
    ack->seals = worker->count == 0 || ngx_keyrotd_past(worker->window.seals_until) ? NULL
                                                                                    : worker->secrets->keys[0].name;

    if (worker->count == 0) {
        ack->installed_at = 0;
    }

    fault = keyrotd_ack_say((char *) kcf->ack_dir.data, ack, worker->said);

    if (fault != worker->ack_fault) {
        worker->ack_fault = fault;

        if (fault != 0) {
            ngx_log_error(NGX_LOG_ERR, log, fault, "keyrotd: acknowledging in keyrotd_ack_dir \"%V\" failed",
                          &kcf->ack_dir);
        }
    }
}


static ngx_uint_t
ngx_keyrotd_past(uint64_t bound)
{
    return bound != 0 && keyrotd_boot_ms() >= bound;
}


/* The SSL contexts of all servers. Modules are found by name, since stream may be another dynamic module, or none. */


static void
ngx_keyrotd_attach(ngx_cycle_t *cycle)
{
    ngx_keyrotd_worker.cycle = cycle;
    ngx_keyrotd_worker.contexts = 0;

    ngx_keyrotd_attach_http(cycle);
    ngx_keyrotd_attach_stream(cycle);
}


static void
ngx_keyrotd_attach_http(ngx_cycle_t *cycle)
{
    ngx_uint_t                  i;
    ngx_module_t               *http, *core, *ssl;
    ngx_http_conf_ctx_t        *ctx;
    ngx_http_ssl_srv_conf_t    *sscf;
    ngx_http_core_srv_conf_t  **cscfp;
    ngx_http_core_main_conf_t  *cmcf;

    http = ngx_keyrotd_module_named(cycle, "ngx_http_module");
    core = ngx_keyrotd_module_named(cycle, "ngx_http_core_module");
    ssl = ngx_keyrotd_module_named(cycle, "ngx_http_ssl_module");

    if (http == NULL || core == NULL || ssl == NULL || cycle->conf_ctx[http->index] == NULL) {
        return;
    }

    ctx = (ngx_http_conf_ctx_t *) cycle->conf_ctx[http->index];
    cmcf = ctx->main_conf[core->ctx_index];
    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        sscf = cscfp[i]->ctx->srv_conf[ssl->ctx_index];
        ngx_keyrotd_attach_one(sscf->ssl.ctx, cycle->log);
    }
}


static void
ngx_keyrotd_attach_stream(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_module_t                 *stream, *core, *ssl;
    ngx_stream_conf_ctx_t        *ctx;
    ngx_keyrotd_stream_ssl_t     *sscf;
    ngx_stream_core_srv_conf_t  **cscfp;
    ngx_stream_core_main_conf_t  *cmcf;

    stream = ngx_keyrotd_module_named(cycle, "ngx_stream_module");
    core = ngx_keyrotd_module_named(cycle, "ngx_stream_core_module");
    ssl = ngx_keyrotd_module_named(cycle, "ngx_stream_ssl_module");

    if (stream == NULL || core == NULL || ssl == NULL || cycle->conf_ctx[stream->index] == NULL) {
        return;
    }

    ctx = (ngx_stream_conf_ctx_t *) cycle->conf_ctx[stream->index];
    cmcf = ctx->main_conf[core->ctx_index];
    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        sscf = cscfp[i]->ctx->srv_conf[ssl->ctx_index];
        ngx_keyrotd_attach_one(sscf->ssl.ctx, cycle->log);
    }
}


static void
ngx_keyrotd_attach_one(SSL_CTX *ctx, ngx_log_t *log)
{
    /*
     * A server without TLS has none. One with `ssl_session_tickets off` gives no tickets whoever would seal them, but
     * as the default server of a listener it seals, in OpenSSL's eyes, those of the servers that clients name there.
     */
    if (ctx == NULL) {
        return;
    }

    if (SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, ngx_keyrotd_ticket) != 1) {
        ngx_log_error(NGX_LOG_ALERT, log, 0, "keyrotd: an SSL context does not take a ticket key callback");
        return;
    }

    ngx_keyrotd_worker.contexts++;
}


static ngx_module_t *
ngx_keyrotd_module_named(ngx_cycle_t *cycle, const char *name)
{
    ngx_uint_t  i;

    for (i = 0; cycle->modules[i]; i++) {
        if (ngx_strcmp(cycle->modules[i]->name, name) == 0) {
            return cycle->modules[i];
        }
    }

    return NULL;
}


/*
 * OpenSSL asks: which key seals the next ticket, or which one opens this ticket?
 *
 * Whatever goes wrong, the answer is 0, "no ticket" or "not one of mine": the handshake goes on in full. Nothing of it
 * may stay in OpenSSL's queue of errors either, where nginx would take it for a fault of the connection.
 */

static int
ngx_keyrotd_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int seal)
{
    ngx_uint_t             i = 0;
    OSSL_PARAM             params[3];
    ngx_keyrotd_key_t     *keys;
    ngx_keyrotd_worker_t  *worker = &ngx_keyrotd_worker;

    if (worker->count == 0 || ngx_keyrotd_past(worker->window.opens_until)) {
        return 0;
    }

    keys = worker->secrets->keys;

    if (seal) {
        if (ngx_keyrotd_past(worker->window.seals_until)) {
            return 0;
        }

    } else {
        while (ngx_memcmp(name, keys[i].name, KEYROTD_NAME_BYTES) != 0) {
            if (++i == worker->count) {
                return 0;
            }
        }
    }

    params[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, keys[i].hmac, NGX_KEYROTD_HMAC_BYTES);
    params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *) "SHA256", 0);
    params[2] = OSSL_PARAM_construct_end();

    (void) ERR_set_mark();

    if ((seal && RAND_bytes(iv, NGX_KEYROTD_IV_BYTES) != 1)
        || EVP_MAC_CTX_set_params(mac, params) != 1
        || EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, keys[i].aes, iv, seal) != 1)
    {
        (void) ERR_pop_to_mark();
        return 0;
    }

    (void) ERR_clear_last_mark();

    if (seal) {
        ngx_memcpy(name, keys[0].name, KEYROTD_NAME_BYTES);
        return 1;
    }

    /* 2: and give the client a fresh one, since this key is about to leave. TLS 1.3 clients use each but once. */
    return (i != 0 || SSL_version(ssl) == TLS1_3_VERSION) ? 2 : 1;
}
