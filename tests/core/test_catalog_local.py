"""Records that were published here: no log can be missing them."""

from __future__ import annotations

from gateway.core.bodies import app_body
from gateway.core.catalog import LOCAL, Applied, Catalog, Stale
from gateway.core.model import App
from gateway.core.record import Record, RecordKind, encode


def test_a_record_published_here_is_no_logs_until_a_log_gives_it_back() -> None:
    catalog = Catalog("local")
    record = Record(RecordKind.APP, "tools", "w", 1, 1, False, app_body(App("tools")))
    assert catalog.fold(record) == Applied("app/tools", changed=True)
    catalog.begin_sweep("global")
    assert list(catalog.unswept("global")) == []
    assert catalog.fold(encode(record), source="global") == Stale("app/tools", older=False)
    assert catalog.live_count("global") == 1
    assert catalog.live_count(LOCAL) == 0
    assert catalog.digest("global") == catalog.digest()
    catalog.begin_sweep("global")
    assert list(catalog.unswept("global")) == ["app/tools"]
