"""Adapters of one base share it, and say what each says when it is loaded alone."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from fairlead.config.common import RuntimeConfig
from fairlead.models.sources import resolve
from fairlead.runtime.start import start
from fairlead.serve.app import Server
from fairlead.serve.load import LoadedModels
from serve.conftest import running
from tiny_stages import TinyWorld

ASKED = [{"temperature": 0}, {"seed": 4}, {"seed": 5, "temperature": 1.3}]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two policies of one base, a reward model on it, and the base itself."""
    world = TinyWorld(tmp_path_factory.mktemp("world"))
    sft = world.run("sft", world.root / "sft", "num_epochs=3")
    dpo = world.run("dpo", world.root / "dpo", "num_epochs=3")
    return {"sft": resolve(str(sft)), "dpo": resolve(str(dpo)), "base": resolve(str(world.model)),
            "judge": resolve(str(world.reward))}  # fmt: skip


def said_by(loaded, names):
    """What every policy says to every request, all at once."""
    site = running(Server(loaded.policies, loaded.scorers))
    client = openai.OpenAI(base_url=f"{site.address}/v1", api_key="none", max_retries=0)

    def ask(request):
        name, options = request
        messages = [{"role": "user", "content": "the quick fox"}]
        answer = client.chat.completions.create(
            model=name, messages=messages, max_tokens=24, logprobs=True, **options
        )  # fmt: skip
        return [one.token for one in answer.choices[0].logprobs.content]

    requests = [(name, options) for options in ASKED for name in names]
    with ThreadPoolExecutor(len(requests)) as pool:
        found = list(pool.map(ask, requests))
    site.end()
    loaded.close()
    return {name: found[place :: len(names)] for place, name in enumerate(names)}


def test_siblings_say_what_each_says_alone(sources):
    runtime, names = start(RuntimeConfig(device="cpu", dtype="float32")), ["sft", "dpo", "base"]
    alone = {name: said_by(LoadedModels({name: sources[name]}, runtime), [name])[name] for name in names}
    together = LoadedModels(sources, runtime)
    roles = together.policies["sft"]._engine._roles
    assert all(together.policies[name]._engine._roles is roles for name in names)
    assert together.scorers["judge"]._roles is roles
    assert len(roles.backbones) == 1
    assert said_by(together, names) == alone
    assert len({str(alone[name]) for name in names}) == 3
