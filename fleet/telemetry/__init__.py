"""What devices say, and what it means: MQTT -> ingest -> store -> drift -> alert.

    MQTT ──► ingest ──► rows ──► hub.wake
                          │
              driver: sliding (sums of the newest stretch) + baselines (the release's reference)
                          │
                        drift (distances) ──► verdict (collecting, ok, warning, drifted)
                          │
                        alarms ──► fleet.alerts.desk

    performance_driver: tallies of each day ──► performance (intervals, what got worse) ──► fleet.alerts.desk

Reading order: rate, heard, ingest; baselines, sliding, drift, verdict, alarms, driver; performance, performance_driver.
"""
