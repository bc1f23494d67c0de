"""rq-dashboard behind a real web server, with a login where a password is given.

`RQ_DASHBOARD_REDIS_URL` says where Redis is; `DASHBOARD_REDIS_PASSWORD_FILE` and `DASHBOARD_PASSWORD_FILE`
hold the password for it and that of the login (user `operator`). So no password stands in a command line.
"""

from __future__ import annotations

import argparse
import os
from heapq import nlargest
from hmac import compare_digest
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, request
from jinja2 import DictLoader
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from rq.utils import as_text
from rq_dashboard import web
from rq_dashboard.cli import make_flask_app
from rq_dashboard.web import config, setup_rq_connection
from waitress import serve

USER = "operator"
THREADS = 4
OPEN_PATH = "/healthz"

QUEUES_LISTED_MAX = 100
"""The dashboard asks Redis seven times for each queue that it lists, every 2.5 seconds for each open page."""

LENGTHS_PER_ROUND_TRIP = 1_000
EVENT_PREFIX = "rq:queue:event:"

FOOTER = f"""<footer class="footer-text"><span class="col-12">
The {QUEUES_LISTED_MAX} longest lines are listed. Any other is at
<code>/0/view/jobs/event:&lt;event id&gt;/queued/8/asc/1</code>.
<a href="https://github.com/Parallels/rq-dashboard">RQ dashboard</a> {{{{ rq_dashboard_version }}}},
<a href="https://python-rq.org">RQ</a> {{{{ rq_version }}}}
</span></footer>"""


class ListedQueue(Queue):
    """A queue as the dashboard lists it: the longest lines first, and no more than a page is good for."""

    listed_length = 0

    @classmethod
    def all(cls, connection: Redis, *_: Any, **options: Any) -> list[Queue]:
        """The queues that are not of events, and the longest of those that are."""
        keys = [as_text(key) for key in connection.smembers(cls.redis_queues_keys)]
        events = [key for key in keys if key.startswith(EVENT_PREFIX)]
        lengths = dict(zip(events, _lengths(connection, events), strict=True))
        longest = nlargest(QUEUES_LISTED_MAX, events, key=lambda key: (lengths[key], key))
        listed: list[Queue] = []
        for key in [*longest, *(key for key in keys if key not in lengths)]:
            queue = cls(key.removeprefix(cls.redis_queue_namespace_prefix), connection=connection)
            queue.listed_length = lengths.get(key, 0)
            listed.append(queue)
        return listed

    def __lt__(self, other: Any) -> bool:
        return (-self.listed_length, self.name) < (-other.listed_length, other.name)


def _lengths(connection: Redis, keys: list[str]) -> list[int]:
    lengths: list[int] = []
    for start in range(0, len(keys), LENGTHS_PER_ROUND_TRIP):
        with connection.pipeline(transaction=False) as pipeline:
            for key in keys[start : start + LENGTHS_PER_ROUND_TRIP]:
                pipeline.llen(key)
            lengths += pipeline.execute()
    return lengths


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9181)
    parsed = parser.parse_args()
    app = build(os.environ["RQ_DASHBOARD_REDIS_URL"], login_password=_secret("DASHBOARD_PASSWORD_FILE"))
    serve(app, host=parsed.host, port=parsed.port, threads=THREADS, ident=None)


def build(redis_url: str, *, login_password: str | None) -> Flask:
    """The dashboard for this Redis. It shows and requeues; it has no button that deletes waiting commands."""
    app: Flask = make_flask_app(None, None, None, "")
    redis_password = _secret("DASHBOARD_REDIS_PASSWORD_FILE")
    if redis_password is not None:
        scheme, _, rest = redis_url.partition("://")
        user, _, host = rest.rpartition("@")
        redis_url = f"{scheme}://{user}:{quote(redis_password, safe='')}@{host}"
    app.config["RQ_DASHBOARD_REDIS_URL"] = redis_url
    app.config["RQ_DASHBOARD_DISABLE_DELETE"] = True
    app.config["DEPRECATED_OPTIONS"] = []
    config.serializer = JSONSerializer
    web.Queue = ListedQueue
    app.jinja_loader = DictLoader({"rq_dashboard/footer.html": FOOTER})
    setup_rq_connection(app)
    app.add_url_rule(OPEN_PATH, view_func=lambda: "ok", endpoint="healthz")
    if login_password is not None:
        _ask_for_login(app, login_password)
    return app


def _ask_for_login(app: Flask, password: str) -> None:
    @app.before_request
    def check() -> Response | None:
        given = request.authorization
        if request.path == OPEN_PATH or (
            given is not None
            and compare_digest((given.username or "").encode(), USER.encode())
            and compare_digest((given.password or "").encode(), password.encode())
        ):
            return None
        return Response("Log in.", 401, {"WWW-Authenticate": 'Basic realm="Onsale dashboard"'})


def _secret(variable: str) -> str | None:
    path = os.environ.get(variable)
    return None if path is None else Path(path).read_text().strip()


if __name__ == "__main__":
    main()
