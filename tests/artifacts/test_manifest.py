import re

import pytest
from pydantic import ValidationError

from fairlead.artifacts.hashing import sealed_json, sha256_json
from fairlead.artifacts.manifest import (
    MANIFEST_NAME,
    FileFacts,
    Manifest,
    Parent,
    digest,
    package_versions,
    read_manifest,
    require_kind,
    verify,
    write_manifest,
)
from fairlead.errors import ExitCode, UserError


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "01-sft"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "metrics.jsonl").write_bytes(b'{"loss":1.0}\n')
    (folder / "timings.jsonl").write_bytes(b'{"seconds":1.0}\n')
    (folder / "checkpoints" / "step-000001").mkdir(parents=True)
    (folder / "checkpoints" / "step-000001" / "w").write_bytes(b"state")
    (folder / "lock.json").write_bytes(b"{}")
    (folder / "rejects.jsonl").write_bytes(b"{}")
    write_manifest(folder, manifest())
    return folder


def manifest(**changes):
    parents = {"data": Parent(path="runs/demo/00-data", digest="ab" * 32)}
    values = {"config": {"optim": {"lr": 1e-05}}, "facts": {"score_at": "last token"}, "parents": parents}
    return Manifest(kind="policy", stage="sft", **(values | changes))


def refused(call, code, *words):
    with pytest.raises(UserError) as caught:
        call()
    assert caught.value.exit_code == code
    for word in words:
        assert word in str(caught.value)


def test_round_trip_lists_every_file_but_what_may_change_or_be_deleted(artifact):
    found = verify(artifact)
    assert sorted(found.files) == ["metrics.jsonl", "model/adapter_model.safetensors", "timings.jsonl"]
    assert found.files["metrics.jsonl"].size_bytes == 13
    assert found.config_digest == sha256_json({"optim": {"lr": 1e-05}})
    assert found.facts == {"score_at": "last token"}
    assert found.parents["data"].path == "runs/demo/00-data"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found.created)


def test_digest_forgets_clocks_places_and_options_and_sees_the_rest(artifact):
    before = digest(artifact)
    (artifact / "timings.jsonl").write_bytes(b'{"seconds":9.0}\n')
    (artifact / "report.html").write_bytes(b"took 9 s")
    (artifact / "stage.json").write_bytes(b'{"config":{"data":"/somewhere"}}')
    again = manifest(wall_seconds=9.0, peak_memory_bytes=1, created="2001-01-01T00:00:00+00:00")
    write_manifest(artifact, again)
    assert digest(artifact) == before
    write_manifest(artifact, manifest(config={"output": "/elsewhere"}))
    assert digest(artifact) == before
    write_manifest(artifact, manifest(facts={"score_at": "last_token"}))
    other_facts = digest(artifact)
    write_manifest(artifact, Manifest(kind="critic", stage="sft", config=manifest().config))
    other_kind = digest(artifact)
    (artifact / "model" / "adapter_model.safetensors").write_bytes(b"weighty")
    write_manifest(artifact, manifest())
    assert len({before, other_facts, other_kind, digest(artifact)}) == 4


def test_digest_of_rows_sees_every_file(tmp_path):
    rows = tmp_path / "train.jsonl"
    rows.write_bytes(b"1\n")
    write_manifest(tmp_path, Manifest(kind="dataset", stage="split"))
    before = digest(tmp_path)
    rows.write_bytes(b"2\n")
    write_manifest(tmp_path, Manifest(kind="dataset", stage="split"))
    assert digest(tmp_path) != before


def test_changed_missing_and_shortened_files_are_named(artifact):
    weights = artifact / "model" / "adapter_model.safetensors"
    weights.write_bytes(b"weightz")
    refused(lambda: verify(artifact), ExitCode.BAD_DATA, f"sha256 mismatch in {weights} (want ", ".. got ", "Fix: ")
    weights.write_bytes(b"")
    refused(lambda: verify(artifact), ExitCode.BAD_DATA, f"sha256 mismatch in {weights}")
    weights.unlink()
    refused(lambda: verify(artifact), ExitCode.BAD_DATA, f"{weights} is missing")


def test_absent_and_unfinished_artifacts(artifact, tmp_path):
    (artifact / MANIFEST_NAME).unlink()
    refused(lambda: read_manifest(artifact), ExitCode.MISSING_INPUT, "is not finished", "goes on from its last")
    refused(lambda: read_manifest(tmp_path), ExitCode.MISSING_INPUT, "is not an artifact")
    refused(lambda: read_manifest(tmp_path / "no"), ExitCode.MISSING_INPUT, "does not exist", "fairlead runs")
    refused(lambda: read_manifest(artifact / "metrics.jsonl"), ExitCode.MISSING_INPUT, "is not an artifact")


@pytest.mark.parametrize("text", [b"", b"{", b'{"kind": "policy"}', b"\x00" * 99])
def test_damaged_manifest(artifact, text):
    (artifact / MANIFEST_NAME).write_bytes(text)
    refused(lambda: read_manifest(artifact), ExitCode.BAD_DATA, "damaged")


def test_sealed_but_wrong_manifest(artifact):
    (artifact / MANIFEST_NAME).write_bytes(sealed_json({"format_version": 2}))
    refused(lambda: read_manifest(artifact), ExitCode.BAD_DATA, "newer fairlead", "upgrade")
    (artifact / MANIFEST_NAME).write_bytes(sealed_json({"kind": "policy", "stage": "sft", "colour": "red"}))
    refused(lambda: read_manifest(artifact), ExitCode.BAD_DATA, "colour", "Fix: ")


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "model/../../secret"])
def test_names_that_lead_out_of_the_folder(name):
    with pytest.raises(ValidationError, match="leads out of the folder"):
        manifest(files={name: FileFacts(sha256="0" * 64, size_bytes=0)})


def test_wrong_kind_is_refused_by_name(artifact):
    assert require_kind(artifact, ("policy",), wanted_for="ppo.policy").kind == "policy"
    refused(
        lambda: require_kind(artifact, ("reward",), wanted_for="ppo.reward_model"),
        ExitCode.USAGE,
        f"{artifact} is a policy; want a reward model for ppo.reward_model",
        "Fix: pass a folder made by `fairlead reward`",
    )
    refused(
        lambda: require_kind(artifact, ("critic", "reward"), wanted_for="eval.reward_model"),
        ExitCode.USAGE,
        "want a critic or a reward model for eval.reward_model",
    )


def test_package_versions():
    found = package_versions()
    assert found["python"].startswith("3.")
    assert re.match(r"\d+\.\d+", found["torch"])
