/*
 * keyrotd for Apache Traffic Server: brings the ticket keys of a local file into the running server.
 *
 * No network, no decision of its own. Whatever is wrong with the file, the keys in use stay, and it is said once.
 * docs/key-file.md says what a reader does; what the bytes mean, keyrotd_keyfile.h knows.
 *
 * plugin.config:   keyrotd.so --key-file=PATH --ack-dir=DIR [--poll-ms=1000]
 *
 * Traffic Server 9.2 and 10 call us from several threads (start-up, messages, the poll), so one mutex guards all.
 * Nothing here throws once TSPluginInit is through.
 */
#include "../keyfile/keyrotd_ack.h"
#include "../keyfile/keyrotd_keyfile.h"

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdlib>
#include <mutex>
#include <string>

#include <openssl/rand.h>
#include <ts/ts.h>

namespace
{
constexpr char TAG[] = "keyrotd"; // of plugin.config's messages: traffic_ctl plugin msg keyrotd ""
constexpr int RECORD = KEYROTD_AES128_BYTES; // the only kind that Traffic Server knows
constexpr char LAYOUT[] = "layout"; // the fault of a server that does not take what it should

enum class Phase {
  NOTHING, // none of the file's keys is in the server
  SEALS,   // they all are, and the first seals
  OPENS,   // seals_until has passed: they stand behind a random key that seals
  REFUSED, // Traffic Server did not take what it should: to be tried again
};

struct {
  std::string key_file;
  std::string ack_dir;
  int poll_ms = 1000;
} options;

std::mutex mutex;
bool ended = false;
Phase phase = Phase::NOTHING;
const char *fault = nullptr; // the word of the acknowledgement
uint64_t installed_at = 0;   // Unix ms, for people
uint64_t own_until = 0;      // of the boot clock: when a random key that seals gives way to the next; 0: there is none
keyrotd_stamp stamp;         // of the file as it was last seen
unsigned char boot_id[KEYROTD_BOOT_ID_BYTES];

/* What the last good file said. Its keys are kept for the moment when a random one must come before them. */
struct {
  unsigned char keys[(1 + KEYROTD_MAX_RECORDS) * RECORD]; // first the random one
  int count;                                              // of the file's; 0: none is held
  uint64_t epoch;
  uint64_t highest; // epoch of all so far: nothing older may come back
  uint64_t step;
  uint64_t seals_until;
  uint64_t opens_until;
  unsigned char digest[KEYROTD_DIGEST_BYTES];
} held;

/* TSStatIntIncrement is lost on threads that are not the event system's (measured), so totals are kept here. */
struct Statistic {
  const char *name;
  int64_t value = 0;
  int id        = TS_ERROR;
};
Statistic epoch_stat{"plugin.keyrotd.epoch"}, step_stat{"plugin.keyrotd.step"}, keys_stat{"plugin.keyrotd.keys"},
  sealing_stat{"plugin.keyrotd.sealing"}, installed_at_stat{"plugin.keyrotd.installed_at"}, // Unix seconds
  faulty_stat{"plugin.keyrotd.faulty"}, installs_stat{"plugin.keyrotd.installs"},
  faults_stat{"plugin.keyrotd.faults"}, nudges_stat{"plugin.keyrotd.nudges"};
Statistic *const statistics[] = {&epoch_stat,  &step_stat,     &keys_stat,   &sealing_stat, &installed_at_stat,
                                 &faulty_stat, &installs_stat, &faults_stat, &nudges_stat};

void
show_statistics()
{
  epoch_stat.value        = static_cast<int64_t>(held.epoch);
  step_stat.value         = static_cast<int64_t>(held.step);
  keys_stat.value         = held.count;
  sealing_stat.value      = phase == Phase::SEALS;
  installed_at_stat.value = static_cast<int64_t>(installed_at / 1000);
  faulty_stat.value       = fault != nullptr;
  for (const Statistic *statistic : statistics) {
    if (statistic->id != TS_ERROR) { // there was no room for it, and Traffic Server would abort
      TSStatIntSet(statistic->id, statistic->value);
    }
  }
}

/*
 * Tells keyrotd's agent what is installed. At every look, for that is how it tells a process that lives from one that
 * is gone; where nothing changed, a new time is all that is written.
 */
void
acknowledge()
{
  static char said[KEYROTD_ACK_BYTES];
  static bool told = false;
  keyrotd_ack ack  = {};
  ack.pid          = getpid();
  ack.parent       = getppid();
  ack.processes    = 1;
  ack.poll_ms      = options.poll_ms;
  ack.fault        = fault;
  if (phase == Phase::SEALS || phase == Phase::OPENS) {
    ack.digest       = held.digest;
    ack.seals        = phase == Phase::SEALS ? held.keys + RECORD : nullptr;
    ack.epoch        = held.epoch;
    ack.step         = held.step;
    ack.installed_at = installed_at;
  }
  const int failed = keyrotd_ack_say(options.ack_dir.c_str(), &ack, said);
  if (failed != 0 && !told) {
    TSError("[keyrotd] cannot write in %s: %s; the agent cannot see what is installed", options.ack_dir.c_str(), strerror(failed));
  }
  told = failed != 0;
}

void
set_fault(const char *word, bool news, const char *cause, const char *meanwhile)
{
  if (word != nullptr && (news || fault != word)) {
    ++faults_stat.value;
    TSError("[keyrotd] %s: %s%s%s; %s", options.key_file.c_str(), word, *cause ? ", " : "", cause, meanwhile);
  }
  fault = word;
}

void
take(const keyrotd_window &window)
{
  OPENSSL_cleanse(held.keys, sizeof(held.keys));
  memcpy(held.keys + RECORD, window.records, window.count * RECORD);
  memcpy(held.digest, window.digest, sizeof(held.digest));
  held.count       = static_cast<int>(window.count);
  held.epoch       = window.epoch;
  held.highest     = std::max(held.highest, window.epoch);
  held.step        = window.step;
  held.seals_until = window.seals_until;
  held.opens_until = window.opens_until;
}

/* Reads the file if it changed. True: there are new keys to install. */
bool
read_file(uint64_t now, bool &changed)
{
  unsigned char buffer[KEYROTD_MAX_BYTES + 1];
  size_t length = 0;
  keyrotd_news news;
  keyrotd_window window;
  bool fresh           = false;
  keyrotd_fault found  = keyrotd_read(options.key_file.c_str(), &stamp, &news, buffer, &length);
  const char *cause    = errno == 0 ? "" : strerror(errno);
  if (news == KEYROTD_CHANGED) {
    if (found == KEYROTD_OK) {
      found = keyrotd_parse(buffer, length, RECORD, &window);
    }
    if (found == KEYROTD_OK) {
      found = keyrotd_judge(&window, boot_id, held.highest, now);
    }
    if (found == KEYROTD_OK) {
      fresh = held.count == 0 || memcmp(held.digest, window.digest, sizeof(held.digest)) != 0;
      if (fresh) {
        take(window);
      }
    }
    set_fault(keyrotd_fault_word(found), true, cause, "the keys in use stay");
    changed = true;
  }
  OPENSSL_cleanse(buffer, sizeof(buffer));
  return fresh;
}

uint64_t
unix_ms()
{
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

Phase
wanted(uint64_t now)
{
  if (held.count == 0 || (held.opens_until != 0 && now >= held.opens_until)) {
    return Phase::NOTHING;
  }
  return held.seals_until != 0 && now >= held.seals_until ? Phase::OPENS : Phase::SEALS;
}

/* Traffic Server copies what it is given; it frees and wipes what it had 60 s later. */
bool
install(Phase next)
{
  unsigned char *first = held.keys;
  int count            = 1 + held.count;
  switch (next) {
  case Phase::SEALS:
    first += RECORD;
    --count;
    break;
  case Phase::NOTHING:
    count = 1;
    [[fallthrough]];
  default:
    if (RAND_bytes(held.keys, RECORD) != 1) {
      return false;
    }
  }
  const bool done = TSSslTicketKeyUpdate(reinterpret_cast<char *>(first), count * RECORD) == TS_SUCCESS;
  OPENSSL_cleanse(held.keys, RECORD);
  // Nobody may come to replace it: it seals no longer than tickets of the file's keys would have opened.
  const bool known = next != Phase::SEALS && held.seals_until != 0 && held.opens_until > held.seals_until;
  own_until        = known ? keyrotd_boot_ms() + (held.opens_until - held.seals_until) : 0;
  return done;
}

void
enter(Phase next)
{
  if (!install(next)) {
    phase = Phase::REFUSED;
    set_fault(LAYOUT, false, "Traffic Server did not take the keys", "the keys in use stay");
    return;
  }
  if (fault == LAYOUT) {
    fault = nullptr;
  }
  ++installs_stat.value;
  phase        = next;
  installed_at = unix_ms();
  switch (next) {
  case Phase::SEALS:
    TSNote("[keyrotd] installed epoch %" PRIu64 ", step %" PRIu64 ", %d keys", held.epoch, held.step, held.count);
    break;
  case Phase::OPENS:
    TSWarning("[keyrotd] the key of epoch %" PRIu64 " may seal no longer: a random one does, on this server alone", held.epoch);
    break;
  default:
    OPENSSL_cleanse(held.keys, sizeof(held.keys));
    held.count = 0;
    set_fault(keyrotd_fault_word(KEYROTD_EXPIRED), false, "", "its keys are wiped, and a random one seals and opens");
    break;
  }
}

/* One look at the file and the clock. `again`: whatever is held is installed once more. */
void
look(bool again)
{
  const uint64_t now = keyrotd_boot_ms();
  bool changed       = false;
  const bool fresh   = read_file(now, changed);
  const Phase next   = wanted(now);
  if (fresh || next != phase || (again && held.count != 0)) {
    enter(next);
    changed = true;
  } else if (own_until != 0 && now >= own_until) {
    install(phase);
  }
  if (changed) {
    show_statistics();
  }
  if (!ended) {
    acknowledge();
  }
}

int
handle_poll(TSCont, TSEvent, void *)
{
  std::lock_guard<std::mutex> guard(mutex);
  look(false);
  return 0;
}

int
handle_lifecycle(TSCont, TSEvent event, void *data)
{
  if (event == TS_EVENT_LIFECYCLE_TASK_THREADS_READY) {
    TSContScheduleEveryOnPool(TSContCreate(handle_poll, TSMutexCreate()), options.poll_ms, TS_THREAD_POOL_TASK);
    return 0;
  }
  std::lock_guard<std::mutex> guard(mutex);
  switch (event) {
  case TS_EVENT_LIFECYCLE_PORTS_INITIALIZED:
    look(true); // TLS has started meanwhile, and may have read keys of its own
    break;
  case TS_EVENT_LIFECYCLE_MSG:
    if (const auto *message = static_cast<TSPluginMsg *>(data); message->tag != nullptr && strcmp(message->tag, TAG) == 0) {
      ++nudges_stat.value;
      look(false);
    }
    break;
  case TS_EVENT_LIFECYCLE_SHUTDOWN:
    ended = true;
    keyrotd_ack_remove(options.ack_dir.c_str(), getpid());
    break;
  default:
    break;
  }
  return 0;
}

bool
read_options(int argc, const char *argv[])
{
  for (int i = 1; i < argc; ++i) {
    const std::string word(argv[i]);
    const std::string value = word.substr(word.find('=') + 1);
    if (word.rfind("--key-file=/", 0) == 0) {
      options.key_file = value;
    } else if (word.rfind("--ack-dir=/", 0) == 0) {
      options.ack_dir = value;
    } else if (word.rfind("--poll-ms=", 0) == 0) {
      options.poll_ms = atoi(value.c_str());
    } else {
      TSError("[keyrotd] plugin.config: %s is not known: --key-file=/PATH --ack-dir=/PATH [--poll-ms=N]", argv[i]);
      return false;
    }
  }
  if (options.key_file.empty() || options.ack_dir.empty() || options.poll_ms < 50 || options.poll_ms > 60000) {
    TSError("[keyrotd] plugin.config: want --key-file=/PATH --ack-dir=/PATH and, if at all, --poll-ms=50..60000");
    return false;
  }
  return true;
}
} // namespace

void
TSPluginInit(int argc, const char *argv[])
{
  TSPluginRegistrationInfo info = {TAG, "keyrotd", "the one who runs it"};
  if (TSPluginRegister(&info) != TS_SUCCESS) {
    TSError("[keyrotd] cannot register");
    return;
  }
  if (!read_options(argc, argv)) {
    return; // a server without our keys still serves
  }
  for (Statistic *statistic : statistics) {
    statistic->id = TSStatCreate(statistic->name, TS_RECORDDATATYPE_INT, TS_STAT_NON_PERSISTENT, TS_STAT_SYNC_SUM);
  }
  // Without a mutex of its own: Traffic Server does not wait for that of a hook, it aborts where another thread has it.
  TSCont contp = TSContCreate(handle_lifecycle, nullptr);
  TSLifecycleHookAdd(TS_LIFECYCLE_PORTS_INITIALIZED_HOOK, contp);
  TSLifecycleHookAdd(TS_LIFECYCLE_TASK_THREADS_READY_HOOK, contp);
  TSLifecycleHookAdd(TS_LIFECYCLE_MSG_HOOK, contp);
  TSLifecycleHookAdd(TS_LIFECYCLE_SHUTDOWN_HOOK, contp);
  std::lock_guard<std::mutex> guard(mutex);
  if (const int failed = keyrotd_boot_id(boot_id); failed != 0) {
    TSError("[keyrotd] cannot learn which boot this is: %s; keys with a bound are refused", strerror(failed));
  }
  keyrotd_ack_sweep(options.ack_dir.c_str());
  look(true); // before TLS starts, and so before the first connection
}
