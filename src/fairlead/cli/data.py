"""`fairlead data show PATH`: what a model would be trained on."""


def show(path: str, /, *, model: str = "smollm2-135m-instruct", rows: int = 3, max_length: int = 512) -> None:
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
    from fairlead.data.show import show as describe
    from fairlead.data.starter import STARTER_DATASETS, dataset_path
    from fairlead.models.loading import load_tokenizer
    from fairlead.runtime.environment import cache_folder

    file = dataset_path(path, cache_folder()) if path in STARTER_DATASETS else path
    print(describe(file, load_tokenizer(model), num_rows=rows, max_length=max_length))
    print(f"next: fairlead sft --data {path}")
