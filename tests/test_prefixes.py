"""Sequences that begin alike: every site of every family as if each had run alone, and less work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy import ndarray
from torch import Tensor

from actmax.model.subject import Subject
from actmax.search.prefixes import bases, run, shared_lengths
from test_subject import FAMILY_CASES, LAYERS, tiny

TOKENS, SWAPS = 6, 9


@pytest.fixture(scope="module", params=FAMILY_CASES)
def subject(request: pytest.FixtureRequest) -> Subject:
    return tiny(request.param)


def swapped(subject: Subject, parents: int = 3) -> Tensor:
    """Some sequences, each with copies that differ from it in one token."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = len(subject.embedding_matrix)
    rows = []
    for parent in torch.randint(vocabulary, (parents, TOKENS), generator=generator):
        for place in range(TOKENS):
            for token in torch.randint(vocabulary, (SWAPS,), generator=generator):
                rows.append(parent.clone())
                rows[-1][place] = token
    return torch.stack(rows)[torch.randperm(len(rows), generator=generator)]


def common(one: ndarray, two: ndarray) -> int:
    return int(np.cumprod(one == two).sum())


def test_splits_and_bases_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, size=(40, 5))
    found = shared_lengths(ids)
    for row, length in enumerate(found):
        others = [common(ids[row], ids[other]) for other in range(40) if other != row]
        assert length == min(4, max(others))
    chosen, own = bases(ids, found)
    assert len(chosen) == len(set(chosen)) < 40
    for row, length in enumerate(found):
        assert (own[row] == -1) == (length == 0)
        assert common(ids[row], ids[chosen[own[row]]]) >= length
    assert shared_lengths(ids[:1]).tolist() == [0]


def test_every_site_as_if_each_ran_alone(subject: Subject) -> None:
    ids = swapped(subject)
    sites = [site for site in subject.geometry.sites if site != "final_norm"]
    places = [(site, layer) for site in sites for layer in range(LAYERS)] + [("final_norm", None)]
    alone, together = subject.run(subject.embed(ids), places), run(subject, ids, places)
    assert together.keys() == alone.keys()
    for place, values in alone.items():
        assert torch.allclose(together[place], values, atol=1e-6, rtol=0), place
    other = run(subject, ids.flip(0), places)
    assert not torch.allclose(other[places[0]], alone[places[0]], atol=1e-3)


def test_what_is_shared_runs_once(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, ran = swapped(subject), []
    whole = Subject.run

    def watched(self: Subject, embeddings: Tensor, *others: object, **more: object) -> object:
        ran.append(embeddings.shape[:2].numel())
        return whole(self, embeddings, *others, **more)

    monkeypatch.setattr(Subject, "run", watched)
    run(subject, ids, [("resid_pre", 2)])
    assert sum(ran) < 0.65 * ids.numel()
    ran.clear()
    different = torch.randint(len(subject.embedding_matrix), (50, TOKENS), generator=torch.Generator().manual_seed(1))
    different[:, 0] = torch.arange(50)
    run(subject, different, [("resid_pre", 2)])
    assert ran == [different.numel()]  # nothing in common: in one piece


def test_nothing_stays_behind(subject: Subject) -> None:
    ids = swapped(subject, parents=1)
    first, _, second = (run(subject, some, [("resid_post", 1)]) for some in (ids, ids.flip(1), ids))
    assert torch.equal(first["resid_post", 1], second["resid_post", 1])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in subject.model.modules())
