"""When: maintenance windows, work for later, priorities, channels, and how long versions are kept.

    person ──► making ──► schedule ─── due? ──► engine ──► driver ──► rollouts.plan ──► rollout
    alias moves ──► aliases ──┘                                          │
                                       precedence, preempting: who goes first on a device
                                       timing, turns: may it be told, may it swap      ──► rollouts.engine
    releases ──► retention ──► sweep: chunks that nothing needs any more

`shared/windows.py` says when a window is open; the device asks it, too. `waits` tells of devices that let their
windows pass.

Reading order: timing, precedence, turns, preempting, channels, labels, states, calendar, engine, strategy, making,
aliases, waits, driver, views, retention, needs, sweep.
"""
