"""When a container is started again by itself: Docker's restart policies, without state (facts 3.70 to 3.74)."""

from __future__ import annotations

from netd.model.containers import Container

FIRST_DELAY = 0.1  # seconds
LONGEST_DELAY = 60.0
SETTLED = 10.0  # seconds of running after which the delays begin anew


def next_delay(previous: float, ran: float) -> float:
    """Seconds until the next start: twice the `previous` delay (0: there was none), the first one again after a
    container `ran` for so many seconds that it has settled."""
    if not previous or ran >= SETTLED:
        return FIRST_DELAY
    return min(2 * previous, LONGEST_DELAY)


def after_end(record: Container) -> bool:
    """Whether a container is started again after it has ended as its state says."""
    policy = record.host_config.restart_policy
    if record.stopped_by_user:
        return False
    if policy.name == "on-failure":
        limit = policy.maximum_retry_count
        return record.state.exit_code != 0 and (not limit or record.restart_count < limit)
    return policy.name in ("always", "unless-stopped")


def with_daemon(record: Container) -> bool:
    """Whether a container that does not run is started with the daemon: one whose restart was due when the last
    daemon went, and by policy, `always` even if a user had stopped it."""
    if record.state.restarting:
        return True
    policy = record.host_config.restart_policy.name
    if record.state.status != "exited":  # it was never started
        return False
    return policy == "always" or (policy == "unless-stopped" and not record.stopped_by_user)
