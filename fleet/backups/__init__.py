"""Everything that a manager cannot make again, in one file; and a manager made from it.

    create    database, keys, chunks --rows, sealing--> form --writing--> one file
    verify    file --form--> examining: digests, seal, signatures, chunks
    restore   file --examining--> restoring: staged, swapped in at once --resetting--> nothing goes back (ADR 35)

Read form, rows, sealing, writing, examining, resetting, restoring.
"""
