"""Bring one release to many devices, wave by wave, and take it back when it does harm.

    request ──► plan ──► waves                       (who comes when: stable, stratified)
                  │
    reports, windows, drift ──► reading ──► gate     (does it harm? pass, wait, fail; verdicts are kept)
      │                            ▲
      └► gate_driver: gathering ──►│                 (trials: what came, against what is usual and the others)
         hook_driver: a webhook ──►┘
                                              │
                                           engine    (rollout, evidence, now) ──► rollout, actions
                                              │
                             driver: save both in one transaction, then perform what is owed
                                              │
                          Director.assign ──► device ──► reports (fleet.telemetry.ingest) ──► reading …

Reading order: states, waves, actions, counting, habits, trials, shadowing, numbers, gate, comparing, pacing, winding,
engine, saved, roster, histories, gathering, gate_driver, hooks, hook_driver, verdicts, reading, progress, targeting,
standing, plan, forecast, changing, withdrawing, driver.
"""
