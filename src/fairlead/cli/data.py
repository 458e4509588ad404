"""`fairlead data show PATH`: what a model would be trained on."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

Count = Annotated[int, Parameter(validator=Number(gte=1))]


def show(path: str, /, *, model: str = "smollm2-135m-instruct", rows: Count = 3, max_length: Count = 512) -> None:
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
    """
    from rich.console import Console

    from fairlead.cli.preflight import check_model
    from fairlead.cli.words import command_line
    from fairlead.data.load import kind_of
    from fairlead.data.starter import resolve_paths
    from fairlead.runtime.environment import cache_folder

    (file,) = resolve_paths([path], cache_folder())
    kind = kind_of(file)
    verbs = {
        "preferences": ("reward",), "labelled answers": ("kto",), "prompts": ("ppo", "--reward-model", "RUN"),
    }  # fmt: skip
    verb = verbs.get(kind, ("sft",))
    check_model(model, ("policy", "reward"), "model")
    from fairlead.data.show import show_file
    from fairlead.models.loading import load_tokenizer

    console = Console(highlight=False, soft_wrap=True)
    for text in show_file(file, load_tokenizer(model), num_rows=rows, max_length=max_length):
        console.print(text, "\n")
    named = () if model == "smollm2-135m-instruct" else ("--model", model)
    print("green tokens are trained; <...> is a part of a character, as the tokenizer names it")
    if kind == "preferences":
        print("of a preference both responses are scored: reward and dpo learn from the difference")
    print(f"next: {command_line(*verb, '--data', path, *named)}")
