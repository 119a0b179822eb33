"""The manager's face: pages that are rendered on the server and stay live over one stream each.

    tables --reading--> facts --views / rollout_views--> view models --templates--> fragments
    fragments --live--> one stream per page, only what changed --> htmx morphs it into place

Read facts, drawing, views, rollout_views, drift_views, reading, live, app; then templates/ and static/.
"""
