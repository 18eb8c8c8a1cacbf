"""The histogram of many values at once is the library's, to the sample."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.samples import Sample

from stream.workers.metrics import BatchHistogram

BOUNDS = (0.002, 0.5, 1.0, 60.0)
VALUES = st.one_of(st.sampled_from([0.0, *BOUNDS]), st.floats(0, 1000))


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    found: list[Sample] = [sample for family in registry.collect() for sample in family.samples]
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for sample in found
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.lists(VALUES, max_size=5), max_size=4))
def test_it_shows_what_the_library_would(batches: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = BatchHistogram("h", "a histogram", BOUNDS, registry=ours)
    library = Histogram("h", "a histogram", buckets=BOUNDS, registry=theirs)
    for batch in batches:
        mine.observe_all(batch)
        for value in batch:
            library.observe(value)
    assert samples(ours) == samples(theirs)
