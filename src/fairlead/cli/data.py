"""`fairlead data show PATH` and `fairlead data audit PATH`: what a model would be trained on, and whether it should."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

Count = Annotated[int, Parameter(validator=Number(gte=1))]
Seed = Annotated[int, Parameter(validator=Number(gte=0, lt=2**31))]
Files = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=(), show_default=False)]


def show(
    path: str,
    /,
    *,
    model: str = "smollm2-135m-instruct",
    rows: Count = 3,
    max_length: Count = 512,
    columns: Files = (),
    encoding: str = "",
) -> None:
    """Print rows with each token's role and whether it is trained.

    Parameters
    ----------
    path
        A file or folder of rows, or the name of a starter dataset.
    model
        Whose tokenizer and chat template to use: a folder, hub id or starter name.
    rows
        Rows to print.
    max_length
        Longest sequence, in tokens; longer ones are cut at the end.
    columns
        OURS=YOURS: the columns of the file by the names of a known layout, such as instruction=question.
    encoding
        Encoding of a file that is not UTF-8, such as gb18030 or big5.
    """
    from rich.console import Console

    from fairlead.cli.preflight import check_model
    from fairlead.cli.words import command_line
    from fairlead.data.load import kind_of
    from fairlead.data.starter import resolve_paths
    from fairlead.runtime.environment import cache_folder

    (file,) = resolve_paths([path], cache_folder())
    reading = _reading(columns, encoding)
    kind = kind_of(file, **reading)
    check_model(model, ("policy", "reward"), "model")
    from fairlead.data.show import show_file
    from fairlead.models.loading import load_tokenizer

    console = Console(highlight=False, soft_wrap=True)
    for text in show_file(file, load_tokenizer(model), num_rows=rows, max_length=max_length, **reading):
        console.print(text, "\n")
    print("green tokens are trained; <...> is a part of a character, as the tokenizer names it")
    if kind == "preferences":
        print("of a preference both responses are scored: reward and dpo learn from the difference")
    print(f"next: {command_line(*_training(kind), '--data', path, *_read_so(columns, encoding), *_named(model))}")


def audit(
    path: str,
    /,
    *,
    model: str = "smollm2-135m-instruct",
    max_length: Count = 512,
    against: Files = (),
    rows: Count = 4,
    limit: Count = 5000,
    output: str = "audit",
    seed: Seed = 42,
    columns: Files = (),
    encoding: str = "",
) -> None:
    """Check rows before a model learns from them: verdicts here and as a page; exit code 65 if one is fatal.

    Parameters
    ----------
    path
        A file or folder of rows, or the name of a starter dataset.
    model
        Whose tokenizer, chat template and embedding to check with: a folder, hub id or starter name.
    max_length
        Longest sequence of the training to come, in tokens.
    against
        Files or folders of evaluation questions that must not stand in the rows.
    rows
        Rows to show token by token.
    limit
        Rows whose tokens are checked, drawn by the seed; everything else is counted over all rows.
    output
        Folder of the page.
    seed
        Decides which rows are drawn.
    columns
        OURS=YOURS: the columns of the file by the names of a known layout, such as instruction=question.
    encoding
        Encoding of a file that is not UTF-8, such as gb18030 or big5.
    """
    from rich.console import Console

    from fairlead.artifacts.atomic import require_folder
    from fairlead.cli.preflight import check_model
    from fairlead.cli.words import command_line
    from fairlead.data.sources import expand
    from fairlead.data.starter import resolve_paths
    from fairlead.errors import ExitCode
    from fairlead.runtime.environment import cache_folder

    (file, *questions) = resolve_paths([path, *against], cache_folder())
    reading = _reading(columns, encoding)
    _require_there(expand([file, *questions]))
    check_model(model, ("policy", "reward"), "model")
    require_folder(Path(output), 0)
    from fairlead.data.audit.audit import audit_file
    from fairlead.data.audit.terminal import lines, sampled_rows
    from fairlead.evaluate.audit_page import audit_page

    tokenizer, facts = _tokenizer_and_facts(model)
    found = audit_file(
        file, tokenizer, facts, against=questions, max_length=max_length, num_samples=rows, limit=limit, seed=seed,
        **reading,
    )  # fmt: skip
    page = audit_page(Path(output), found)  # first, so that `| head` does not lose it
    console = Console(highlight=False, soft_wrap=True)
    for text in (*sampled_rows(found, tokenizer), *lines(found)):
        console.print(text)
    print(f"page: {page}")
    if found.verdict == "fatal":
        raise SystemExit(ExitCode.BAD_DATA)
    if found.kind != "documents":
        words = (*_training(found.kind), "--data", path, *_read_so(columns, encoding), *_named(model))
        print(f"next: {command_line(*words)}")


def _tokenizer_and_facts(model: str) -> tuple[Any, Any]:
    """The tokenizer of the model, and what the audit must know of the model beside it."""
    from fairlead.data.audit.model_facts import facts_of
    from fairlead.models.loading import num_embeddings_in, tokenizer_in
    from fairlead.models.sources import resolve

    folder = resolve(model).base.folder
    tokenizer = tokenizer_in(folder)
    return tokenizer, facts_of(model, tokenizer, num_embeddings_in(folder))


def _require_there(files: Sequence[Path]) -> None:
    from fairlead.data.streams import on_disk
    from fairlead.errors import ExitCode, UserError

    for file in dict.fromkeys(map(on_disk, files)):
        if not file.exists():
            raise UserError(
                "there is no such file", where=str(file), fix="check the path", exit_code=ExitCode.MISSING_INPUT
            )


def _reading(columns: Sequence[str], encoding: str) -> dict[str, Any]:
    """How the training commands read such a file; UserError as theirs for columns that are no pairs."""
    from fairlead.config.common import FilesConfig
    from fairlead.config.parse import Recipe, check

    files = check(FilesConfig, Recipe({"columns": list(columns), "encoding": encoding}))
    return {"columns": files.reading["columns"], "encoding": files.reading["encoding"]}


def _read_so(columns: Sequence[str], encoding: str) -> tuple[str, ...]:
    """The same for a training command."""
    named = ("--data.columns", ",".join(columns)) if columns else ()
    return (*named, "--data.encoding", encoding) if encoding else named


def _training(kind: str) -> tuple[str, ...]:
    """The verb that learns from rows of this kind, with what it needs."""
    verbs = {"preferences": ("reward",), "labelled answers": ("kto",), "prompts": ("ppo", "--reward-model", "RUN")}
    return verbs.get(kind, ("sft",))


def _named(model: str) -> tuple[str, ...]:
    return () if model == "smollm2-135m-instruct" else ("--model", model)
