"""Sizes and addresses from a config alone, against what Hugging Face makes of the same config."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actmax.errors import InputError
from actmax.model.architecture import MODEL_TYPES, Geometry, geometry, read_geometry
from actmax.model.target import Unit
from tiny_families import CASES, TINY

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_layer": 3, "n_embd": 24, "n_head": 3, "n_positions": 32},
    "gpt_neo": {
        "model_type": "gpt_neo",
        "num_layers": 4,
        "hidden_size": 24,
        "num_heads": 3,
        "max_position_embeddings": 32,
        "attention_types": [[["global", "local"], 2]],
    },
    "gpt_neox": {
        "model_type": "gpt_neox",
        "num_hidden_layers": 3,
        "hidden_size": 24,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 32,
    },
    "llama": {
        "model_type": "llama",
        "num_hidden_layers": 3,
        "hidden_size": 24,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 40,
        "max_position_embeddings": 32,
    },
}
EXPECTED = {
    "gpt2": Geometry("gpt2", 3, 24, 96, 3, 3, 8, 32, parallel=False),
    "gpt_neo": Geometry("gpt_neo", 4, 24, 96, 3, 3, 8, 32, parallel=False),
    "gpt_neox": Geometry("gpt_neox", 3, 24, 40, 3, 3, 8, 32, parallel=True),
    "llama": Geometry("llama", 3, 24, 40, 6, 2, 4, 32, parallel=False),
}
VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gpt2_inner_none": ("gpt2", {"n_inner": None}, {"d_mlp": 96}),
    "gpt2_inner": ("gpt2", {"n_inner": 50}, {"d_mlp": 50}),
    "gpt_neo_intermediate_none": ("gpt_neo", {"intermediate_size": None}, {"d_mlp": 96}),
    "gpt_neo_intermediate": ("gpt_neo", {"intermediate_size": 50}, {"d_mlp": 50}),
    "gpt_neox_parallel": ("gpt_neox", {"use_parallel_residual": True}, {"parallel": True}),
    "gpt_neox_sequential": ("gpt_neox", {"use_parallel_residual": False}, {"parallel": False}),
    "llama_kv_none": ("llama", {"num_key_value_heads": None}, {"kv_heads": 6}),
    "llama_head_dim_none": ("llama", {"head_dim": None}, {"head_dim": 4}),
    "llama_head_dim": ("llama", {"head_dim": 10}, {"head_dim": 10}),
}


def sizes(family: str, **changes: Any) -> Geometry:
    return geometry({**CONFIGS[family], **changes})


@pytest.mark.parametrize("family", CONFIGS)
def test_sizes_of_each_family(family: str) -> None:
    assert sizes(family) == EXPECTED[family]
    changed = {key: value + 1 for key, value in CONFIGS[family].items() if key in ("n_layer", "num_layers")}
    changed |= {key: value + 1 for key, value in CONFIGS[family].items() if key == "num_hidden_layers"}
    assert sizes(family, **changed) != EXPECTED[family]


@pytest.mark.parametrize(("family", "changes", "expected"), VARIANTS.values(), ids=VARIANTS)
def test_defaults_and_choices(family: str, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    found = sizes(family, **changes)
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(("family", "changes"), [(family, changes) for family, changes, _ in VARIANTS.values()])
def test_the_config_that_transformers_makes_of_it_has_the_same_sizes(family: str, changes: dict[str, Any]) -> None:
    """Otherwise a unit could pass the check before the load and be refused, or mean another place, after it."""
    from transformers import AutoConfig

    written = {**CONFIGS[family], **changes}
    settings = {key: value for key, value in written.items() if key != "model_type"}
    assert geometry(AutoConfig.for_model(family, **settings).to_dict()) == geometry(written)


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_an_mlp_width_left_to_hugging_face_is_not_guessed_otherwise(family: str) -> None:
    """Their default is a number (24576, 11008), not four times the width; a refusal would do as well."""
    from transformers import AutoConfig

    written = {key: value for key, value in CONFIGS[family].items() if key != "intermediate_size"}
    settings = {key: value for key, value in written.items() if key != "model_type"}
    expected = geometry(AutoConfig.for_model(family, **settings).to_dict())
    try:
        found = geometry(written)
    except InputError:
        return
    assert found == expected


@pytest.mark.parametrize(
    ("family", "absent"),
    [
        ("gpt2", {"resid_mid": False, "mlp_pre_linear": True}),
        ("gpt_neo", {"resid_mid": False, "mlp_pre_linear": True}),
        ("gpt_neox", {"resid_mid": True, "mlp_pre_linear": True}),
        ("llama", {"resid_mid": False, "mlp_pre_linear": False}),
    ],
)
def test_sites_of_each_family(family: str, absent: dict[str, bool]) -> None:
    everywhere = {"resid_pre", "resid_post", "attn_out", "mlp_out", "final_norm", "mlp_pre", "mlp_post", *"qkvz"}
    assert set(sizes(family).sites) == everywhere | {site for site, missing in absent.items() if not missing}


@pytest.mark.parametrize(
    ("site", "width"),
    [
        ("resid_pre", 24),
        ("final_norm", 24),
        *((site, 40) for site in ("mlp_pre", "mlp_pre_linear", "mlp_post")),
        *((site, 60) for site in "qz"),
        *((site, 20) for site in "kv"),
    ],
)
def test_widths_where_they_all_differ(site: str, width: int) -> None:
    assert sizes("llama", head_dim=10).width(site) == width


@pytest.mark.parametrize(
    ("site", "layer", "depth"), [("resid_pre", 0, 0), ("resid_pre", 2, 2), ("q", 0, 1), ("final_norm", None, 3)]
)
def test_depth_is_the_number_of_blocks_that_must_run(site: str, layer: int | None, depth: int) -> None:
    assert sizes("gpt2").depth(site, layer) == depth


GOOD = [Unit("resid_pre", 0, 0), Unit("resid_post", 2, 23), Unit("mlp_post", 2, 39), Unit("final_norm", None, 23)]
GOOD += [Unit("q", 1, 23), Unit("k", 1, 7), Unit("mlp_pre_linear", 1, 39)]
BAD = {
    "layer_too_large": (Unit("resid_pre", 3, 0), "layer=3", "0 to 2"),
    "layer_negative": (Unit("resid_pre", -1, 0), "layer=-1", "0 to 2"),
    "layer_missing": (Unit("resid_pre", None, 0), "layer=None", "0 to 2"),
    "layer_at_final_norm": (Unit("final_norm", 2, 0), "layer=2", "unit.layer=null"),
    "index_too_large": (Unit("resid_pre", 0, 24), "index=24", "0 to 23"),
    "index_negative": (Unit("resid_pre", 0, -1), "index=-1", "0 to 23"),
    "index_beyond_the_kv_heads": (Unit("k", 0, 8), "index=8", "0 to 7"),
    "site_unknown": (Unit("resid", 0, 0), "site=resid", "resid_pre, resid_mid"),
}


@pytest.mark.parametrize("unit", GOOD, ids=str)
def test_a_unit_that_is_there_passes(unit: Unit) -> None:
    sizes("llama").check(unit)


@pytest.mark.parametrize(("unit", "named", "allowed"), BAD.values(), ids=BAD)
def test_a_unit_that_is_not_there_is_refused_with_what_is_allowed(unit: Unit, named: str, allowed: str) -> None:
    with pytest.raises(InputError) as caught:
        sizes("llama").check(unit)
    assert str(caught.value).startswith(f"{named}: ")
    assert allowed in str(caught.value)


@pytest.mark.parametrize("site", ["resid_mid", "mlp_pre_linear"])
def test_a_site_that_only_other_families_have_is_refused(site: str) -> None:
    sizes("llama").check_site(site)
    with pytest.raises(InputError, match=f"^site={site}.*resid_pre"):
        sizes("gpt_neox").check_site(site)


def test_the_reason_for_no_resid_mid_is_the_parallel_residual() -> None:
    with pytest.raises(InputError, match="in parallel"):
        sizes("gpt_neox").check_site("resid_mid")
    sizes("gpt_neox", use_parallel_residual=False).check_site("resid_mid")


def test_a_unit_names_itself() -> None:
    assert [str(unit) for unit in (Unit("resid_pre", 8, 91), Unit("final_norm", None, 3))] == [
        "resid_pre.8[91]",
        "final_norm[3]",
    ]


@pytest.mark.parametrize("model_type", ["mamba", "", None])
def test_an_unknown_family_is_refused_with_how_to_add_it(model_type: str | None) -> None:
    with pytest.raises(InputError) as caught:
        geometry({**CONFIGS["gpt2"], "model_type": model_type})
    message = str(caught.value)
    assert message.startswith(f"config={model_type}: ")
    assert all(word in message for word in ("gpt2, gpt_neo, gpt_neox, llama", "FAMILIES", "families.py", "families.md"))


@pytest.mark.parametrize("name", CASES)
def test_every_config_that_transformers_makes_has_the_sizes_of_the_written_one(name: str) -> None:
    from transformers import AutoConfig

    settings = {key: value for key, value in CASES[name].items() if key != "model_type"}
    made = AutoConfig.for_model(CASES[name]["model_type"], **settings).to_dict()
    assert geometry({"head_dim": 10, **made} if CASES[name].get("head_dim") else made) == geometry(CASES[name])


@pytest.mark.parametrize("family", MODEL_TYPES)
def test_a_size_left_to_hugging_face_is_theirs_or_asked_for(family: str) -> None:
    """Each key of sizes in turn is left out of the config: what it stands for is then the class's own number."""
    from transformers import AutoConfig

    tried = 0
    for key in (*TINY[family], "num_key_value_heads", "head_dim"):
        written = {name: value for name, value in TINY[family].items() if name != key}
        if "hidden_size" not in written and "n_embd" not in written:
            continue
        try:
            made = AutoConfig.for_model(family, **written).to_dict()
        except Exception:  # it is refused there, each class in its own way
            continue
        if "head_dim" in written:
            made.setdefault("head_dim", written["head_dim"])
        try:
            found = geometry({"model_type": family, **written})
        except InputError:
            continue
        tried += 1
        assert found == geometry(made), key
    assert tried > 1


def test_a_config_of_blocks_of_another_kind_is_refused() -> None:
    for family, key, value in (
        ("opt", "do_layer_norm_before", False),
        ("bloom", "apply_residual_connection_post_layernorm", True),
    ):
        geometry({**CASES[family], key: not value})
        with pytest.raises(InputError, match=f"{key}: {value}"):
            geometry({**CASES[family], key: value})


def test_a_family_without_a_context_takes_the_length_it_was_trained_on() -> None:
    assert geometry(CASES["bloom"]).context == 2048
    assert geometry({**CASES["bloom"], "seq_length": 1024}).context == 1024


DAMAGED = {
    "empty": b"",
    "cut_off": json.dumps(CONFIGS["gpt2"]).encode()[:40],
    "not_text": b"\xff\xfe\x00",
    "a_list": b"[]",
    "null": b"null",
    "no_sizes": b'{"model_type": "gpt2"}',
    "size_is_a_word": json.dumps({**CONFIGS["gpt2"], "n_embd": "wide"}).encode(),
    "no_heads": json.dumps({**CONFIGS["gpt2"], "n_head": 0}).encode(),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_config_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json"):
        read_geometry(tmp_path)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_whole_config_file_is_read(tmp_path: Path, family: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[family]))
    assert read_geometry(tmp_path) == EXPECTED[family]


def test_nothing_heavy_is_imported() -> None:
    """So that a bad unit is refused within a second."""
    program = "import sys, actmax.model.architecture, actmax.weights; "
    program += "print([m for m in ('torch', 'transformers') if m in {}])"
    loaded = [
        subprocess.run([sys.executable, "-c", program.format(where)], capture_output=True, text=True, check=True).stdout
        for where in ("sys.modules", "('torch',)")
    ]
    assert [text.strip() for text in loaded] == ["[]", "['torch']"]
