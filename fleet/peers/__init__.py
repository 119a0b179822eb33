"""A release comes to a site once: its devices serve each other's sealed chunks.

    Ask --signature, site--> ledger --> whose turn it is to fetch a chunk here, who of the site has it
                             authority --> a passport, by which devices of one site know each other in TLS

The ledger is in memory: a manager that is new knows nothing, is told again, and serves a copy more. Of several
managers each has its own.
Read: ledger, authority, desk.
"""
