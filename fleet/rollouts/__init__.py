"""Bring one release to many devices, wave by wave, and take it back when it does harm.

    request ──► plan ──► waves                       (who comes when: stable, stratified)
                  │
    reports, windows, drift ──► reading ──► gate     (does it harm? pass, wait, fail)
                                              │
                                           engine    (rollout, evidence, now) ──► rollout, actions
                                              │
                             driver: save both in one transaction, then perform what is owed
                                              │
                          Director.assign ──► device ──► reports (fleet.telemetry.ingest) ──► reading …

Reading order: states, waves, shadowing, gate, engine, saved, reading, progress, plan, changing, driver.
"""
