"""The subject against Hugging Face's own outputs and against each block worked out by hand, on tiny random models."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from actmax.errors import InputError
from actmax.model.families import FAMILIES
from actmax.model.subject import Subject, load

LAYERS, D_MODEL, D_MLP, HEAD_DIM, CONTEXT = 4, 24, 40, 8, 16
ROWS, TOKENS = 3, 6
WINDOW, ROTARY_BASE = 3, 10_000.0
CLOSE, FAR = 1e-10, 1e-2
SINGLE = 1e-5
"""Where transformers computes in float32 whatever the dtype: rotary angles, GPT-Neo's scores."""


@dataclass(frozen=True)
class Family:
    """What these tests know of a family, found without the table that is under test."""

    architecture: dict[str, Any]
    heads: int
    kv_heads: int
    blocks: Callable[[Any], nn.ModuleList]
    attention_norm: Callable[[Any], nn.Module]
    project: Callable[[Any, Tensor], tuple[Tensor, Tensor, Tensor]]
    """A block and its normed input in; q, k, v out, head after head."""
    output: Callable[[Any], tuple[Tensor, Tensor | None]]
    """A block in; the weight (in, out) and bias of the attention's output projection out."""
    act: Callable[[Tensor], Tensor]
    scale: float = HEAD_DIM**-0.5
    rotary_dims: int = 0
    local_layers: tuple[int, ...] = ()
    parallel: bool = False


def gelu_tanh(x: Tensor) -> Tensor:
    return gelu(x, approximate="tanh")


def thirds(block: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    projection = block.attn.c_attn  # a Conv1D: its weight is (in, out)
    q, k, v = (normed @ projection.weight + projection.bias).split(D_MODEL, dim=-1)
    return q, k, v


def interleaved(block: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    projection = block.attention.query_key_value
    by_head = (normed @ projection.weight.T + projection.bias).unflatten(-1, (3, 3, HEAD_DIM))  # head, which, dim
    q, k, v = (by_head[..., which, :].flatten(-2) for which in range(3))
    return q, k, v


def separate(attention: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (normed @ projection.weight.T for projection in (attention.q_proj, attention.k_proj, attention.v_proj))
    return q, k, v


def neox(*, parallel: bool) -> Family:
    return Family(
        architecture={
            "model_type": "gpt_neox",
            "num_hidden_layers": LAYERS,
            "hidden_size": D_MODEL,
            "num_attention_heads": 3,
            "intermediate_size": D_MLP,
            "max_position_embeddings": CONTEXT,
            "use_parallel_residual": parallel,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": ROTARY_BASE,
                "partial_rotary_factor": 0.5,
            },
        },
        heads=3,
        kv_heads=3,
        blocks=lambda base: base.layers,
        attention_norm=lambda block: block.input_layernorm,
        project=interleaved,
        output=lambda block: (block.attention.dense.weight.T, block.attention.dense.bias),
        act=gelu,
        rotary_dims=4,
        parallel=parallel,
    )


FAMILY_CASES = {
    "gpt2": Family(
        architecture={
            "model_type": "gpt2",
            "n_layer": LAYERS,
            "n_embd": D_MODEL,
            "n_head": 3,
            "n_inner": D_MLP,
            "n_positions": CONTEXT,
        },
        heads=3,
        kv_heads=3,
        blocks=lambda base: base.h,
        attention_norm=lambda block: block.ln_1,
        project=thirds,
        output=lambda block: (block.attn.c_proj.weight, block.attn.c_proj.bias),
        act=gelu_tanh,
    ),
    "gpt_neo": Family(
        architecture={
            "model_type": "gpt_neo",
            "num_layers": LAYERS,
            "hidden_size": D_MODEL,
            "num_heads": 3,
            "intermediate_size": D_MLP,
            "max_position_embeddings": CONTEXT,
            "attention_types": [[["global", "local"], LAYERS // 2]],
            "window_size": WINDOW,
        },
        heads=3,
        kv_heads=3,
        blocks=lambda base: base.h,
        attention_norm=lambda block: block.ln_1,
        project=lambda block, normed: separate(block.attn.attention, normed),
        output=lambda block: (block.attn.attention.out_proj.weight.T, block.attn.attention.out_proj.bias),
        act=gelu_tanh,
        scale=1.0,
        local_layers=(1, 3),
    ),
    "gpt_neox_parallel": neox(parallel=True),
    "gpt_neox_sequential": neox(parallel=False),
    "llama": Family(
        architecture={
            "model_type": "llama",
            "num_hidden_layers": LAYERS,
            "hidden_size": D_MODEL,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": HEAD_DIM,  # 4 heads x 8 dims are wider than the residual stream
            "intermediate_size": D_MLP,
            "max_position_embeddings": CONTEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": ROTARY_BASE},
        },
        heads=4,
        kv_heads=2,
        blocks=lambda base: base.layers,
        attention_norm=lambda block: block.input_layernorm,
        project=lambda block, normed: separate(block.self_attn, normed),
        output=lambda block: (block.self_attn.o_proj.weight.T, None),
        act=silu,
        rotary_dims=HEAD_DIM,
    ),
}
SITES = (
    "resid_pre",
    "resid_post",
    "attn_out",
    "mlp_out",
    "mlp_pre",
    "mlp_post",
    "q",
    "k",
    "v",
    "z",
)


def shaken(subject: Subject) -> Subject:
    """The subject with every weight drawn anew: Hugging Face starts biases at 0 and norms at 1, which hides errors."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in subject.model.parameters():
            centre = 1.0 if weight.dim() == 1 and bool((weight == 1).all()) else 0.0
            weight.copy_(centre + 0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return subject


def tiny(family: str, **options: Any) -> Subject:
    changes = options.pop("architecture", {})
    architecture = {**FAMILY_CASES[family].architecture, **changes}
    return shaken(load(name=family, source="random", architecture=architecture, **{"dtype": "float64", **options}))


def twin(subject: Subject) -> Subject:
    """The same subject in a model of its own, for tests that leave hooks or damage in it."""
    return dataclasses.replace(subject, model=copy.deepcopy(subject.model))


def noise(rows: int = ROWS, tokens: int = TOKENS, seed: int = 0) -> Tensor:
    return torch.randn(rows, tokens, D_MODEL, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(left: Tensor, right: Tensor, atol: float = CLOSE) -> bool:
    return left.shape == right.shape and torch.allclose(left, right, rtol=0, atol=atol)


def far(left: Tensor, right: Tensor) -> bool:
    """Whether a check that holds within `close` would fail by a wide margin."""
    return left.shape != right.shape or float((left - right).abs().max()) > FAR


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=FAMILY_CASES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def family(name: str) -> Family:
    return FAMILY_CASES[name]


# kept by name and not by pytest: where a test narrows the names, pytest may hand it what another name made
@pytest.fixture
def subject(name: str) -> Subject:
    return the_subject(name)


@pytest.fixture
def captured(name: str) -> dict[tuple[str, int | None], Tensor]:
    return the_captured(name)


@pytest.fixture
def hidden_states(name: str) -> tuple[Tensor, ...]:
    return the_hidden_states(name)


@cache
def the_subject(name: str) -> Subject:
    return tiny(name)


@cache
def the_captured(name: str) -> dict[tuple[str, int | None], Tensor]:
    """Every site of every layer, from one pass."""
    subject = the_subject(name)
    places = [(site, layer) for site in subject.geometry.sites if site != "final_norm" for layer in range(LAYERS)]
    return subject.run(noise(), [*places, ("final_norm", None)])


@cache
def the_hidden_states(name: str) -> tuple[Tensor, ...]:
    model: Any = twin(the_subject(name)).model
    return model(inputs_embeds=noise(), output_hidden_states=True, use_cache=False).hidden_states


def block_of(subject: Subject, family: Family, layer: int) -> Any:
    return family.blocks(subject.base)[layer]


# ---------------------------------------------------------------- sizes


def test_sizes_are_those_asked_for(subject: Subject, family: Family) -> None:
    sizes = subject.geometry
    assert (sizes.layers, sizes.d_model, sizes.d_mlp, sizes.context) == (LAYERS, D_MODEL, D_MLP, CONTEXT)
    assert (sizes.heads, sizes.kv_heads, sizes.head_dim) == (family.heads, family.kv_heads, HEAD_DIM)
    assert sizes.parallel is family.parallel
    assert sum(weight.numel() for weight in subject.model.parameters()) < 60_000
    assert len(family.blocks(subject.base)) == LAYERS


def test_every_site_is_as_wide_as_the_geometry_says(subject: Subject, captured: dict) -> None:
    assert {site for site, _ in captured} == set(subject.geometry.sites)
    for (site, _), value in captured.items():
        assert value.shape == (ROWS, TOKENS, subject.geometry.width(site)), site
    assert subject.geometry.width("mlp_post") != subject.geometry.width("resid_pre")  # so that a mix-up would show


def test_llama_keys_and_values_are_narrower_than_queries(captured: dict, name: str) -> None:
    widths = {site: captured[site, 0].shape[-1] for site in ("q", "k", "v", "z")}
    grouped = {"q": 32, "k": 16, "v": 16, "z": 32}
    assert widths == (grouped if name == "llama" else dict.fromkeys("qkvz", D_MODEL))


# ---------------------------------------------------------------- the residual stream


@pytest.mark.parametrize("layer", range(LAYERS))
def test_resid_pre_is_the_hidden_state_of_its_layer(
    subject: Subject, captured: dict, hidden_states: tuple[Tensor, ...], layer: int
) -> None:
    cut_off_right_there = subject.run(noise(), [("resid_pre", layer)])["resid_pre", layer]
    assert torch.equal(cut_off_right_there, hidden_states[layer])
    assert torch.equal(captured["resid_pre", layer], hidden_states[layer])
    neighbour = layer + 1 if layer + 1 < LAYERS else layer - 1
    assert far(cut_off_right_there, hidden_states[neighbour])


def test_final_norm_is_the_last_hidden_state(
    subject: Subject, captured: dict, hidden_states: tuple[Tensor, ...]
) -> None:
    alone = subject.run(noise(), [("final_norm", None)])["final_norm", None]
    assert torch.equal(alone, hidden_states[-1])
    assert torch.equal(captured["final_norm", None], hidden_states[-1])
    assert far(captured["resid_post", LAYERS - 1], hidden_states[-1])


def test_logits_are_the_whole_models(subject: Subject, captured: dict) -> None:
    found = subject.logits(captured["final_norm", None])
    assert close(found, subject.model(inputs_embeds=noise(), use_cache=False).logits)
    assert far(found, subject.logits(captured["resid_pre", LAYERS - 1]))
    last = captured["final_norm", None][:, -1]  # a view, of two dimensions; and one vector
    assert close(subject.logits(last), found[:, -1])
    assert close(subject.logits(last[0]), found[0, -1])


@pytest.mark.parametrize("layer", range(LAYERS))
def test_attention_and_mlp_carry_the_stream_through_a_block(captured: dict, layer: int) -> None:
    def ends(at: int) -> Tensor:
        return captured["resid_pre", layer] + captured["attn_out", at] + captured["mlp_out", layer]

    assert close(ends(layer), captured["resid_post", layer])
    assert far(ends((layer + 1) % LAYERS), captured["resid_post", layer])
    if layer + 1 < LAYERS:
        assert torch.equal(captured["resid_post", layer], captured["resid_pre", layer + 1])


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("name", [name for name in FAMILY_CASES if not FAMILY_CASES[name].parallel], scope="module")
def test_resid_mid_is_the_stream_between_attention_and_mlp(captured: dict, layer: int) -> None:
    assert close(captured["resid_mid", layer], captured["resid_pre", layer] + captured["attn_out", layer])
    assert far(captured["resid_mid", layer], captured["resid_pre", layer] + captured["mlp_out", layer])


@pytest.mark.parametrize("site", ["resid_mid", "mlp_pre_linear"])
def test_a_site_that_the_family_lacks_is_refused(subject: Subject, site: str) -> None:
    if site in subject.geometry.sites:
        subject.geometry.check_site(site)
        assert (site, 0) in subject.run(noise(), [(site, 0)])
        return
    with pytest.raises(InputError, match=f"^site={site}"):
        subject.geometry.check_site(site)


def test_running_a_parallel_residual_to_resid_mid_is_an_error_too() -> None:
    """Its tap is there, so without a check it gives `resid_pre` under a wrong name."""
    with pytest.raises(InputError, match="resid_mid"):
        tiny("gpt_neox_parallel").run(noise(), [("resid_mid", 1)])


# ---------------------------------------------------------------- the MLP


@pytest.mark.parametrize("layer", range(LAYERS))
def test_mlp_post_is_the_activation_function_of_mlp_pre(captured: dict, family: Family, layer: int) -> None:
    post = captured["mlp_post", layer]
    gate = captured.get(("mlp_pre_linear", layer))

    def worked_out(pre: Tensor) -> Tensor:
        return family.act(pre) if gate is None else family.act(pre) * gate

    assert close(worked_out(captured["mlp_pre", layer]), post)
    assert far(worked_out(captured["mlp_pre", (layer + 1) % LAYERS]), post)
    assert far(torch.relu(captured["mlp_pre", layer]), post)


@pytest.mark.parametrize("name", ["llama"], scope="module")
def test_the_gate_is_mlp_pre_and_not_the_other_branch(captured: dict, family: Family) -> None:
    gate, linear = captured["mlp_pre", 1], captured["mlp_pre_linear", 1]
    assert far(family.act(linear) * gate, captured["mlp_post", 1])
    assert far(family.act(gate), captured["mlp_post", 1])


# ---------------------------------------------------------------- attention


@pytest.mark.parametrize("layer", range(LAYERS))
def test_z_through_the_output_projection_is_attn_out(
    subject: Subject, family: Family, captured: dict, layer: int
) -> None:
    weight, bias = family.output(block_of(subject, family, layer))
    z = captured["z", layer]

    def projected(z: Tensor) -> Tensor:
        return z @ weight if bias is None else z @ weight + bias

    assert close(projected(z), captured["attn_out", layer])
    assert far(projected(reversed_heads(z)), captured["attn_out", layer])
    assert far(projected(captured["z", (layer + 1) % LAYERS]), captured["attn_out", layer])


def reversed_heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, HEAD_DIM)).flip(-2).flatten(-2)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_queries_keys_and_values_are_projections_of_the_normed_input(
    subject: Subject, family: Family, captured: dict, layer: int
) -> None:
    block = block_of(subject, family, layer)
    worked_out = family.project(block, family.attention_norm(block)(captured["resid_pre", layer]))
    without_norm = family.project(block, captured["resid_pre", layer])
    for which, site in enumerate("qkv"):
        assert close(captured[site, layer], worked_out[which]), site
        assert far(captured[site, layer], reversed_heads(worked_out[which])), site
        assert far(captured[site, layer], worked_out[(which + 1) % 3]), site
        assert far(captured[site, layer], without_norm[which]), site
        assert far(captured[site, layer], captured[site, (layer + 1) % LAYERS]), site


@pytest.mark.parametrize("name", ["gpt_neox_parallel", "gpt_neox_sequential"], scope="module")
def test_neox_heads_are_not_all_queries_then_all_keys(subject: Subject, family: Family, captured: dict) -> None:
    block = block_of(subject, family, 1)
    projection = block.attention.query_key_value
    contiguous = (block.input_layernorm(captured["resid_pre", 1]) @ projection.weight.T + projection.bias).chunk(3, -1)
    for which, site in enumerate("qkv"):
        assert far(captured[site, 1], contiguous[which])


def rotated(x: Tensor, dims: int) -> Tensor:
    """Rotary positions on the first dims of each head; x is (rows, heads, tokens, head_dim)."""
    if not dims:
        return x
    frequency = ROTARY_BASE ** (-torch.arange(0, dims, 2, dtype=x.dtype) / dims)
    angle = torch.outer(torch.arange(x.shape[-2], dtype=x.dtype), frequency)
    first, second, rest = x.split([dims // 2, dims // 2, x.shape[-1] - dims], dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def attention_by_hand(
    family: Family, q: Tensor, k: Tensor, v: Tensor, *, window: int, rotary_dims: int | None = None
) -> Tensor:
    """z from q, k and v as a site gives them: causal, grouped, each position seeing the last `window` ones."""
    dims = family.rotary_dims if rotary_dims is None else rotary_dims
    query, key, value = (x.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for x in (q, k, v))
    group = family.heads // family.kv_heads
    key, value = (x.repeat_interleave(group, dim=1) for x in (rotated(key, dims), value))
    distance = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)
    scores = rotated(query, dims) @ key.mT * family.scale
    scores = scores.masked_fill((distance < 0) | (distance >= window), -math.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_z_is_the_attention_of_q_over_k_and_v(family: Family, captured: dict, layer: int) -> None:
    """Proves head orders, grouping and that k (and q) stand before rotary positions, all at once."""
    q, k, v, z = (captured[site, layer] for site in ("q", "k", "v", "z"))
    window = WINDOW if layer in family.local_layers else TOKENS
    assert close(attention_by_hand(family, q, k, v, window=window), z, atol=SINGLE)
    assert far(attention_by_hand(family, q, reversed_heads(k), v, window=window), z)
    assert far(attention_by_hand(family, q, k, reversed_heads(v), window=window), z)
    assert far(attention_by_hand(family, q, k, v, window=TOKENS + WINDOW - window), z)  # local for global, or back
    if family.rotary_dims:
        assert far(attention_by_hand(family, q, k, v, window=window, rotary_dims=0), z)


# ---------------------------------------------------------------- truncation


def depths_of(places: list) -> int:
    return max(LAYERS if site == "final_norm" else layer + (site != "resid_pre") for site, layer in places)


TARGETS: dict[str, list[tuple[str, int | None]]] = {
    "first": [("resid_pre", 0)],
    "shallow": [("resid_pre", 1)],
    "middle": [("mlp_post", 1), ("resid_pre", 0)],
    "stream_above_a_site": [("z", 1), ("resid_pre", 2)],
    "last_block": [("q", LAYERS - 1)],
    "norm": [("final_norm", None), ("resid_pre", 1)],
}


@pytest.fixture(params=TARGETS)
def places(request: pytest.FixtureRequest) -> list:
    return TARGETS[request.param]


def count_calls(modules: dict[str, nn.Module], work: Callable[[], object]) -> dict[str, int]:
    calls = dict.fromkeys(modules, 0)

    def counter(key: str) -> Callable[..., None]:
        def count(*_: object) -> None:
            calls[key] += 1

        return count

    handles = [module.register_forward_hook(counter(key)) for key, module in modules.items()]
    try:
        work()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def test_no_block_above_the_target_runs_and_no_head(subject: Subject, family: Family, places: list) -> None:
    other = twin(subject)
    model: Any = other.model
    modules = {str(layer): block for layer, block in enumerate(family.blocks(other.base))}
    modules["head"] = model.get_output_embeddings()

    depth = depths_of(places)
    expected = {str(layer): int(layer < depth) for layer in range(LAYERS)} | {"head": 0}
    assert count_calls(modules, lambda: other.run(noise(), places)) == expected
    whole = count_calls(modules, lambda: model(inputs_embeds=noise(), use_cache=False))
    assert whole == dict.fromkeys(modules, 1)  # the counters do count


def poison(*modules: nn.Module) -> None:
    with torch.no_grad():
        for module in modules:
            for weight in module.parameters():
                weight.fill_(math.nan)


def test_weights_above_the_target_do_not_matter(
    subject: Subject, family: Family, places: list, captured: dict[tuple[str, int | None], Tensor]
) -> None:
    other = twin(subject)
    model: Any = other.model
    blocks, depth = family.blocks(other.base), depths_of(places)
    poison(*blocks[depth:], model.get_output_embeddings())
    for place, value in other.run(noise(), places).items():
        assert torch.equal(value, captured[place]), place
    if depth > 0:
        poison(blocks[depth - 1])
        deepest = max(places, key=lambda place: depths_of([place]))
        assert other.run(noise(), [deepest])[deepest].isnan().any()


def test_a_place_alone_gives_what_it_gives_among_all_others(subject: Subject, captured: dict) -> None:
    for place in ((site, layer) for site, layer in captured if layer == 1):
        assert torch.equal(subject.run(noise(), [place])[place], captured[place]), place


def test_asking_twice_for_a_place_is_asking_once(subject: Subject) -> None:
    assert set(subject.run(noise(), [("z", 1), ("q", 0), ("z", 1)])) == {("z", 1), ("q", 0)}


def test_the_whole_model_is_untouched_by_a_truncated_run(subject: Subject, family: Family, places: list) -> None:
    model: Any = subject.model
    modules = [id(module) for module in subject.model.modules()]
    names = list(subject.model.state_dict())
    bits = [value.clone() for value in subject.model.state_dict().values()]
    before = model(inputs_embeds=noise(), use_cache=False).logits
    subject.run(noise(), places)
    assert [id(module) for module in subject.model.modules()] == modules
    assert list(subject.model.state_dict()) == names
    assert all(torch.equal(a, b) for a, b in zip(subject.model.state_dict().values(), bits, strict=True))
    assert torch.equal(model(inputs_embeds=noise(), use_cache=False).logits, before)
    assert len(family.blocks(subject.base)) == LAYERS


WRONG_PLACES = {
    "layer_too_large": ("resid_post", LAYERS),
    "resid_pre_past_the_last_block": ("resid_pre", LAYERS),
    "layer_negative": ("resid_pre", -1),
    "layer_missing": ("resid_pre", None),
    "layer_at_final_norm": ("final_norm", 1),
    "site_unknown": ("resid", 1),
}


@pytest.mark.parametrize("place", WRONG_PLACES.values(), ids=WRONG_PLACES)
def test_a_place_that_is_not_there_is_refused(place: tuple[str, int | None]) -> None:
    """Not answered with another place's values: ('resid_pre', None) must not give final_norm's."""
    subject = tiny("gpt2")
    with pytest.raises((InputError, KeyError, AttributeError, ValueError)):
        subject.run(noise(), [place])
    assert hooks(subject) == 0


# ---------------------------------------------------------------- hooks


def hooks(subject: Subject) -> int:
    return sum(
        len(getattr(module, kind))
        for module in subject.model.modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    )


ALL_SITES = [(site, layer) for site in SITES for layer in (0, 2)]


def test_no_hook_outlives_a_run(subject: Subject, family: Family) -> None:
    other = twin(subject)
    during: list[int] = []
    probe = block_of(other, family, 2).register_forward_hook(lambda *_: during.append(hooks(other)))
    other.run(noise(), ALL_SITES)
    probe.remove()
    assert during == [len(ALL_SITES) + 1]  # they were there
    assert hooks(other) == 0


def test_no_hook_outlives_an_error_in_the_forward_pass(subject: Subject, family: Family, captured: dict) -> None:
    other = twin(subject)

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    bomb = block_of(other, family, 1).register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        other.run(noise(), ALL_SITES)
    bomb.remove()
    assert hooks(other) == 0
    assert torch.equal(other.run(noise(), [("z", 2)])["z", 2], captured["z", 2])


def test_no_hook_outlives_an_error_while_hooks_are_set() -> None:
    subject = tiny("gpt2")
    with pytest.raises((KeyError, InputError)):
        subject.run(noise(), [("resid_pre", 0), ("z", 1), ("no_such_site", 1)])
    assert hooks(subject) == 0


def test_no_hook_is_left_by_a_model_whose_config_asks_for_hidden_states() -> None:
    """transformers 5 hooks the blocks to collect them, and a fresh truncated view would hook them at every run."""
    subject = tiny("gpt2")
    config: Any = subject.model.config
    config.output_hidden_states = True
    for _ in range(2):
        subject.run(noise(), [("resid_pre", 2)])
    assert hooks(subject) == 0


# ---------------------------------------------------------------- frozen, and differentiable in the embeddings


def test_gradients_reach_the_embeddings_and_no_weight(subject: Subject) -> None:
    embeddings = noise().requires_grad_()
    subject.run(embeddings, [("mlp_post", 2)])["mlp_post", 2].sum().backward()
    assert embeddings.grad is not None
    assert (embeddings.grad.abs().amax(-1) > 0).all()
    assert all(not weight.requires_grad and weight.grad is None for weight in subject.model.parameters())
    assert not subject.run(noise(), [("mlp_post", 2)])["mlp_post", 2].requires_grad


def test_gradients_are_right(subject: Subject) -> None:
    """Against a finite difference along one direction, through every kind of module below."""
    embeddings, direction, step = noise().requires_grad_(), noise(seed=1), 1e-5

    def value(x: Tensor) -> Tensor:
        return subject.run(x, [("resid_post", 2)])["resid_post", 2][..., 5].mean()

    (gradient,) = torch.autograd.grad(value(embeddings), embeddings)
    with torch.no_grad():
        slope = (value(embeddings + step * direction) - value(embeddings - step * direction)) / (2 * step)
    along = (gradient * direction).sum()
    assert float(slope) == pytest.approx(float(along), rel=2e-2)  # Llama and GPT-Neo round to float32 inside
    assert float(slope) != pytest.approx(float((gradient.flip(0) * direction).sum()), rel=2e-2)


def test_rows_do_not_mix_and_no_position_sees_a_later_one(subject: Subject) -> None:
    place = ("resid_post", 2)
    changed = noise()
    changed[1, 3] += 1
    before, after = (subject.run(x, [place])[place] for x in (noise(), changed))
    moved = (before != after).any(-1)
    assert moved[1, 3:].all()
    moved[1, 3:] = False
    assert not moved.any()
    assert close(subject.run(noise()[1:2], [place])[place], before[1:2])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_model_is_in_eval_mode_whatever_its_dropout(dropout: float) -> None:
    rates = {"embd_pdrop": dropout, "resid_pdrop": dropout, "attn_pdrop": dropout}
    subject = tiny("gpt2", architecture=rates)
    place = ("resid_post", 2)
    assert not any(module.training for module in subject.model.modules())
    first, second = (subject.run(noise(), [place])[place] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, tiny("gpt2").run(noise(), [place])[place])

    subject.model.train()
    first, second = (subject.run(noise(), [place])[place] for _ in range(2))
    assert far(first, second) is (dropout > 0)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo"], scope="module")
def test_position_embeddings_are_added_to_what_is_given(subject: Subject, captured: dict) -> None:
    positions: Any = subject.base.wpe
    assert torch.equal(captured["resid_pre", 0], noise() + positions.weight[:TOKENS])
    assert far(captured["resid_pre", 0], noise())


@pytest.mark.parametrize("name", ["gpt_neox_parallel", "gpt_neox_sequential", "llama"], scope="module")
def test_rotary_families_take_the_embedding_as_it_is(captured: dict) -> None:
    assert torch.equal(captured["resid_pre", 0], noise())


def test_embeddings_of_tokens_give_what_the_tokens_give(subject: Subject) -> None:
    ids = torch.tensor([[65, 66, 67, 200]])
    model: Any = twin(subject).model
    expected = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[2]
    assert torch.equal(subject.run(subject.embedding_matrix[ids], [("resid_pre", 2)])["resid_pre", 2], expected)
    other = subject.run(subject.embedding_matrix[ids + 1], [("resid_pre", 2)])["resid_pre", 2]
    assert far(other, expected)


# ---------------------------------------------------------------- dtypes and kernels


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.1)])
def test_a_narrower_dtype_gives_the_same_up_to_its_rounding(name: str, dtype: str, tolerance: float) -> None:
    place, architecture = ("resid_post", 2), FAMILY_CASES[name].architecture
    exact = load(name=name, source="random", architecture=architecture, dtype="float64")
    subject = load(name=name, source="random", architecture=architecture, dtype=dtype)
    assert subject.dtype is getattr(torch, dtype)
    assert exact.dtype is torch.float64
    narrow, wide = (which.run(noise(), [place])[place] for which in (subject, exact))
    assert narrow.dtype is subject.dtype
    assert close(narrow.double(), wide, atol=tolerance)
    assert not close(narrow.double(), wide, atol=tolerance * 1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox_parallel", "gpt_neox_sequential", "llama"], scope="module")
def test_attention_kernels_agree(name: str, captured: dict, subject: Subject) -> None:
    eager = tiny(name, attention="eager")
    assert (eager.attention, subject.attention) == ("eager", "sdpa")
    found = eager.run(noise(), [("resid_post", 3)])["resid_post", 3]
    assert close(found, captured["resid_post", 3], atol=1e-4)
    assert far(found, captured["resid_post", 2])


@pytest.mark.parametrize(
    ("name", "kernel"), [("gpt2", "no_such_kernel"), ("gpt_neo", "sdpa"), ("llama", "flash_attention_2")]
)
def test_a_kernel_that_is_not_there_is_refused(name: str, kernel: str) -> None:
    with pytest.raises(InputError, match=rf"^attention={kernel}: .*{name}.*subject\.attention=eager"):
        tiny(name, attention=kernel)
    assert tiny(name, attention="eager").attention == "eager"


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(InputError, match=r"^dtype=int8: .*float32"):
        tiny("gpt2", dtype="int8")


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(InputError, match=r"^architecture\.model_type=mamba: .* gpt2, gpt_neo, gpt_neox, llama, "):
        load(name="new", source="random", architecture={"model_type": "mamba"})


def test_sizes_that_do_not_fit_together_are_not_blamed_on_the_kernel() -> None:
    architecture = {**FAMILY_CASES["gpt2"].architecture, "n_head": 5}
    with pytest.raises(InputError) as caught:
        load(name="odd", source="random", architecture=architecture)
    assert caught.value.key.startswith("architecture")


def test_a_size_of_the_wrong_type_is_refused() -> None:
    architecture = {**FAMILY_CASES["gpt2"].architecture, "n_layer": "three"}
    with pytest.raises(InputError, match=r"^architecture"):
        load(name="odd", source="random", architecture=architecture)


def test_the_table_of_families_covers_every_family_that_the_geometry_knows() -> None:
    from actmax.model.architecture import MODEL_TYPES

    assert set(FAMILIES) == set(MODEL_TYPES)
    assert {family.architecture["model_type"] for family in FAMILY_CASES.values()} < set(FAMILIES)  # test_families.py


# ---------------------------------------------------------------- the hash of the weights


def test_the_hash_changes_with_any_one_weight(subject: Subject) -> None:
    other = twin(subject)
    hashes = {subject.weights_hash, other.weights_hash}
    assert len(hashes) == 1
    weights = list(other.model.parameters())
    for weight in weights:
        with torch.no_grad():
            weight.view(-1)[-1] += 1e-12
        hashes.add(dataclasses.replace(other).weights_hash)  # a fresh one: the hash is kept once made
    assert len(hashes) == len(weights) + 1


def test_the_hash_is_of_the_weights_as_used() -> None:
    wide, narrow = (
        load(name="t", source="random", architecture=FAMILY_CASES["gpt2"].architecture, dtype=dtype)
        for dtype in ("float64", "float32")
    )
    assert wide.weights_hash != narrow.weights_hash


def test_a_tied_head_counts_once(subject: Subject, name: str) -> None:
    """Untied with the same numbers, the head is a weight of its own and the hash another one."""
    tied, free = (
        load(
            name=name,
            source="random",
            architecture={**FAMILY_CASES[name].architecture, "tie_word_embeddings": tie},
            dtype="float64",
        )
        for tie in (True, False)
    )
    with torch.no_grad():
        for key, weight in free.model.named_parameters():
            weight.copy_(tied.model.state_dict()[key])
    assert len(list(free.model.parameters())) == len(list(tied.model.parameters())) + 1
    assert free.weights_hash != tied.weights_hash

    model: Any = free.model
    model.get_output_embeddings().weight = model.get_input_embeddings().weight
    assert dataclasses.replace(free).weights_hash == tied.weights_hash


def test_seeds_name_random_weights_and_leave_the_global_generator_alone() -> None:
    architecture = FAMILY_CASES["gpt2"].architecture
    before = torch.random.get_rng_state()
    first, again, other = (
        load(name="t", source="random", architecture=architecture, seed=seed).weights_hash for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first == again != other


# ---------------------------------------------------------------- tokens


def test_the_byte_tokenizer_reads_back_any_text() -> None:
    subject = tiny("gpt2")
    text = "Ping: naïve café, 2 × 3\n"
    ids = subject.tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    assert len(subject.tokenizer) == len(subject.embedding_matrix) == 257
    assert subject.tokenizer.decode(ids) == text
    assert subject.tokenizer.decode(ids[::-1]) != text


def test_a_token_is_its_text_and_no_two_look_alike() -> None:
    subject = tiny("gpt2", architecture={"vocab_size": 300})
    ids = subject.tokenizer("a b")["input_ids"]
    assert [subject.token(i) for i in ids] == ["a", " ", "b"]
    texts = [subject.token(i) for i in range(len(subject.embedding_matrix))]
    assert texts[-1] == "<299>"
    assert not any("\ufffd" in text for text in texts)
    assert len(set(texts)) == 300


class TestAttending:
    def other(self, subject: Subject) -> str:
        return "sdpa" if subject.attention == "eager" else "eager"

    def test_another_kernel_for_a_while(self, subject: Subject) -> None:
        before, kernel = subject.attention, self.other(subject)
        if subject.geometry.model_type == "gpt_neo":  # it has one kernel, and says so
            with pytest.raises(ValueError, match="no attention kernel sdpa"), subject.attending(kernel):
                pass
            assert subject.attention == before
            return
        embeddings = torch.randn(2, 4, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        first = subject.run(embeddings, [("resid_post", 2)])["resid_post", 2]
        with subject.attending(kernel):
            assert subject.attention == kernel
            second = subject.run(embeddings, [("resid_post", 2)])["resid_post", 2]
        assert subject.attention == before
        assert (first - second).abs().max() < 1e-5 * first.abs().max()  # some families cast to float32 inside

    def test_the_old_one_comes_back_after_an_error(self, subject: Subject) -> None:
        before = subject.attention
        kernel = before if subject.geometry.model_type == "gpt_neo" else self.other(subject)
        with pytest.raises(RuntimeError, match="planted"), subject.attending(kernel):
            raise RuntimeError("planted")
        assert subject.attention == before


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of PyTorch's tracing
class TestCompiled:
    """By Dynamo alone, which traces as for a compiler; test_run.py has the compiler itself."""

    PLACES = ("resid_pre", 3), ("mlp_post", 1), ("z", 2), ("resid_post", 0), ("mlp_post", 1), ("final_norm", None)

    @pytest.fixture
    def graphs(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
        """What was handed to the compiler."""
        handed: list[Any] = []

        def keep(graph: Any, _: Any) -> Any:
            handed.append(graph)
            return graph.forward

        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep, fullgraph=True))
        torch.compiler.reset()
        yield handed
        torch.compiler.reset()

    def test_it_gives_the_same_wherever_one_looks(self, name: str, graphs: list[Any]) -> None:
        subject, counts = tiny(name), []
        for rows in (2, 5, 5):
            embeddings = torch.randn(rows, TOKENS, D_MODEL, dtype=torch.float64, requires_grad=True)
            for place in self.PLACES:
                plain = subject.run(embeddings, [place])[place]
                with subject.compiled():
                    found = subject.run(embeddings, [place])[place]
                assert (found - plain).abs().max() < SINGLE * plain.abs().max()
                slopes = [torch.autograd.grad(value.sin().sum(), embeddings)[0] for value in (plain, found)]
                assert (slopes[1] - slopes[0]).abs().max() < SINGLE * slopes[0].abs().max()
            counts.append(len(graphs))
        assert counts[0] > 0
        assert counts[1] == counts[2]  # a shape that was met before is not compiled again

    def test_outside_nothing_is_compiled(self, graphs: list[Any]) -> None:
        subject = tiny("gpt2")
        blocks = block_of(subject, FAMILY_CASES["gpt2"], 0), block_of(subject, FAMILY_CASES["gpt2"], 3)
        with subject.compiled():
            assert all("forward" in block.__dict__ for block in blocks)
        with pytest.raises(RuntimeError, match="planted"), subject.compiled():
            raise RuntimeError("planted")
        assert not any("forward" in block.__dict__ for block in blocks)
        subject.run(noise(), [("resid_post", 3)])
        assert not graphs

    def test_a_deep_model_is_compiled_to_its_last_block(self, graphs: list[Any]) -> None:
        sizes = {"n_layer": 24, "n_embd": 8, "n_head": 2}
        subject = load(name="deep", source="random", architecture={"model_type": "gpt2", **sizes})
        for rows in (2, 3, 4):
            with subject.compiled():
                subject.run(torch.randn(rows, 4, 8), [("resid_post", 23)])
        assert graphs  # by `fullgraph` an error where Dynamo's limit of one function's graphs is reached


def test_plain_tokens_are_all_but_the_special_ones(subject: Subject) -> None:
    assert subject.plain_tokens.tolist() == list(range(256))  # 256 ends a text
    assert subject.text([97 - 33, 98 - 33]) == "ab"
    assert subject.tokens("ab") == [97 - 33, 98 - 33]


@pytest.mark.parametrize(("model_type", "sizes"), [("gpt2", {"n_layer": 2, "n_embd": 24, "n_head": 4})])
def test_gelu_is_one_kernel_and_the_same_function(model_type: str, sizes: dict[str, int]) -> None:
    from transformers.activations import NewGELUActivation

    subject = load(name="tiny", source="random", architecture={"model_type": model_type, **sizes}, dtype="float64")
    assert not any(isinstance(module, NewGELUActivation) for module in subject.model.modules())
    acts = [block.mlp.act for block in subject.base.h]  # pyright: ignore
    x = torch.linspace(-6, 6, 401, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(acts[0](x).sum(), x)
    (expected,) = torch.autograd.grad(NewGELUActivation()(x).sum(), x)
    assert (acts[0](x) - NewGELUActivation()(x)).abs().max() < 1e-14
    assert (slope - expected).abs().max() < 1e-14
    assert (acts[0](x) - gelu(x)).abs().max() > 1e-4  # the exact GELU is another function
