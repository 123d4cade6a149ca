# SPDX-License-Identifier: MIT OR Apache-2.0
"""LiveKit access tokens (JWT, HS256), made by hand so that the tests can also make wrong ones."""

import base64
import hashlib
import hmac
import json
import time


def _b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def make_token(key, secret, identity=None, room=None, ttl=600, **grants):
    """A token that joins `room`; `grants` adds or overrides video grants (canPublish=…). ttl < 0 makes an expired one."""
    now = int(time.time())
    video = {"roomJoin": True, "room": room} if room else {}
    video.update(grants)
    claims = {"iss": key, "nbf": now - 10 + min(ttl, 0) - 60, "exp": now + ttl, "video": video}
    if identity:
        claims["sub"] = identity
    head = _b64(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    body = _b64(json.dumps(claims).encode())
    signature = hmac.new(secret.encode(), head + b"." + body, hashlib.sha256).digest()
    return (head + b"." + body + b"." + _b64(signature)).decode()
