"""Who may do what: roles and permissions, people, bearer tokens, browser sessions, the way a request becomes an actor.

    secrets -> roles -> identify -> backoff -> passwords -> sign_in -> answers

`roles` is the table; `secrets` makes and hashes what people and devices carry; `identify` turns the headers of a
request into an `Actor`. Name and password: `backoff` says how long who guesses waits, `passwords` computes,
`sign_in` lets in. `answers` repeats an answer already given to an Idempotency-Key.
"""
