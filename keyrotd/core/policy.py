"""
What an operator asks for, as arithmetic: when a rotation is due, how long keys live, and what cannot be promised.

R is the rotation interval, T the ticket lifetime, eps the time within which a node that can hear has heard:
one jittered poll, two store timeouts and the drift between two clocks. V, the vulnerability window, is how long one
stolen key is worth anything: R (as `next`) + max_seal_age (as `current`) + T + eps (as `previous`). A `next` that waits
longer than R, while a rotation is late, seals for so much less: stranded nodes may have sealed with it since R.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from keyrotd.core.window import Terms

#: A poll comes at most this much later than its interval, so that a fleet does not poll in step.
JITTER_PERCENT = 10
#: Two clocks, each slewed by at most 500 ppm (see daemon/clock), part by at most 1 in 1000.
DRIFT_DIVISOR = 1000
#: RFC 8446 section 4.6.1: a ticket lifetime is at most seven days; RFC 9325 section 4.4.1 wants keys gone by then.
SEVEN_DAYS_MS = 7 * 86_400_000


class Schedule(Protocol):
    """When rotations are due. `longest_ms` and `shortest_ms` bound the gaps of the coming year."""

    @property
    def longest_ms(self) -> int: ...
    @property
    def shortest_ms(self) -> int: ...
    def next_due(self, after_at: int) -> int:
        """Return the first due instant strictly after `after_at`, a function of time alone."""
        ...


@dataclass(frozen=True, slots=True)
class Interval:
    """Due a fixed time after the last rotation."""

    interval_ms: int

    @property
    def longest_ms(self) -> int:
        return self.interval_ms

    @property
    def shortest_ms(self) -> int:
        return self.interval_ms

    def next_due(self, after_at: int) -> int:
        return after_at + self.interval_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One ring's policy, with the numbers of the daemons that it depends on. All durations in milliseconds."""

    schedule: Schedule
    ticket_lifetime_ms: int
    max_seal_age_ms: int
    overdue_after_ms: int
    max_stranded_ms: int
    previous_keys: int | None
    node_ttl_ms: int
    tick_interval_ms: int
    lease_ttl_ms: int
    poll_interval_ms: int
    store_timeout_ms: int

    @property
    def rotation_interval_ms(self) -> int:
        """R. Of a cron schedule, its longest gap."""
        return self.schedule.longest_ms

    @property
    def eps_ms(self) -> int:
        drift_ms = (self.max_seal_age_ms + self.ticket_lifetime_ms) // DRIFT_DIVISOR
        return jittered_ms(self.poll_interval_ms) + 2 * self.store_timeout_ms + drift_ms

    @property
    def worst_ms(self) -> int:
        """V: from the making of a key to the last instant at which any node opens with it."""
        return self.rotation_interval_ms + self.max_seal_age_ms + self.ticket_lifetime_ms + self.eps_ms

    @property
    def spacing_ms(self) -> int:
        """The least time between two publishes, so that no node that can hear falls two epochs behind."""
        return 2 * jittered_ms(self.poll_interval_ms) + self.store_timeout_ms

    @property
    def speak_ms(self) -> int:
        """How long a leader without memory lets the nodes speak: twice the longest pause of an agent that backs off."""
        return 2 * jittered_ms(self.poll_interval_ms * 2**MAX_BACKOFF_DOUBLINGS)

    def terms(self, now_at: int) -> Terms:
        """Return the numbers for a window published now. A node stops sealing with its `current` at `seals_until`."""
        seals_until = now_at + self.max_seal_age_ms
        if self.schedule.shortest_ms != self.schedule.longest_ms:
            # An uneven (cron) schedule: bounded by the due instant after next rather than by the year's longest gap.
            due_after_next = self.schedule.next_due(self.schedule.next_due(now_at))
            seals_until = min(seals_until, due_after_next + self.eps_ms)
        return Terms(
            seals_until=seals_until,
            max_seal_age_ms=self.max_seal_age_ms,
            ticket_lifetime_ms=self.ticket_lifetime_ms,
            eps_ms=self.eps_ms,
            step_ms=self.rotation_interval_ms,
            max_stranded_ms=self.max_stranded_ms,
            previous_keys=self.previous_keys,
        )


#: An agent whose store keeps failing doubles its pause this often, and no more.
MAX_BACKOFF_DOUBLINGS = 2


def jittered_ms(interval_ms: int) -> int:
    """Return the longest that a jittered interval takes."""
    return interval_ms + interval_ms * JITTER_PERCENT // 100


def impossible(policy: Policy, *, slots: int | None, notice_delay_ms: int) -> Iterator[tuple[str, str]]:
    """
    Yield every (fault, hint) that makes this policy a promise nobody can keep; names are those of the configuration.

    `slots` is the fewest keys that a server of the ring holds (None: enough), `notice_delay_ms` the slowest server's.
    """
    p, r_ms, t_ms, eps = policy, policy.rotation_interval_ms, policy.ticket_lifetime_ms, policy.eps_ms
    if t_ms > SEVEN_DAYS_MS:
        yield f"ticket_lifetime is {words(t_ms)}, over 7d", "RFC 8446 section 4.6.1 allows at most 7d"
    elif p.worst_ms > SEVEN_DAYS_MS:
        yield (
            f"a key would be worth stealing for {words(p.worst_ms)}, over 7d",
            "shorten rotation_interval, max_seal_age or ticket_lifetime: their sum and eps must stay within 7d",
        )
    elif p.worst_ms + p.max_stranded_ms > SEVEN_DAYS_MS:
        yield (
            f"max_stranded {words(p.max_stranded_ms)} after the {words(p.worst_ms)} of one key exceeds 7d",
            "a key stolen from a stranded node gives away those that follow it: lower max_stranded",
        )
    least_r_ms = max(p.spacing_ms, p.tick_interval_ms, notice_delay_ms)
    if p.schedule.shortest_ms < least_r_ms:
        yield (
            f"rotation every {words(p.schedule.shortest_ms)} is more often than nodes can follow ({words(least_r_ms)})",
            "lengthen rotation_interval, or shorten poll_interval and store timeout",
        )
    if p.overdue_after_ms + eps > p.max_seal_age_ms - r_ms:
        yield (
            f"overdue_after {words(p.overdue_after_ms)} + eps {words(eps)} exceeds max_seal_age - rotation_interval, "
            f"{words(max(0, p.max_seal_age_ms - r_ms))}",
            "healthy nodes would stop sealing while one is waited for: raise max_seal_age or lower overdue_after",
        )
    if p.overdue_after_ms > p.schedule.shortest_ms:
        yield (
            f"overdue_after {words(p.overdue_after_ms)} is longer than the schedule's shortest gap",
            "lower overdue_after",
        )
    if p.node_ttl_ms < 2 * jittered_ms(p.poll_interval_ms) + p.store_timeout_ms:
        yield (
            f"node_ttl {words(p.node_ttl_ms)} is shorter than two polls of {words(p.poll_interval_ms)}",
            "a healthy node would be taken for gone: raise node_ttl or lower poll_interval",
        )
    if p.lease_ttl_ms > MAX_LEASE_MS:
        yield (
            f"lease_ttl {words(p.lease_ttl_ms)} is over {words(MAX_LEASE_MS)}",
            "a dead leader is succeeded after it",
        )
    if p.lease_ttl_ms <= p.tick_interval_ms + 2 * p.store_timeout_ms:
        yield (
            f"lease_ttl {words(p.lease_ttl_ms)} does not outlast tick_interval + 2 x store timeout",
            "raise lease_ttl, or lower tick_interval or store timeout",
        )
    if slots is not None:
        # A key with live tickets leaves its slot this many rotations after it was current: current and next take two.
        kept_ms = max(slots - 2, 0) * p.schedule.shortest_ms
        needed_ms = t_ms + max(p.node_ttl_ms, p.overdue_after_ms) + eps
        if needed_ms > kept_ms:
            yield (
                f"a server with {slots} key slots needs ticket_lifetime + max(node_ttl, overdue_after) + eps "
                f"({words(needed_ms)}) within {words(kept_ms)}, as long as it keeps a previous key",
                "lower ticket_lifetime or rotate less often; tickets would die early",
            )


#: A lease that outlasts this is taken for garbage by the store (store/limits).
MAX_LEASE_MS = 300_000


def words(duration_ms: int) -> str:
    """Write a duration as configuration does: 5400000 is 1h30m."""
    if duration_ms == 0:
        return "0s"
    parts = []
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, duration_ms = divmod(duration_ms, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
