"""Requests made from the OpenAPI document, fitting and not: the server answers whatever comes, and never by a 5xx."""

from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from fairlead.feedback.accounts import open_session
from fairlead.serve.guards import Window
from fairlead.web.entrance import COOKIE, csrf_of

from .test_authorisation import made_things


def cases(place, number):
    """Ask `number` requests of every route in each mode, as the administrator; returns how many."""
    document = place.people["nobody"].get("/openapi.json")
    schema = schemathesis.openapi.from_dict(document)
    asked, bad = [0], []
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(max_examples=number, deadline=None, database=None, phases=[Phase.generate],
                      suppress_health_check=list(HealthCheck))  # fmt: skip
            @given(strategy)
            def ask(case):
                token = open_session(place.store, place.users["admin"])
                case.headers = {**(case.headers or {}), "cookie": f"{COOKIE}={token}", "x-csrf-token": csrf_of(token)}
                response = case.call(base_url=place.address, timeout=30)
                asked[0] += 1
                if response.status_code >= 500:
                    bad.append((case.as_curl_command(), response.status_code, response.text))

            with suppress(Unsatisfiable):  # a route that takes nothing has no wrong requests
                ask()
    assert not bad, bad[:3]
    return asked[0]


@pytest.mark.parametrize(("of_each", "at_least"), [(3, 100), pytest.param(400, 10_000, marks=pytest.mark.slow)])
def test_no_request_is_too_strange(place, of_each, at_least, monkeypatch):
    monkeypatch.setattr(Window, "full", lambda *_: False)
    made_things(place)
    assert cases(place, of_each) >= at_least
    assert place.people["nobody"].ask("GET", "/health")[0] == 200
