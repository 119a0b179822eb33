"""The manager's memory: tables, transactions, migrations, and the queries of each subject.

    tables -> database -> devices, releases, rollouts, windows, alerts, audit, ...

Every fact that somebody was promised is committed here before it is acted on.
"""
