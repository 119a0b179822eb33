"""Who may do what: roles and permissions, bearer tokens, browser sessions, the way a request becomes an actor.

    secrets -> roles -> identify -> answers

`roles` is the table; `secrets` makes and hashes what people and devices carry; `identify` turns the headers of a
request into an `Actor`; `answers` repeats an answer already given to an Idempotency-Key.
"""
