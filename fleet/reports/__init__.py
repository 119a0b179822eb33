"""Reports of drift: what a model saw in some time against its reference, for people, in one file.

    span ──► gathering (store: sums of hours and days, verdicts, alerts, windows) ──► facts
                                  │
             comparing (sums ──► sizes, cells), phrases (number ──► sentence) ──► composing ──► report, a value
                                  │
        document (JSON)   html (drawing; one page, no script)   pdf (matplotlib)  ──► REST, command line
                                  │
             driver: an alert opens, a day is over ──► folder (files, kept for a while)

Reading order: errors, span, content; comparing, facts, phrases, composing, performing, gathering; document, drawing,
html, pdf; reporter, folder, driver.
"""
