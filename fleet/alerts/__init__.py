"""What needs a person: opened by drift, rollouts, security and liveness; one open alert for each cause.

    driver or ingest ──► desk.open_alert ──► row + event     (same cause again: the same alert, kept up to date)
    person           ──► desk.acknowledge, desk.resolve
    cause is gone    ──► desk.clear

Reading order: states, desk.
"""
