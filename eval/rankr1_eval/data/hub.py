"""Rows from the hub, by `datasets`, which the extra `hub` installs. Knows no data set by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rankr1_eval.data.dataset import Hub, Json

INSTALL = 'pip install "rankr1-eval[hub]"'


def opened(hub: Hub, split: str) -> Any:  # noqa: ANN401
    """The split as a `datasets.Dataset`, fetched once and kept in the cache of `datasets`.

    ImportError without the extra, ValueError for a split that is not there, ConnectionError where it cannot be had.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(f"reading {hub.id} from the hub needs datasets: {INSTALL}, or give a local file") from error
    if hub.files and split not in hub.files:
        raise ValueError(f"split {split!r}: {hub.id} has {', '.join(hub.files)}")
    try:
        if not hub.files:
            return load_dataset(hub.id, hub.config, split=split)
        return load_dataset("parquet", data_files={split: hub.files[split]}, split=split)
    except ValueError:
        raise
    except Exception as error:  # of the library that met the network, which is another one from version to version
        raise unreachable(hub.id, error) from error


def unreachable(what: str, error: Exception) -> ConnectionError:
    """The error for what could not be fetched."""
    return ConnectionError(f"{what} could not be fetched ({error!s:.300}): try again, or give local files")


def rows(table: Any) -> Iterator[tuple[None, Json]]:  # noqa: ANN401
    """The rows of a `datasets.Dataset` as `local.records` gives those of a file."""
    for row in table:
        yield None, row
