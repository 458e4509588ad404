"""Who is let in, as what, and what is kept of it."""

import pytest
from sqlalchemy import select, update

from fairlead.errors import UserError
from fairlead.feedback import accounts
from fairlead.feedback.accounts import (
    add_key,
    add_user,
    change_password,
    disable_user,
    end_session,
    first_admin,
    open_session,
    revoke_key,
    user_of_key,
    user_of_session,
    verified,
)
from fairlead.feedback.schema import METADATA, api_keys, audit, sessions, users

from .conftest import PASSWORD


def everything(store):
    with store.read() as connection:
        return repr([connection.execute(select(table)).all() for table in METADATA.sorted_tables])


def test_the_first_admin_comes_once_with_a_password_of_its_own(store):
    admin, password = first_admin(store)
    assert first_admin(store) is None
    found = verified(store, "admin", password)
    assert (found.id, found.role, found.must_change) == (admin.id, "admin", True)
    assert password not in everything(store)


def test_a_password_opens_and_another_does_not(store, people):
    assert verified(store, "ann", PASSWORD) == people["ann"]
    assert verified(store, "ann", PASSWORD + " ") is None
    assert verified(store, "nobody", PASSWORD) is None


def test_passwords_are_argon2id(store, people):
    with store.read() as connection:
        hashes = list(connection.execute(select(users.c.password_hash)).scalars())
    assert all(one.startswith("$argon2id$") for one in hashes)
    assert len(set(hashes)) == 4


def test_an_unknown_name_is_hashed_too(store, people, monkeypatch):
    checked = []
    monkeypatch.setattr(accounts._HASHER.__class__, "verify", lambda self, *given: checked.append(given) or True)
    verified(store, "nobody", PASSWORD)
    assert len(checked) == 1


@pytest.mark.parametrize(("name", "role", "password"), [
    ("ann", "viewer", PASSWORD), ("", "viewer", PASSWORD), ("x" * 65, "viewer", PASSWORD), ("new", "god", PASSWORD),
    ("new", "viewer", "short"), ("new", "viewer", "x" * 2000),
])  # fmt: skip
def test_accounts_that_cannot_be(store, people, name, role, password):
    with pytest.raises(UserError):
        add_user(store, name, role, password)


def test_a_session_ends(store, people):
    token = open_session(store, people["ann"])
    assert user_of_session(store, token) == people["ann"]
    assert token not in everything(store)
    end_session(store, token)
    assert user_of_session(store, token) is None
    assert user_of_session(store, "made up") is None


def test_a_session_runs_out(store, people):
    token = open_session(store, people["ann"])
    with store.write() as connection:
        connection.execute(update(sessions).values(expires_at=1))
    assert user_of_session(store, token) is None


def test_another_password_ends_all_sessions(store, people):
    tokens = [open_session(store, people["ann"]) for _ in range(2)]
    others = open_session(store, people["bob"])
    change_password(store, people["ann"], "another long password")
    assert [user_of_session(store, token) for token in tokens] == [None, None]
    assert user_of_session(store, others) == people["bob"]
    assert verified(store, "ann", PASSWORD) is None
    assert verified(store, "ann", "another long password")


def test_a_locked_account_lets_nobody_in(store, people):
    token, (_, key) = open_session(store, people["ann"]), add_key(store, people["ann"], "k", ("label",))
    assert disable_user(store, people["ann"].id, by=people["admin"])
    assert not disable_user(store, people["ann"].id, by=people["admin"])
    assert user_of_session(store, token) is None
    assert user_of_key(store, key) is None
    assert verified(store, "ann", PASSWORD) is None


def test_a_key_may_do_what_it_says_and_no_more(store, people):
    _, secret = add_key(store, people["admin"], "labels", ("label",))
    found = user_of_key(store, secret)
    assert (found.id, found.scopes) == (people["admin"].id, ("label",))
    assert secret not in everything(store)
    for scopes in (("admin",), ("read",), ()):
        with pytest.raises(UserError):
            add_key(store, people["ann"], "more", scopes)


def test_a_key_may_never_do_more_than_its_owner(store, people):
    _, secret = add_key(store, people["admin"], "all", ("admin", "label", "read"))
    with store.write() as connection:
        connection.execute(update(users).where(users.c.id == people["admin"].id).values(role="annotator"))
    assert user_of_key(store, secret).scopes == ("label",)


def test_keys_are_revoked_by_their_owner_or_an_admin(store, people):
    number, secret = add_key(store, people["ann"], "k", ("label",))
    assert not revoke_key(store, people["bob"], number)
    assert user_of_key(store, secret)
    assert revoke_key(store, people["ann"], number)
    assert not revoke_key(store, people["ann"], number)
    assert user_of_key(store, secret) is None
    number, secret = add_key(store, people["ann"], "k", ("label",))
    assert revoke_key(store, people["admin"], number)
    assert user_of_key(store, secret) is None
    with store.read() as connection:
        assert len(connection.execute(select(api_keys)).all()) == 2


def test_what_was_done_is_written_down(store, people):
    verified(store, "ann", "wrong password")
    open_session(store, people["ann"])
    add_key(store, people["ann"], "k", ("label",))
    with store.read() as connection:
        lines = connection.execute(select(audit.c.user_id, audit.c.action).order_by(audit.c.id)).all()
    ann = people["ann"].id
    assert [tuple(line) for line in lines[-3:]] == [(None, "login.failed"), (ann, "login"), (ann, "key.add")]
