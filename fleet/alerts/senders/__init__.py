"""The ways to a channel. Each takes a channel's settings and a message; what comes back is what the other side said.

    mailing (SMTP)   posting (webhook, Slack, Teams; destinations says where may be posted)   others (apprise, handlers)

    ChannelDownError, ChannelSetupError: try again later.    MessageRefusedError: this message never gets through.

Reading order: failures, secret_files, threads, destinations, posting, mailing, others.
"""
