"""What needs a person: opened by drift, rollouts, security and liveness; one open alert for each cause.

    driver, ingest or watch ──► desk.open_alert ──► row + event + notice   (same cause again: the same alert)
    person                  ──► desk.acknowledge, desk.resolve, silences
    cause is gone           ──► desk.clear

    driver.look: course (silence, unsilence, escalate) ──► notices.settle ──► messages owed, for each channel
    driver.deliver: retrying (which, when) ──► wording ──► sender ──► mail, webhook, chat ──► outcome, or later again

Reading order: states, desk, matching, course, notices, retrying, channels, wording, signature, gathering, sender,
driver.
"""
