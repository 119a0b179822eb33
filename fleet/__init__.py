"""The manager side: releases, devices, rollouts, drift, alerts, and the faces for people.

    releases/ -> rollouts/ -> devices/       publish -> plan and gate -> announce
    schedules/                               when: windows, work for later, priorities, channels
    telemetry/ -> alerts/                    ingest -> drift -> alarm
    api/, cli/, dashboard/                   REST, command line, web pages
    store/, access/, broker/                 memory, permissions, the embedded broker

Start with `daemon.py`: it builds every part.
"""
