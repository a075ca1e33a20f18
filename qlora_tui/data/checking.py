"""Check that a configuration's data exists and is usable: read the first rows without downloading or caching."""

from qlora_tui.config.data import DataSpec, SourceSpec
from qlora_tui.data.detect import SAMPLE_ROWS
from qlora_tui.data.load import load_source, read_rows
from qlora_tui.data.selection import HASHED_COLUMNS, hash_rows, refuse_too_many_eval_rows
from qlora_tui.data.sources import is_on_hub
from qlora_tui.data.splits import Purpose


def check_data(data: DataSpec) -> list[str]:
    """Read the first rows of every local source; return the names of the hub sources, which are not read.

    Raises NotFoundError for a missing file, DataError when format, columns, split or evaluation rows do not fit, and
    for an unreadable row among the first unless `data.skip_bad_rows`.
    """
    wanted: list[tuple[SourceSpec, Purpose]] = [(spec, "train") for spec in (data, *data.mix)]
    if data.eval_spec is not None:
        wanted.append((data.eval_spec, "eval"))
    unread = [spec.source for spec, _ in wanted if is_on_hub(spec.source)]
    for spec, purpose in wanted:
        if not is_on_hub(spec.source):
            load_source(spec, purpose=purpose, skip_bad_rows=data.skip_bad_rows, sample_rows=SAMPLE_ROWS)
    if data.eval_rows and data.eval_spec is None and not is_on_hub(data.source):
        refuse_too_many_eval_rows(data, _distinct_rows(data, data.eval_rows + 1))
    return list(dict.fromkeys(unread))


def _distinct_rows(data: DataSpec, most: int) -> int:
    """Count the distinct rows, up to `most`."""
    seen: set[int] = set()
    for row in read_rows(data, skip_bad_rows=data.skip_bad_rows).rows:
        seen.update(hash_rows({name: [row[name]] for name in HASHED_COLUMNS}))
        if len(seen) == most:
            break
    return len(seen)
