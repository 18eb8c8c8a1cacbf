"""The index of triggers, and the anchors that neighbours bring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from onebar.embedding.encoder import Vectors, unit
from onebar.embedding.enrich import Past, merged
from onebar.embedding.index import (
    IndexCorruptError,
    IndexMismatchError,
    VectorIndex,
    VectorIndexError,
)
from onebar.embedding.neighbors import NeighborConfig, neighbor_anchors
from onebar.embedding.queries import KnownQueries
from onebar.evaluation.anchors import both, near, own, quality
from onebar.evaluation.predict import material_of, prompt_of
from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.records import Anchor
from onebar.triggers import Trigger
from stream.workers.neighbors import open_index

DIM = 8


def vectors(count: int, seed: int = 0) -> Vectors:
    return unit(np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32))


def names(count: int) -> list[str]:
    return [f"v{number}" for number in range(count)]


class TestIndex:
    def test_the_nearest_are_those_of_the_whole_comparison(self) -> None:
        rows = vectors(300)
        index = VectorIndex("space", DIM)
        index.put(names(300), rows)
        asked = vectors(20, seed=1)
        for one, found in zip(asked, index.nearest(asked, 5), strict=True):
            cosines = rows @ one
            best = [f"v{at}" for at in np.argsort(-cosines)[:5]]
            assert [each.name for each in found] == best
            for each in found:
                assert each.similarity == pytest.approx(cosines[int(each.name[1:])], abs=1e-3)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), max_size=40))
    def test_it_holds_the_newest_vector_of_each_video(self, puts: list[tuple[int, int]]) -> None:
        rows = vectors(30)
        index = VectorIndex("space", DIM)
        expected: dict[str, int] = {}
        for video, row in puts:
            if row == 30:
                index.remove(f"v{video}")
                expected.pop(f"v{video}", None)
            else:
                index.put([f"v{video}"], rows[row : row + 1])
                expected[f"v{video}"] = row
        assert len(index) == len(expected)
        for video_id, row in expected.items():
            found = index.nearest(rows[row : row + 1], 10)[0]
            assert found[0].similarity == pytest.approx(1.0, abs=1e-3)
            assert video_id in {n.name for n in found if n.similarity > 0.999}

    def test_a_batch_that_names_a_video_twice_takes_the_last(self) -> None:
        index = VectorIndex("space", DIM)
        index.put(["a", "a"], vectors(2))
        assert len(index) == 1
        assert index.nearest(vectors(2)[1:], 1)[0][0].similarity == pytest.approx(1.0, abs=1e-3)

    def test_what_has_no_vector_is_near_nothing(self) -> None:
        index = VectorIndex("space", DIM)
        index.put(["empty", "full"], np.vstack([np.zeros((1, DIM)), vectors(1)]).astype("f4"))
        assert len(index) == 1
        assert index.nearest(np.zeros((1, DIM), dtype=np.float32), 3) == [[]]

    def test_vectors_of_another_width_are_refused(self) -> None:
        index = VectorIndex("space", DIM)
        with pytest.raises(IndexMismatchError, match="width 8"):
            index.put(["a"], np.ones((1, 3), dtype=np.float32))
        with pytest.raises(IndexMismatchError, match="another embedder"):
            index.nearest(np.ones((1, 3), dtype=np.float32), 1)

    def test_a_snapshot_is_the_same_index_and_goes_on(self, tmp_path: Path) -> None:
        index = VectorIndex("space", DIM)
        rows = vectors(40)
        index.put(names(30), rows[:30])
        index.remove("v3")
        index.save(tmp_path / "snapshot")
        index.save(tmp_path / "snapshot")
        loaded = VectorIndex.load(tmp_path / "snapshot")
        assert (len(loaded), loaded.space, loaded.dim) == (29, "space", DIM)
        assert loaded.nearest(rows[:5], 4) == index.nearest(rows[:5], 4)
        loaded.put(["new"], rows[35:36])
        assert loaded.nearest(rows[35:36], 1)[0][0].name == "new"
        assert "v3" not in loaded

    @pytest.mark.parametrize("name", ["vectors.usearch", "ids.json", "index.json"])
    def test_a_snapshot_cut_short_is_named(self, tmp_path: Path, name: str) -> None:
        index = VectorIndex("space", DIM)
        index.put(names(30), vectors(30))
        index.save(tmp_path / "snapshot")
        path = tmp_path / "snapshot" / name
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(IndexCorruptError, match="snapshot"):
            VectorIndex.load(tmp_path / "snapshot")

    def test_another_directory_is_not_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("x")
        with pytest.raises(VectorIndexError, match="choose another"):
            VectorIndex("space", DIM).save(tmp_path)


class TestSnapshotOfAWorker:
    def test_only_one_of_its_own_space_is_gone_on_from(self, tmp_path: Path) -> None:
        path = tmp_path / "index"
        index = VectorIndex("letters", 26)
        index.put(["v"], Letters().encode(["abc"]))
        index.save(path, {"onebar.videos/0": 7})
        found = open_index(path, Letters())
        assert (len(found), found.offsets) == (1, {"onebar.videos/0": 7})
        other = VectorIndex("numbers", 26)
        other.put(["v"], Letters().encode(["abc"]))
        other.save(path)
        assert len(open_index(path, Letters())) == 0
        assert len(open_index(None, Letters())) == 0

    def test_what_is_no_index_is_told_before_anything_starts(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("x")
        with pytest.raises(VectorIndexError, match="choose another"):
            open_index(tmp_path, Letters())


def anchor(query: str, weight: float) -> Anchor:
    return Anchor(query, weight)


def alike(queries: Sequence[str]) -> list[float]:
    return [1.0] * len(queries)


class TestNeighborAnchors:
    def test_what_fits_the_video_comes_first_and_what_does_not_is_left_out(self) -> None:
        near = {"tent": 0.9, "stove": 0.7, "lipstick": 0.1}
        voices = [(0.9, [anchor("lipstick", 8.0), anchor("stove", 3.0), anchor("tent", 2.0)])]

        def asked(config: NeighborConfig) -> list[str]:
            found = neighbor_anchors(voices, (), lambda queries: [near[q] for q in queries], config)
            return [a.query for a in found]

        assert asked(NeighborConfig(threshold=-1.0)) == ["tent", "stove", "lipstick"]
        assert asked(NeighborConfig(threshold=0.7)) == ["tent", "stove"]
        voices_alone = NeighborConfig(threshold=-1.0, temperature=math.inf)
        assert asked(voices_alone) == ["lipstick", "stove", "tent"]
        assert neighbor_anchors([], (), alike, NeighborConfig()) == ()

    def test_a_neighbour_has_one_voice_as_loud_as_it_is_near(self) -> None:
        found = neighbor_anchors(
            [
                (0.9, [anchor("a", 300.0), anchor("b", 100.0)]),
                (0.5, [anchor("b", 1.0)]),
            ],
            (),
            alike,
            NeighborConfig(),
        )
        assert [a.query for a in found] == ["b", "a"]
        assert [a.weight for a in found] == pytest.approx([0.9 * 0.25 + 0.5, 0.9 * 0.75])
        assert {a.source for a in found} == {"neighbor"}

    @given(st.permutations([(0.9, "ab"), (0.8, "bc"), (0.95, "cd"), (0.89, "a")]))
    def test_the_order_of_neighbours_says_nothing(self, order: list[tuple[float, str]]) -> None:
        def anchors(order: Sequence[tuple[float, str]]) -> list[str]:
            given = [(s, [anchor(query, 1.0) for query in queries]) for s, queries in order]
            return [a.query for a in neighbor_anchors(given, (), alike, NeighborConfig())]

        assert anchors(order) == anchors(sorted(order))

    def test_the_log_is_one_more_voice(self) -> None:
        """What only the log proposes says so; what neighbours do as well is theirs."""
        voices = [(0.5, [anchor("both", 1.0), anchor("asked", 1.0)])]
        config = NeighborConfig(loudness=3.0)
        found = neighbor_anchors(voices, ("both", "known", "other"), alike, config)
        assert [(a.query, a.source) for a in found] == [
            ("both", "neighbor"), ("known", "retrieved"), ("other", "retrieved"),
            ("asked", "neighbor"),
        ]  # fmt: skip
        assert [a.weight for a in found] == pytest.approx([1.25, 1.0, 1.0, 0.25])
        near = {"known": 0.9, "other": 0.1}
        alone = neighbor_anchors([], near, lambda queries: [near[q] for q in queries], config)
        assert [a.query for a in alone] == ["known"]

    def test_it_is_bounded(self) -> None:
        many = [(0.9, [anchor(f"q{n}-{m}", 1.0) for m in range(50)]) for n in range(50)]
        assert len(neighbor_anchors(many, (), alike, NeighborConfig(limit=5))) == 5


class Letters:
    """One axis a letter."""

    name = "letters"
    dim = 26

    def encode(self, texts: Sequence[str]) -> Vectors:
        found = np.zeros((len(texts), 26), dtype=np.float32)
        for at, text in enumerate(texts):
            for letter in text:
                if letter.isalpha():
                    found[at, ord(letter) - 97] += 1
        return unit(found)


asks = st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from(["ab", "bc", "cd", "d"])))


class TestKnownQueries:
    def test_a_query_of_one_user_is_known_to_nobody_else(self) -> None:
        known = KnownQueries(Letters())
        known.note([("u", "aab"), ("u", "aab"), ("u", "xyz"), ("v", "xyz")])
        assert set(known.index) == {"xyz"}
        known.note([("w", "aab")])
        found = known.nearest(Letters().encode(["aab"]), 2)
        assert [each.name for each in found[0]] == ["aab", "xyz"]

    @given(asks, st.integers(0, 9))
    def test_how_the_log_is_cut_into_batches_says_nothing(
        self, asked: list[tuple[str, str]], at: int
    ) -> None:
        once, twice = KnownQueries(Letters()), KnownQueries(Letters())
        once.note(asked)
        twice.note(asked[:at])
        twice.note(asked[at:])
        users = {query: {u for u, q in asked if q == query} for _, query in asked}
        known = {query for query, who in users.items() if len(who) > 1}
        assert set(once.index) == set(twice.index) == known

    @given(asks)
    def test_those_asked_last_are_kept(self, asked: list[tuple[str, str]]) -> None:
        whole, few = KnownQueries(Letters()), KnownQueries(Letters(), most=2)
        for one in asked:
            whole.note([one])
            few.note([one])
        assert len(few) <= 2
        assert set(few.index) <= set(whole.index)

    def test_a_query_without_a_vector_is_left_out(self) -> None:
        known = KnownQueries(Letters())
        known.note([(user, "42") for user in "uvw"])
        assert len(known) == 0

    def test_a_snapshot_is_gone_on_from(self, tmp_path: Path) -> None:
        known = KnownQueries(Letters())
        known.note([("u", "ab"), ("v", "ab"), ("u", "waits")])
        known.index.save(tmp_path / "queries")
        again = KnownQueries(Letters(), VectorIndex.load(tmp_path / "queries"), most=1)
        again.note([("u", "ab"), ("u", "cd"), ("v", "cd")])
        assert set(again.index) == {"cd"}


def trigger(number: int, video: str, text: str, *anchors: str, target: str = "") -> Trigger:
    return Trigger(
        trigger_id=f"t{number}", kind="click", ts=float(number), video_id=video, text=text,
        anchors=anchors, target=target, video_behaviors=len(anchors),
    )  # fmt: skip


class TestEnrich:
    log = (
        trigger(0, "v0", "aab", "ab"),
        trigger(1, "new", "aab"),
        trigger(2, "v0", "aab", "ab", "aabb"),
        trigger(3, "far", "xyz", "elsewhere"),
        trigger(4, "new", "aab", "own", target="aabb"),
    )

    def test_neighbours_have_what_they_had_by_then(self) -> None:
        found = list(Past(Letters(), 8, 8).follow(self.log))
        config = NeighborConfig(threshold=0.9)
        asked = [[anchor.query for anchor in each.anchors(config)] for each in found]
        assert asked == [[], ["ab"], [], [], ["ab", "aabb"]]

    def test_the_future_changes_nothing(self) -> None:
        whole = list(Past(Letters(), 8, 8).follow(self.log))
        for end in range(len(self.log)):
            assert list(Past(Letters(), 8, 8).follow(self.log[:end])) == whole[:end]

    def test_what_others_asked_before_is_retrieved(self) -> None:
        def asking(number: int, user: str, *recent: str) -> Trigger:
            asked = trigger(number, f"v{number}", "aab")
            return structs.replace(asked, user_id=user, recent=recent)

        log = [asking(0, "u", "aa", "ab"), asking(1, "v", "ab"), asking(2, "u", "aa")]
        found = list(Past(Letters(), 8, 8).follow([*log, asking(3, "w")]))
        assert [each.retrieved for each in found] == [(), (), ("ab",), ("ab",)]
        [anchors] = found[3].anchors(NeighborConfig(threshold=0.9))
        assert (anchors.query, anchors.source) == ("ab", "retrieved")
        assert not list(Past(Letters(), 8, 0).follow(log))[2].retrieved

    def test_own_anchors_stand_before_the_neighbours(self) -> None:
        last = list(Past(Letters(), 8, 8).follow(self.log))[-1]
        config = NeighborConfig(threshold=0.9)
        assert merged(last, config, 2).anchors == ("own", "ab")
        assert merged(last, config, 8).anchors == ("own", "ab", "aabb")

    @pytest.mark.parametrize("own", [(), ("own",), ("own", "more")])
    def test_own_anchors_are_told_from_the_neighbours(self, own: tuple[str, ...]) -> None:
        last = structs.replace(self.log[-1], anchors=own, anchor_weights=(2.0,) * len(own))
        *_, found = Past(Letters(), 8, 8).follow([*self.log[:-1], last])
        made = merged(found, NeighborConfig(threshold=0.9), 8)
        assert made.anchors == (*own, "ab", "aabb")
        assert made.own_evidence == last.evidence
        sources = [anchor.source for anchor in material_of(made).anchors]
        assert sources == ["behavior"] * len(own) + ["neighbor"] * 2
        config = PromptConfig()
        assert prompt_of(made, config) == build_prompt(last.evidence, config)
        reads = structs.replace(config, neighbors=True)
        assert prompt_of(made, reads) == build_prompt(made.evidence, reads)

    def test_what_nobody_wants_is_only_learned_from(self) -> None:
        whole = list(Past(Letters(), 8, 8).follow(self.log))
        found = list(Past(Letters(), 8, 8).follow(self.log, lambda one: one == self.log[-1]))
        assert found[-1] == whole[-1]
        assert [each.trigger for each in found] == list(self.log)
        assert not any(each.near for each in found[:-1])

    def test_quality_counts_the_clicked_query(self) -> None:
        last = list(Past(Letters(), 8, 8).follow(self.log))[-1:]
        config = NeighborConfig(threshold=0.9)
        assert quality(last, own).hit_rate == 0.0
        found = quality(last, near(config))
        assert (found.hit_rate, found.recall[1], found.recall[4], found.size) == (
            1.0,
            0.0,
            1.0,
            2.0,
        )
        assert quality(last, both(config)).size == 3.0
        assert quality([], own).triggers == 0
