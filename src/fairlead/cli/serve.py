"""`fairlead serve MODEL…`: models behind OpenAI's HTTP interface."""

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.cli.words import Words, config_from_words, split_recipe
from fairlead.config.serve import LOOPBACK, ServeConfig

if TYPE_CHECKING:
    from fairlead.feedback.store import Store
    from fairlead.serve.app import Server
    from fairlead.web.accounts import Link
    from fairlead.web.site import Site


def serve(*words: Words) -> None:
    """Serve models to OpenAI's clients."""
    recipe, rest = split_recipe(words)
    named = list(takewhile(lambda word: not word.startswith("-") and not _is_option(word), rest))
    options = [*(f"models={name}" for name in named), *rest[len(named) :]]
    config = config_from_words("serve", ServeConfig, [*([str(recipe)] if recipe else []), *options])
    from fairlead.cli.preflight import check_serve

    names = check_serve(config)
    from fairlead.feedback.store import open_store
    from fairlead.models.sources import resolve
    from fairlead.runtime.environment import secret
    from fairlead.runtime.start import start
    from fairlead.serve.app import Server
    from fairlead.serve.load import LoadedModels
    from fairlead.serve.models import Echo, Model
    from fairlead.serve.run import serve as listen

    key = secret(config.api_key_variable)
    store = open_store(config.store, create=True) if config.store else None
    started = start(config.runtime)
    loaded = LoadedModels({name: resolve(path) for name, path in names.items()}, started)
    models: dict[str, Model] = {**loaded.policies, **({"echo": Echo()} if config.echo else {})}
    server = Server(models, loaded.scorers, max_running=config.max_running, max_waiting=config.max_waiting)

    site, link = (None, None) if store is None else _site(store, server, list(models), config)

    def ready(address: str) -> None:
        served = ", ".join([*models, *loaded.scorers])
        named = f"{served} at " if served else "no model; "
        print(f"{named}{address}/v1 ({started.describe()}); Ctrl-C ends", flush=True)
        if store is not None:
            once = f"#/open/{link.token}, a link that opens once" if link else ""
            print(f"  chat and rank: {address}/{once}", flush=True)
            _first_account(store)
            print(f"  what is said there is kept in {store.place}", flush=True)

    try:
        listen(
            server.app(site), host=config.host, port=config.port, keys=[key] if key else [],
            hosts=config.allowed_hosts, pages=site, ready=ready,
        )  # fmt: skip
    finally:
        loaded.close()
        if store is not None:
            store.close()


def _site(store: "Store", server: "Server", models: list[str], config: ServeConfig) -> tuple["Site", "Link | None"]:
    """The pages, and on this machine's own address the link that opens them."""
    from fairlead.web.accounts import Link
    from fairlead.web.site import Site

    link = Link() if config.host in LOOPBACK else None
    return Site(store, server, models, link=link, refused=server.metrics.refuse), link


def _first_account(store: "Store") -> None:
    from fairlead.feedback.accounts import first_admin

    if made := first_admin(store):
        user, password = made
        print(f"  the account {user.name} was made; its password, shown only now: {password}", flush=True)


def _is_option(word: str) -> bool:
    """`port=8001`, not `mine=runs/a` nor a path that holds the sign."""
    name = word.partition("=")[0]
    return "=" in word and not Path(word).exists() and name.partition(".")[0] in ServeConfig.model_fields
