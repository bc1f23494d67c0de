"""rq-dashboard behind a real web server, with a login where a password is given.

`RQ_DASHBOARD_REDIS_URL` says where Redis is; `DASHBOARD_REDIS_PASSWORD_FILE` and `DASHBOARD_PASSWORD_FILE`
hold the password for it and that of the login (user `operator`). So no password stands in a command line.
"""

from __future__ import annotations

import argparse
import os
from hmac import compare_digest
from pathlib import Path
from urllib.parse import quote

from flask import Flask, Response, request
from rq.serializers import JSONSerializer
from rq_dashboard.cli import make_flask_app
from rq_dashboard.web import config, setup_rq_connection
from waitress import serve

USER = "operator"
THREADS = 4
OPEN_PATH = "/healthz"


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
