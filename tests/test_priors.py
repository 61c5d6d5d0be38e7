"""Priors: what each lowers, what its formula is, how its weight is set; and what a parameterization keeps."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from scipy.optimize import linprog
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn.functional import cosine_similarity

from actmax.app import config
from actmax.choices import choices
from actmax.errors import InputError
from actmax.maximize import priors, settings
from actmax.maximize.module import Maximization
from actmax.maximize.optimizee import Direct, Mixture, Parameterization, Principal, initial, scaled
from actmax.maximize.priors import L2, PRIORS, Fluency, Manifold, Norm, Prior, Seen, Smooth, coefficients
from actmax.model.nearest import Vocabulary
from actmax.model.objective import LAST, Objective, Row
from actmax.model.subject import Subject, load
from actmax.model.target import Unit
from actmax.tasks.maximization.task import parameterizations, prior_terms
from cli import QUICK, Actmax
from test_config import composed
from test_maximization import rows, trainer

UNIT = Unit("resid_pre", 2, 7)
STEPS, LR = 25, 0.01
SEEDS = (0, 1, 2, 3)
TERMS = {
    "l2": L2(1.0),
    "norm": Norm(1.0),
    "manifold": Manifold(1.0),
    "fluency": Fluency(1.0, temperature=0.05),
    "smooth": Smooth(1.0),
}
CASES = [*TERMS, "pca", "simplex", "l2+fluency", "pca+manifold+smooth", "simplex+norm"]


def parts(subject: Subject, case: str) -> dict[str, Any]:
    """The priors and the parameterization of a case such as `pca+manifold`."""
    names = case.split("+")
    found: Parameterization = Direct()
    if "pca" in names:
        found = Principal(subject.embedding_matrix, 6)
    if "simplex" in names:
        found = Mixture(Vocabulary(subject.embedding_matrix), 0.1, 0.03)
    return {"priors": [TERMS[name] for name in names if name in TERMS], "parameterization": found}


def module_of(subject: Subject, job: list[Row], start: Tensor | None = None, **options: Any) -> Maximization:
    if start is None:
        start = initial(scaled(subject.embedding_matrix, 5), [row.seed for row in job])
    return Maximization(subject, job, start, **{"objective": Objective(), "steps": STEPS, "lr": LR, **options})


def fitted(subject: Subject, job: list[Row], start: Tensor | None = None, **options: Any) -> Maximization:
    module = module_of(subject, job, start, **options)
    trainer(module.steps).fit(module)
    return module


def seen(subject: Subject, embeddings: Tensor) -> Seen:
    hidden = subject.run(embeddings, [LAST])[LAST]
    return Seen(embeddings, Vocabulary(subject.embedding_matrix), hidden, subject.logits)


@pytest.fixture(scope="module")
def noise(subject: Subject) -> Tensor:
    return initial(scaled(subject.embedding_matrix, 5), SEEDS).double()


@pytest.fixture(scope="module")
def free(subject: Subject) -> Maximization:
    """Without any prior."""
    return fitted(subject, rows(*SEEDS))


@pytest.fixture(scope="module")
def mixed(subject: Subject) -> Maximization:
    return fitted(subject, rows(*SEEDS), **parts(subject, "simplex"))


class TestLowers:
    @pytest.mark.parametrize("name", TERMS)
    def test_what_it_says_in_every_restart(self, subject: Subject, free: Maximization, name: str) -> None:
        prior = replace(TERMS[name], weight=3.0)
        kept = fitted(subject, rows(*SEEDS), priors=[prior])
        with_it, without = (kept.prior_values(one.embedding)[name] for one in (kept, free))
        share = 0.99 if name == "fluency" else 0.97  # a random model predicts nothing well
        assert (with_it < share * without).all(), (with_it, without)
        assert torch.equal(kept.initial, free.initial)

    @pytest.mark.parametrize("name", TERMS)
    def test_but_not_with_weight_0(self, subject: Subject, free: Maximization, name: str) -> None:
        weightless = fitted(subject, rows(*SEEDS), priors=[replace(TERMS[name], weight=0.0)])
        assert (weightless.coefficients == 0).all()
        assert torch.allclose(weightless.embedding, free.embedding, rtol=0, atol=1e-12)

    def test_and_more_with_more_weight(self, subject: Subject) -> None:
        lengths = [fitted(subject, rows(0), priors=[L2(weight)]).embedding.norm().item() for weight in (0.1, 1.0, 4.0)]
        assert lengths[0] > lengths[1] > lengths[2]

    def test_the_objective_still_rises_under_a_parameterization(self, subject: Subject) -> None:
        for case in ("pca", "simplex"):
            _, _, start, end = fitted(subject, rows(*SEEDS), **parts(subject, case)).outcome()
            assert (end > start + 0.005).all(), case


class TestValues:
    def test_l2_norm_and_smooth_are_their_formulas(self, subject: Subject, noise: Tensor) -> None:
        mean = subject.embedding_matrix.norm(dim=1).mean().item()
        view = seen(subject, noise)
        for number, row in enumerate(noise):
            lengths = [math.sqrt(sum(float(x) ** 2 for x in token)) for token in row]
            gaps = [float((after - before).norm()) / mean for before, after in pairwise(row)]
            expected = {
                "l2": sum(length**2 for length in lengths),
                "norm": sum((length / mean - 1) ** 2 for length in lengths) / 5,
                "smooth": sum(gap**2 for gap in gaps) / 4,
            }
            for name, value in expected.items():
                assert TERMS[name].value(view)[number].item() == pytest.approx(value, rel=1e-12)

    @pytest.mark.parametrize("k", [1, 10, 257])
    def test_manifold_is_brute_force(self, subject: Subject, noise: Tensor, k: int) -> None:
        matrix = subject.embedding_matrix
        mean = matrix.norm(dim=1).mean()
        distances = (torch.cdist(noise, matrix[None], compute_mode="donot_use_mm_for_euclid_dist") / mean) ** 2
        near = distances.sort(dim=2).values[..., :k]
        expected = (-0.2 * (-near / 0.2).exp().mean(2).log()).mean(1)
        found = Manifold(1.0, k=k, temperature=0.2).value(seen(subject, noise))
        assert torch.allclose(found, expected, rtol=1e-12, atol=0)
        assert ((near[..., 0].mean(1) - 1e-12 <= found) & (found <= near.mean(2).mean(1) + 1e-12)).all()

    def test_manifold_is_0_on_a_token_and_positive_off_it(self, subject: Subject, noise: Tensor) -> None:
        on = subject.embedding_matrix[[3, 8, 200, 5, 7]][None]
        assert Manifold(1.0, k=1).value(seen(subject, on)).item() == 0
        assert (Manifold(1.0, k=1).value(seen(subject, noise)) > 0.1).all()

    def test_fluency_is_hugging_faces_loss_on_exact_tokens(self, subject: Subject) -> None:
        ids = torch.randint(257, (3, 6), generator=torch.Generator().manual_seed(0))
        view = seen(subject, subject.embedding_matrix[ids])
        losses = [subject.model(input_ids=row[None], labels=row[None]).loss for row in ids]  # in float32
        expected = torch.stack(losses).double()
        assert torch.allclose(Fluency(1.0, temperature=1e-3).value(view), expected, rtol=0, atol=1e-6)
        assert not torch.allclose(Fluency(1.0, temperature=0.3).value(view), expected, atol=1e-3)

    def test_fluency_is_cross_entropy_of_the_softly_decoded(self, subject: Subject, noise: Tensor) -> None:
        cosines = cosine_similarity(noise[:, :, None], subject.embedding_matrix[None, None], dim=3)
        target = (cosines[:, 1:] / 0.05).softmax(2)
        logits = subject.model(inputs_embeds=noise).logits[:, :-1]
        expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), target.transpose(1, 2), reduction="none")
        found = TERMS["fluency"].value(seen(subject, noise))
        assert torch.allclose(found, expected.mean(1), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("name", ["manifold", "fluency"])
    def test_blocks_change_nothing(
        self, subject: Subject, noise: Tensor, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []
        for block in (2**24, 257 * 4):  # everything at once; one row at a time
            monkeypatch.setattr(priors, "BLOCK", block)
            leaf = noise.clone().requires_grad_()
            value = TERMS[name].value(seen(subject, leaf))
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            found.append((value, gradient))
        for whole, parted in zip(*found, strict=True):
            assert torch.allclose(whole, parted, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("name", TERMS)
    def test_gradients_are_those_of_finite_differences(self, subject: Subject, noise: Tensor, name: str) -> None:
        leaf = noise[:1, :3].clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: TERMS[name].value(seen(subject, x)), leaf, fast_mode=True)

    def test_every_term_has_its_config_and_the_other_way_round(self) -> None:
        assert set(PRIORS) == set(TERMS) == set(settings.TERMS)


class TestPrincipal:
    def test_is_sklearns(self, subject: Subject, noise: Tensor) -> None:
        matrix = subject.embedding_matrix.numpy()
        reference = PCA(6, svd_solver="full").fit(matrix)
        found = Principal(subject.embedding_matrix, 6)
        assert abs(found.mean.numpy() - reference.mean_).max() < 1e-12
        signs = (found.basis.numpy() * reference.components_).sum(1)
        assert abs(abs(signs) - 1).max() < 1e-9
        assert torch.allclose(found.basis.abs().amax(1), found.basis.amax(1))
        again = reference.inverse_transform(reference.transform(noise.reshape(-1, 24).numpy()))
        mapped = found.embed(found.start(noise), 0.0).reshape(-1, 24).numpy()
        assert abs(mapped - again).max() < 1e-12
        assert abs(mapped - noise.reshape(-1, 24).numpy()).max() > 0.01

    def test_the_optimizee_never_leaves_the_subspace(self, subject: Subject, free: Maximization) -> None:
        kept = fitted(subject, rows(*SEEDS), **parts(subject, "pca"))
        subspace = Principal(subject.embedding_matrix, 6)

        def outside(x: Tensor) -> float:
            return (x - subspace.embed(subspace.start(x), 0.0)).norm().item()

        assert kept.parameter.shape == (4, 5, 6)
        assert max(outside(x) for x in kept.outcome()[:2]) < 1e-12
        assert outside(free.embedding) > 0.1

    def test_all_components_are_no_constraint(self, subject: Subject, noise: Tensor) -> None:
        whole = Principal(subject.embedding_matrix, 24)
        assert torch.allclose(whole.embed(whole.start(noise), 0.0), noise, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("components", [0, 25])
    def test_there_are_as_many_as_dims(self, subject: Subject, components: int) -> None:
        with pytest.raises(ValueError, match="1 to 24"):
            Principal(subject.embedding_matrix, components)


def in_hull(point: Tensor, matrix: Tensor) -> bool:
    """Whether some weights from 0 to 1 that sum to 1 give the point, up to rounding."""
    slack = 1e-5 * torch.ones(matrix.shape[1], dtype=matrix.dtype)
    bounds = torch.cat([point + slack, -(point - slack)])
    return linprog(
        torch.zeros(len(matrix)).numpy(),
        A_ub=torch.cat([matrix.T, -matrix.T]).numpy(),
        b_ub=bounds.numpy(),
        A_eq=torch.ones(1, len(matrix)).numpy(),
        b_eq=[1.0],
    ).success


class TestMixture:
    def test_stays_in_the_convex_hull_of_the_tokens(
        self, subject: Subject, mixed: Maximization, free: Maximization
    ) -> None:
        matrix = subject.embedding_matrix
        start, end, _, _ = mixed.outcome()
        assert all(in_hull(x[0, 0], matrix) and in_hull(x[3, 4], matrix) for x in (start, end))
        assert not in_hull(free.embedding[0, 0], matrix)

    def test_weights_sum_to_1_and_sharpen(self, mixed: Maximization) -> None:
        mixture = mixed.parameterization
        assert isinstance(mixture, Mixture)
        parameter = mixed.parameter.detach()
        entropies = []
        for progress in (0.0, 0.5, 1.0):
            weights = mixture.weights(parameter, progress)
            assert (weights >= 0).all()
            assert torch.allclose(weights.sum(2), torch.ones(4, 5, dtype=torch.float64), rtol=0, atol=1e-12)
            entropies.append(torch.special.entr(weights).sum(2).mean().item())
        assert entropies[0] > entropies[1] > entropies[2]
        assert torch.equal(mixed.embedding, mixture.embed(parameter, 1.0))
        halfway = (parameter / math.sqrt(0.1 * 0.03)).softmax(2)
        assert torch.allclose(mixture.weights(parameter, 0.5), halfway, rtol=0, atol=1e-12)

    def test_starts_at_the_tokens_nearest_to_the_noise(self, subject: Subject, noise: Tensor) -> None:
        mixture = Mixture(Vocabulary(subject.embedding_matrix), 0.1, 0.03)
        expected = cosine_similarity(noise[:, :, None], subject.embedding_matrix[None, None], dim=3)
        assert torch.allclose(mixture.start(noise), expected, rtol=0, atol=1e-12)

    def test_gradients_are_those_of_finite_differences(self) -> None:
        matrix = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        scores = torch.randn(2, 2, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 10
        mixture = Mixture(Vocabulary(matrix), 0.1, 0.03)
        assert torch.autograd.gradcheck(lambda x: mixture.embed(x, 0.3), scores.requires_grad_())


class TestWeight:
    @pytest.mark.parametrize("case", ["l2+fluency", "pca+manifold+smooth", "simplex+norm"])
    def test_1_pulls_as_hard_as_the_objective_in_each_restart(self, subject: Subject, case: str) -> None:
        chosen = parts(subject, case)
        module = fitted(subject, rows(*SEEDS), **chosen, steps=1)
        mapping = chosen["parameterization"]
        leaf = mapping.start(initial(scaled(subject.embedding_matrix, 5), SEEDS).double()).requires_grad_()
        embeddings = mapping.embed(leaf, 0.0)
        hidden = subject.model(inputs_embeds=embeddings, output_hidden_states=True).hidden_states[2]
        pull = torch.autograd.grad(hidden[..., 7].mean(1).sum(), leaf, retain_graph=True)[0].flatten(1).norm(dim=1)
        for number, prior in enumerate(chosen["priors"]):
            value = module.coefficients[:, number] * prior.value(seen(subject, embeddings))
            own = torch.autograd.grad(value.sum(), leaf, retain_graph=True)[0].flatten(1).norm(dim=1)
            assert torch.allclose(own, pull, rtol=1e-9, atol=0)
            assert module.coefficients[:, number].std() > 0  # each restart has its own

    def test_stays_what_it_was_at_the_start_and_is_proportional(self, subject: Subject) -> None:
        first = fitted(subject, rows(0, 1), priors=[L2(1.0)], steps=1).coefficients
        last = fitted(subject, rows(0, 1), priors=[L2(1.0)]).coefficients
        half = fitted(subject, rows(0, 1), priors=[L2(0.5)], steps=1).coefficients
        assert torch.equal(first, last)
        assert torch.equal(first, 2 * half)

    def test_absolute_is_the_formula_as_it_stands(self, subject: Subject) -> None:
        module = fitted(subject, rows(0, 1), priors=[L2(0.3, "absolute"), Norm(2.0, "absolute")], steps=1)
        assert module.coefficients.tolist() == [[0.3, 2.0]] * 2

    def test_is_0_where_one_of_the_two_does_not_pull(self) -> None:
        leaf = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]], [[1e-30, 0.0]], [[1e30, 1e30]]], requires_grad=True)
        square, linear = leaf.square().sum((1, 2)), leaf.sum((1, 2))
        found = coefficients([L2(3.0)], linear, [square], leaf)[:, 0]
        assert found.tolist() == pytest.approx([3 * 2**0.5 / 20**0.5, 0.0, 3 * 2**0.5 / 2e-30, 0.5 * 3e-30], rel=1e-5)
        assert coefficients([L2(3.0)], 0 * linear, [square], leaf)[:, 0].tolist() == [0.0] * 4

    def test_a_prior_that_is_off_is_said(self, subject: Subject, caplog: pytest.LogCaptureFixture) -> None:
        start = initial(scaled(subject.embedding_matrix, 5), [0, 1]).double()
        start[1] = start[1, :1]  # all positions alike: nothing to smooth
        with caplog.at_level(logging.WARNING):
            module = fitted(subject, rows(0, 1), start, priors=[Smooth(1.0)], steps=3)
        assert module.coefficients[1].item() == 0
        assert module.coefficients[0].item() > 0
        assert "prior smooth is off in 1 of 2 restarts" in caplog.text
        caplog.clear()
        fitted(subject, rows(0, 1), priors=[Smooth(1.0)], steps=3)
        assert "is off" not in caplog.text


@pytest.mark.parametrize("case", CASES)
def test_batch_and_solo_agree(subject: Subject, case: str) -> None:
    job = [Row(unit, seed) for unit in (UNIT, Unit("resid_pre", 1, 3)) for seed in (0, 1)]
    options = {**parts(subject, case), "steps": 12}
    together = fitted(subject, job, **options)
    parted = fitted(subject, job, **options, max_rows=3)
    assert torch.allclose(parted.embedding, together.embedding, rtol=0, atol=1e-9)
    alone = fitted(subject, [job[2]], **options)
    assert torch.allclose(together.embedding[2], alone.embedding[0], rtol=0, atol=1e-9)
    assert not torch.allclose(together.embedding[0], together.embedding[1], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_resumes_bit_for_bit(subject: Subject, tmp_path: Path, case: str) -> None:
    options = {**parts(subject, case), "steps": 12}
    whole = fitted(subject, rows(0, 1), **options)
    half = module_of(subject, rows(0, 1), **options)
    first = trainer(5)
    first.fit(half)
    first.save_checkpoint(tmp_path / "last.ckpt")
    names = set(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    assert names == {"parameter", "best", "best_loss", "alive", *(["coefficients"] if half.priors else [])}
    rest = module_of(subject, rows(0, 1), **options)
    trainer(12).fit(rest, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for name in ("embedding", "best", "best_loss"):
        assert torch.equal(getattr(rest, name), getattr(whole, name))
    assert not torch.equal(half.embedding, whole.embedding)


def test_all_that_is_kept_of_a_restart_is_a_row(subject: Subject) -> None:
    module = module_of(subject, rows(*SEEDS), **parts(subject, "simplex+norm"))
    assert {len(value) for value in module.state_dict().values()} == {4}
    assert [len(parameter) for parameter in module.parameters()] == [4]


def test_a_parameterized_restart_that_goes_non_finite_stands_at_its_best(subject: Subject) -> None:
    module = fitted(subject, rows(0, 1), **parts(subject, "pca"), lr=1e200)
    _, final, before, after = module.outcome()
    assert module.frozen.all()
    assert torch.equal(module.embedding, module.best)
    assert final.isfinite().all()
    assert (after >= before).all()


@pytest.mark.parametrize(("prior", "runs"), [(Fluency(1.0), True), (Manifold(1.0), False), (None, False)])
def test_only_fluency_runs_what_lies_above_the_target(subject: Subject, prior: Prior | None, runs: bool) -> None:
    calls: list[str] = []
    hooks = [
        subject.base.h[0].register_forward_pre_hook(lambda *_: calls.append("first")),
        subject.base.h[2].register_forward_pre_hook(lambda *_: calls.append("last")),
        subject.model.lm_head.register_forward_pre_hook(lambda *_: calls.append("head")),
    ]
    try:
        fitted(subject, rows(0), priors=[] if prior is None else [prior], steps=2)
    finally:
        for hook in hooks:
            hook.remove()
    assert calls.count("first") == 2  # one pass serves the target and the prior
    assert (calls.count("last"), calls.count("head")) == ((2, 2) if runs else (0, 0))


def test_a_narrow_subject_keeps_its_priors_in_float32() -> None:
    architecture = {"model_type": "gpt2", "n_layer": 2, "n_embd": 24, "n_head": 4, "n_positions": 32}
    narrow = load(name="narrow", source="random", dtype="bfloat16", architecture=architecture)
    job = rows(0, 1, unit=Unit("resid_post", 1, 7))
    for case in ("l2+fluency", "pca+manifold+smooth", "simplex+norm"):
        module = fitted(narrow, job, **parts(narrow, case), steps=5)
        assert module.parameter.dtype == module.coefficients.dtype == torch.float32
        assert not module.frozen.any()


BASE = ("subject=tiny", "seeds=[0,1]")


def checked(cfg: DictConfig) -> None:
    config.check(cfg)
    config.check_subject(cfg)


class TestConfig:
    @pytest.mark.parametrize(
        ("overrides", "key"),
        [
            (["prior=[pca,simplex]"], "prior"),
            (["prior.norm.weight=-1"], "prior.norm.weight"),
            (["prior.norm.weight=nan"], "prior.norm.weight"),
            (["prior.smooth.weight=inf"], "prior.smooth.weight"),
            (["prior.l2.scale=logarithmic"], "prior.l2.scale"),
            (["prior=manifold", "prior.manifold.k=0"], "prior.manifold.k"),
            (["prior=manifold", "prior.manifold.temperature=0"], "prior.manifold.temperature"),
            (["prior=fluency", "prior.fluency.temperature=-1"], "prior.fluency.temperature"),
            (["prior=simplex", "prior.simplex.final_temperature=inf"], "prior.simplex.final_temperature"),
            (["prior=pca", "prior.pca.components=0"], "prior.pca.components"),
            (["prior=pca", "prior.pca.components=97"], "prior.pca.components"),
            (["prior=smooth", "tokens=1"], "tokens"),
            (["prior=[l2,fluency]", "tokens=1"], "tokens"),
            (["prior=manifold", "init=tokens"], "prior.manifold.scale"),
        ],
    )
    def test_refuses(self, overrides: list[str], key: str) -> None:
        cfg = composed(*BASE, *overrides)
        with pytest.raises(InputError) as caught:
            checked(cfg)
        assert caught.value.key == key

    @pytest.mark.parametrize(
        "overrides",
        [
            ["prior=[pca,l2,norm,manifold,fluency,smooth]"],
            ["prior=[none,simplex]"],
            ["prior=l2", "tokens=1"],
            ["prior=pca", "prior.pca.components=96"],
            ["prior=manifold", "init=tokens", "prior.manifold.scale=absolute"],
        ],
    )
    def test_lets_pass(self, overrides: list[str]) -> None:
        checked(composed(*BASE, *overrides))

    def test_every_value_names_another_job(self) -> None:
        works = [
            [],
            ["prior=l2"],
            ["prior=l2_absolute"],
            ["prior=l2", "prior.l2.weight=0.5"],
            ["prior=[l2,fluency]"],
            ["prior=manifold"],
            ["prior=manifold", "prior.manifold.k=3"],
            ["prior=pca"],
            ["prior=pca", "prior.pca.components=3"],
            ["prior=simplex"],
            ["prior=simplex", "prior.simplex.temperature=1"],
        ]
        assert len({config.job_folder(composed(*BASE, *work)) for work in works}) == len(works)
        same = (["prior=[fluency,l2]"], ["prior=[l2,fluency]"])
        assert len({config.job_folder(composed(*BASE, *work)) for work in same}) == 1

    def test_a_list_adds_up_and_an_experiment_can_be_overridden(self) -> None:
        cfg = composed(*BASE, "experiment=reproducibility", "prior=[l2,pca,manifold]", "prior.manifold.weight=0.5")
        terms = prior_terms(cfg)
        assert {name: term["weight"] for name, term in terms.items()} == {"l2": 1.0, "manifold": 0.5}
        assert parameterizations(cfg) == ["pca"]


class TestCommandLine:
    @pytest.mark.slow
    def test_a_sweep_over_every_file_and_a_combination(self, actmax: Actmax) -> None:
        names = choices("prior")
        ran = actmax("-m", *BASE, *QUICK, "steps=6", f"prior={','.join([*names, '[pca,l2,fluency]'])}")
        assert ran.code == 0, ran.err
        assert len(ran.jobs) == len(names) + 1
        terms = [json.loads((job / "summary.json").read_text()).get("priors", {}) for job in ran.jobs]
        expected = ["", "", "", "fluency", "fluency+l2", "l2", "l2", "manifold", "norm", "smooth"]
        assert sorted("+".join(sorted(one)) for one in terms) == expected
        for term in (term for one in terms for term in one.values()):
            assert term["final_mean"] < term["initial_mean"]
            assert term["coefficient_mean"] > 0

    @pytest.mark.slow
    def test_a_sweep_over_every_method(self, actmax: Actmax, tmp_path: Path) -> None:
        text = tmp_path / "text.txt"
        text.write_text("the quick brown fox jumps over the lazy dog")
        names = choices("method")
        small = ("steps=6", "search.passes=40", "search.candidates=10", f"search.text={text}")
        ran = actmax("-m", *BASE, *QUICK, *small, f"method={','.join(names)}")
        assert ran.code == 0, ran.err
        assert sorted(json.loads((job / "summary.json").read_text())["prior"] for job in ran.jobs) == names
        ran_tasks = {OmegaConf.load(job / "config.yaml").task.name for job in ran.jobs}
        assert ran_tasks == {"maximization", "search"}

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            (["prior=[pca,simplex]"], ["prior=[pca,simplex]", "-m prior=pca,simplex"]),
            (["prior=nope"], ["prior/nope", "manifold"]),
            (["prior.manifold.wieght=1"], ["wieght"]),
            (["prior=manifold", "prior.manifold.k=300"], ["prior.manifold.k=300", "257"]),
            (["prior.l2=0.1"], ["prior.l2", "0.1"]),
        ],
    )
    def test_bad_input_is_one_message_and_exit_code_2(
        self, actmax: Actmax, overrides: list[str], words: list[str]
    ) -> None:
        ran = actmax(*BASE, *QUICK, "steps=6", *overrides)
        assert ran.code == 2
        assert all(word in ran.err for word in words), ran.err
        assert "Traceback" not in ran.err
        assert not ran.jobs
