"""Maximum-activating examples: what a search through all positions at once finds, streamed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from actmax.errors import InputError
from actmax.evidence.meaning import centred, measure_meaning, rotations
from actmax.evidence.readings import MeaningStatus, Verdict
from actmax.model.subject import Subject
from actmax.model.target import Unit
from actmax.report.words import contexts_statement
from actmax.tasks.examples.find import Examples, find_examples
from actmax.tasks.examples.meaning import passages_in_common
from actmax.text.files import text_files
from actmax.text.settings import MeaningSettings
from actmax.text.windows import Window, windows
from cli import QUICK, Actmax, Ran

TEXT = "The quick brown fox jumps over the lazy dog.\nPack my box with five dozen liquor jugs!\n" * 3
UNITS = [Unit("resid_post", 1, 3), Unit("mlp_post", 0, 17), Unit("final_norm", None, 5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text(TEXT)
    (tmp_path / "text" / "b.txt").write_text("How vexingly quick daft zebras jump; é")
    return tmp_path / "text"


def test_windows_cover_every_token_once(subject: Subject, folder: Path) -> None:
    found = list(windows(subject, text_files(folder), size=11, before=(256,)))
    for file in ("a.txt", "b.txt"):
        own = [window for window in found if window.source.endswith(file)]
        ids = [token for window in own for token in window.ids[1:]]
        assert ids == subject.tokenizer((folder / file).read_text(), add_special_tokens=False)["input_ids"]
        assert [window.start for window in own] == [10 * number for number in range(len(own))]
        assert all(window.ids[0] == 256 for window in own)
        assert max(len(window.ids) for window in own) == 11


def test_the_highest_contexts_are_those_of_a_search_over_everything(subject: Subject, folder: Path) -> None:
    text = list(windows(subject, text_files(folder), size=16, before=(256,)))
    found = find_examples(subject, UNITS, text, top=4, seed=0, rows=3, context=2)
    places = [(unit.site, unit.layer) for unit in UNITS]
    everything: dict[Unit, list[np.ndarray]] = {unit: [] for unit in UNITS}
    for window in text:
        read = subject.run(subject.embedding_matrix[torch.tensor([window.ids])], places)
        for unit in UNITS:
            everything[unit].append(read[unit.site, unit.layer][0, 1:, unit.index].numpy())
    assert found.positions == sum(len(window.ids) - 1 for window in text)
    for number, unit in enumerate(UNITS):
        rows = found.contexts.iloc[4 * number : 4 * number + 4]
        expected = sorted((values.max() for values in everything[unit]), reverse=True)[:4]
        assert rows["activation"].tolist() == pytest.approx(expected, rel=1e-9)
        assert rows["rank"].tolist() == [1, 2, 3, 4]
        flat = np.concatenate(everything[unit])
        row = found.quantiles.iloc[number]
        assert row["q0.5"] == pytest.approx(np.median(flat))
        assert row["q1"] == pytest.approx(flat.max())
        assert [row["mean"], row["sd"]] == pytest.approx([flat.mean(), flat.std()])
        best = rows.iloc[0]
        ids = subject.tokenizer(Path(best["file"]).read_text(), add_special_tokens=False)["input_ids"]
        assert subject.token(ids[best["position"]]) == best["token"]
        place = text[int(np.argmax([values.max() for values in everything[unit]]))]
        assert best["position"] - place.start == int(np.argmax(max(everything[unit], key=np.max)))


def test_begin_of_text_never_counts(subject: Subject) -> None:
    found = find_examples(subject, UNITS[:1], windows_of(subject, "abcdef"), top=1, seed=0)
    assert found.positions == 6
    assert found.contexts["token"].iloc[0] in "abcdef"


def windows_of(subject: Subject, text: str) -> list:
    return [Window((256, *subject.tokenizer(text, add_special_tokens=False)["input_ids"]), "t", 0)]


def test_quantiles_of_a_choice_are_near_those_of_all(subject: Subject, folder: Path) -> None:
    text = list(windows(subject, text_files(folder), size=16, before=(256,)))
    everything = find_examples(subject, UNITS, text, top=1, seed=0).quantiles
    some = find_examples(subject, UNITS, text, top=1, seed=0, sample=150).quantiles
    again = find_examples(subject, UNITS, text, top=1, seed=0, sample=150).quantiles
    assert some.equals(again)
    assert not some.equals(everything)
    assert (np.abs(some["q0.5"] - everything["q0.5"]) < 0.5 * everything["sd"]).all()
    assert some["q1"].equals(everything["q1"])


def test_text_that_is_not_there(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=r"^place="):
            text_files(place)
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(InputError, match="UTF-8") as caught:
        text_files(tmp_path)
    assert caught.value.key.endswith("a.txt:2")


def test_the_experiment_sets_a_maximization_beside(actmax: Actmax, folder: Path) -> None:
    unit = ("subject=tiny", "unit.layer=2", "unit.index=[3,4]", "logger=none")
    assert actmax("steps=3", "seeds=[0,1]", "tokens=4", *unit[:2], "unit.index=3", *QUICK, "sweep=m").code == 0
    (record,) = (folder.parent / "outputs" / "m").glob("tiny*")
    ran = actmax(
        "experiment=max_examples",
        *unit,
        f"examples.text={folder}",
        f"examples.record={record}",
        "examples.top=3",
        "meaning.embedder=none",
    )
    assert ran.code == 0, ran.err
    (job,) = (folder.parent / "outputs" / "max_examples").glob("tiny*")
    assert len(pd.read_parquet(job / "contexts.parquet")) == 6
    quantiles = pd.read_parquet(job / "quantiles.parquet").set_index("index")
    optimized = pd.read_parquet(record / "restarts.parquet")["activation_final"]
    assert quantiles.loc[3, "optimized_mean"] == pytest.approx(optimized.mean())
    assert quantiles.loc[3, "restarts"] == 2
    gaps = pd.read_parquet(record / "gaps.parquet")
    assert np.isfinite(quantiles.loc[3, "snapped_mean"])
    assert quantiles.loc[3, "snapped_max"] == pytest.approx(gaps["activation_snapped"].max())
    assert pd.isna(quantiles.loc[4, "optimized_mean"])
    summary = json.loads((job / "summary.json").read_text())
    assert "snapped to tokens" in contexts_statement(summary)
    assert summary["findings"] == []
    assert not (job / "findings.parquet").exists()
    assert summary["positions"] > 250
    assert "Where the units are highest" in ran.out


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("examples.text=null", "examples.text=None"),
        ("examples.text=nowhere", "examples.text=nowhere"),
        ("examples.window=65", "examples.window=65"),
        ("examples.record=nowhere", "examples.record=nowhere"),
        ("context.token=<s>", "context.token=<s>"),
        ("unit.index=96", "unit.index=96"),
    ],
)
def test_bad_input(actmax: Actmax, folder: Path, override: str, key: str) -> None:
    ran = actmax("experiment=max_examples", "subject=tiny", f"examples.text={folder}", override)
    assert ran.code == 2, ran.err
    assert key in ran.err
    assert not ran.jobs


class TestMeaning:
    """Whether passages in which a unit is highest are about the same things."""

    FILLER = (
        "It was not so long before they had gone there again.",
        "Nobody had asked him why he would not.",
        "The committee met on Thursday and voted twice.",
        "Her brother bought a red bicycle for ten pounds.",
        "In the garden the roses need more light.",
        "Prices rose by two per cent over the last year.",
        "He cooked rice with onions and a little salt.",
        "The judge read the sentence in a low voice.",
    )
    SEA = (
        "The ship left the harbour for the sea.",
        "A sailor on the deck saw the waves of the ocean.",
        "The boat sailed along the coast to the port.",
        "A storm at sea sank the fishing boats.",
        "The captain steered the vessel past the island.",
    )

    def text(self, rng: np.random.Generator, planted: set[int], windows: int) -> list[Window]:
        """Windows of a sentence each; those that are planted are about the sea."""
        sentences = [str(rng.choice(self.SEA if number in planted else self.FILLER)) for number in range(windows)]
        return [Window((256, *sentence.encode()), "t", 0) for sentence in sentences]

    def found(self, places: dict[Unit, list[int]], windows: int) -> Examples:
        unused = pd.DataFrame()
        return Examples(
            unused, unused, 0, {unit: [(number, 9) for number in some] for unit, some in places.items()}, windows
        )

    def test_planted_passages_are_alike_and_others_are_not(self, subject: Subject) -> None:
        planted = {3, 20, 31, 47, 66, 90}
        text = self.text(np.random.default_rng(0), planted, 120)
        places = {UNITS[0]: sorted(planted), UNITS[1]: [5, 22, 35, 50, 70, 99]}
        settings = MeaningSettings(embedder="wordllama")
        rows, theme = passages_in_common(subject, settings, self.found(places, 120), text, context=60, before=1)
        assert [row["meaning_status"] for row in rows] == [MeaningStatus.OK] * 2
        assert rows[0]["null_meaning_p"] <= 0.03
        assert rows[1]["null_meaning_p"] > 0.05
        assert rows[0]["null_own_meaning_p"] <= 0.05
        assert rows[0]["verdict_meaning"] in (Verdict.REPRODUCIBLE, Verdict.PARTLY, Verdict.DETECTABLE)
        assert rows[1]["verdict_meaning"] == Verdict.CHANCE
        assert theme is None  # one token per byte: there are no words to make it of

    def test_what_lies_close_together_is_no_evidence(self) -> None:
        """Neighbouring passages of a text are alike; a unit that is highest in one stretch of it has said nothing."""
        rates = {"rotations": 0.0, "any passages": 0.0}
        repetitions = 300
        for number in range(repetitions):
            rng = np.random.default_rng(number)
            walk = np.cumsum(rng.normal(size=(300, 16)), axis=0)  # what a text is about changes slowly
            vectors = centred(walk, walk.mean(0))
            places = rng.integers(300) + np.arange(6) * 3
            drawn = {
                "rotations": rotations(places % 300, total=300, draws=199, seed=0),
                "any passages": rng.integers(0, 300, (199, 6)),
            }
            for name, rows in drawn.items():
                chance = vectors[rows]
                p = measure_meaning(vectors[places % 300], 0.0, chance, chance[:0, 0], best_of=0).null.p
                rates[name] += (p <= 0.05) / repetitions
        assert rates["rotations"] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
        assert rates["any passages"] > 0.9

    def test_the_distances_of_places_are_kept(self) -> None:
        places = np.array([2, 17, 40])
        found = rotations(places, total=50, draws=20, seed=1)
        assert len(found) == len(np.unique(found[:, 0])) == 20
        assert (np.diff(found, axis=1) % 50 == np.diff(places)).all()
        assert not (found == places).all(1).any()

    def test_a_job_says_what_its_passages_have_in_common(self, actmax: Actmax, folder: Path) -> None:
        asked = ("experiment=max_examples", "subject=tiny", "unit.layer=2", "unit.index=[3,4]", "logger=none")
        options = (f"examples.text={folder}", "examples.top=3", "examples.window=10")
        ran = actmax(*asked, *options, "page=true")
        assert ran.code == 0, ran.err
        quantiles, summary = (pd.read_parquet(ran.job / "quantiles.parquet"), json.loads(self.summary(ran)))
        findings = pd.read_parquet(ran.job / "findings.parquet")
        named = findings[findings["measure"] == "meaning"]
        assert named["observed"].tolist() == quantiles["meaning"].tolist()
        assert named["claimed"].tolist() == (quantiles["null_meaning_p"] <= 0.05).tolist()
        assert "In meaning the passages where it is highest" in contexts_statement(summary)
        assert "What the passages have in common" in (ran.job / "report.html").read_text()
        first = ran.job
        plain = actmax(*asked, *options, "meaning.embedder=none")
        assert plain.code == 0, plain.err
        (other,) = set(plain.jobs) - {first}  # another job, without a column on meaning
        assert not any("meaning" in name for name in pd.read_parquet(other / "quantiles.parquet"))

    def summary(self, ran: Ran) -> str:
        return (ran.job / "summary.json").read_text()
