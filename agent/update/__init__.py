"""One update, from announcement to report.

    announcement (MQTT)
        |  trust          do release keys and director both list this release, for this device, now?
        v
    admission -> plan     does it fit, what is here already, what is to be fetched?
        v
    sources: bundle,      whoever has it first (site_cache); the broker, where nobody else answers (broker_source);
    fetch -> chunk_store  every chunk checked by its name, resumed where it broke off (pacing: how fast and how slow;
        v                 strangers: portals and certificates)
    assemble              chunks -> files of the idle slot (unpack), digests checked, model scanned (peek)
        v
    examination           is there room (room)? engines for the GPU; then self_test: golden inputs in a throw-away
        |                 child under limits; as quick as the version that serves?
        |  shadowing -> agreement: where the assignment asks for it, beside what serves on copies of live requests
        v
    switch, slots,        swap in: the slot record first, then the route (answering); beside the old version,
    slot_disk             or instead of it where memory holds only one
        v
    vitals -> probation   what is observed -> commit, keep watching, roll back
        v
    report (outbox)

`lifecycle` is the table that all of this walks along; `journal` makes each step durable before it
is performed; `intake` turns announcements into updates; `effects` performs one step after the other
as the table asks; `driver` carries them and forgets nothing, and before self-test and swap it waits for a machine
that is cool and calm enough (holdups, conditions), before the swap for its maintenance window (opening) as well.
At a start `upkeep` gets the right version serving before anything else happens, and whenever something breaks
that no update is at work on:
a damaged slot record (rebuilding), a version that does not load, a crash loop, both slots bad (safe mode).
`standing` is what people see of all that, put together by `overview`.

Read: reasons, lifecycle, slots, journal, bundle, metadata, trust, admission, plan, pacing, strangers, fetch,
chunk_store, site_cache, sources, broker_source, unpack, peek, assemble, rebuilding, slot_disk, self_test, probation,
vitals, answering, switch, crash_loop, upkeep, standing, conditions, holdups, opening, room, examination, agreement,
shadowing, effects, intake, overview, driver, installing.
"""
