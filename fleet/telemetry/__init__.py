"""What devices say, and what it means: MQTT -> ingest -> store -> drift -> alert.

    MQTT ──► ingest ──► rows ──► hub.wake
                          │
              driver: memory (windows into sums of hours and days, in the store and in `rings`)
                          │
                        board: drift (every distance) + calibrated (the alarm; components, dispersion)
                          │
                        verdict (collecting, ok, warning, drifted) ──► alarms ──► fleet.alerts.desk

    driver also puts `estimate` (accuracy guessed from confidence) beside the verdict on confidence: shown, not acted on

    performance_driver: tallies of each day ──► performance (intervals, what got worse) ──► fleet.alerts.desk

Reading order: rate, heard, bounds, ingest; baselines, layout, vectors, rings; components, drift, dispersion,
calibrated; finding, looking, board, memory, verdict, estimate, alarms, driver; performance, figures,
performance_driver.
"""
