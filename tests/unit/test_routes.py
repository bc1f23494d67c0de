"""Every route says who may use it; those that are open to all stand here."""

from __future__ import annotations

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from api import access
from api.main import create_app

PAGES = {"/", "/sale/{event_id}", "/box-office/{event_id}", "/assets/{name}"}
"""They say nothing that is not public; what they show they ask the API for."""

OPEN = {"/health", "/ready", "/metrics", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"} | PAGES


def asks_who_calls(dependant: Dependant) -> bool:
    return any(
        dependency.call is access._admitted or asks_who_calls(dependency)
        for dependency in dependant.dependencies
    )


STREAMS = {"/jobs/{job_id}/events", "/events/{event_id}/box-office"}


def test_head_is_answered_wherever_get_is_but_for_streams() -> None:
    routes = list(iter_route_contexts(create_app().routes))
    got, headed = (
        {each.path for each in routes if method in (each.methods or ())} for method in ("GET", "HEAD")
    )
    assert got - headed == STREAMS


def test_every_route_asks_who_calls_unless_it_is_open_to_all() -> None:
    routes = list(iter_route_contexts(create_app().routes))
    assert {route.path for route in routes} >= OPEN
    for route in routes:
        original = route.original_route
        asks = isinstance(original, APIRoute) and asks_who_calls(original.dependant)
        assert asks is (route.path not in OPEN), route.path
