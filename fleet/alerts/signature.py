"""How a webhook proves that it comes from this manager: HMAC-SHA256 over time and body (docs/alerts.md).

    Flotilla-Signature: t=1767225600,v1=HEX      HEX = HMAC-SHA256(secret, "1767225600." + body)

I/O: none.
"""

import hashlib
import hmac
from datetime import datetime
from typing import Final

HEADER: Final = "Flotilla-Signature"


def signed(secret: bytes, body: bytes, at: datetime) -> str:
    """The value of the header."""
    moment = str(int(at.timestamp()))
    return f"t={moment},v1={hmac.new(secret, moment.encode() + b'.' + body, hashlib.sha256).hexdigest()}"
