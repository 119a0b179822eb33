"""The manager's REST face: one module per noun, each route declares who may call it.

    app -> middleware -> listing -> context -> problems
        -> devices, invites, users, tokens, audit, events, enroll, health, docs

`app` puts everything together; `context` gives routes the manager, the actor and pages; `problems` turns errors into
`application/problem+json`; `middleware` bounds bodies, identifies the caller and repeats answers; `listing` filters,
orders and pages lists.
"""
