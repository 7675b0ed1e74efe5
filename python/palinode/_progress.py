"""What happens while a pipeline runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


class Event(dict[str, Any]):
    """Something that happened in a run, as a line of its event log has it: ``event`` and what belongs to it. Times are in seconds.

    * ``run_started``: ``run``, ``pipeline``, ``stages`` (how many instances there are)
    * ``stage_started``: ``instance``, ``uses``, ``reasons``
    * ``progress_started``, ``progress``, ``progress_ended``: ``instance``, ``what`` is counted, ``done``, ``total`` (or None), ``note``
    * ``measured``: ``instance``, ``what``, ``step``, ``at``, ``value``: a point of a curve, such as a loss
    * ``unit_done``: ``instance``, ``unit``, ``seconds``: a part of the work that is kept
    * ``stage_finished``: ``instance``, ``outcome`` (``is``: cached, ran, failed, skipped, not_asked), ``key``, ``seconds``
    * ``stage_retried``: ``instance``, ``failed``, ``left``, ``message``
    * ``warning``: ``message``, ``instance``; ``finding``: what a check before the work found
    * ``downloading``: ``reference``, ``file``, ``total`` (bytes)
    * ``run_finished``: ``ran``, ``cached``, ``failed``, ``skipped``, ``seconds``
    """


#: Hears of each event, in the thread that waits for the run. What it raises stops the run.
Callback = Callable[[Event], None]


def show_progress(event: Event) -> None:
    """A callback that writes a line to stderr for each stage that did something, for warnings, and for the end."""
    kind = event.get("event")
    line = None
    if kind == "run_started":
        line = f"run {event['run']} of {event['pipeline']}: {event['stages']} stages"
    elif kind == "stage_finished":
        outcome = event["outcome"]
        if outcome["is"] == "ran":
            line = f"  {event['instance']}: {event['seconds']:.1f} s"
        elif outcome["is"] == "failed":
            line = f"  {event['instance']}: failed: {outcome['message']}"
    elif kind == "warning":
        line = "warning: " + ": ".join(filter(None, [event.get("instance"), event["message"]]))
    elif kind == "run_finished":
        counts = [f"{name} {event[name]}" for name in ("ran", "cached", "failed", "skipped") if event[name]]
        line = f"{', '.join(counts) or 'nothing to do'} in {event['seconds']:.1f} s"
    if line is not None:
        print(line, file=sys.stderr, flush=True)
