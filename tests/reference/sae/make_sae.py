"""Makes the folders beside it: sparse autoencoders as SAELens and sparsify write them, and what they make of inputs.

Run once, committed, in an environment of its own, since actmax depends on neither package:

    python -m venv ENV && ENV/bin/pip install torch==2.13.0 sae-lens==6.54.12 eai-sparsify==1.3.3
    ENV/bin/python make_sae.py

Each folder holds a config and weights by the package's own code, with random numbers in every parameter, and
`expected.safetensors`: the pre- and post-activations of `inputs.safetensors` by the package's own code in float64 from
the same folder. `pre` is what enters the activation function.
"""

import json
import shutil
from pathlib import Path

import torch
from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.registry import get_sae_class
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors.torch import save_file
from sparsify import SparseCoder, SparseCoderConfig

HERE = Path(__file__).parent
WIDTH, LATENTS, ROWS = 8, 24, 4
EXPECTED = "expected.safetensors"


def fill(module, seed):
    """Random numbers in every parameter, so that one which is forgotten is missed."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            size = 0.8 if name in ("threshold", "b_dec") else 0.4
            parameter.copy_(size * (noise.abs() if name == "threshold" else noise))
    return module


def metadata(hook):
    return SAEMetadata(model_name="pythia-14m", hook_name=hook, prepend_bos=True, model_from_pretrained_kwargs={})


def expect(folder, **values):
    save_file({name: value.detach().double().contiguous() for name, value in values.items()}, folder / EXPECTED)


def by_saelens(folder, x):
    """Pre- and post-activations by SAELens's own forward pass over what lies in the folder."""
    sae = SAE.load_from_disk(folder, dtype="float64")
    _, cache = sae.run_with_cache(x)
    pre, post = cache["hook_sae_acts_pre"], cache["hook_sae_acts_post"]
    values = {"post": post}
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):  # TopKSAE.encode does so between hook and activation
        values["hook_pre"], pre = pre, pre * sae.W_dec.norm(dim=-1)
    if sae.cfg.architecture() == "gated":  # GatedSAE.encode gives no hook to this path
        values["gate"] = sae.process_sae_in(x) @ sae.W_enc + sae.b_gate
    return values | {"pre": pre}


def saelens(name, architecture, hook, seed, x, **config):
    kind, kind_config = get_sae_class(architecture)
    sae = fill(kind(kind_config(d_in=WIDTH, d_sae=LATENTS, metadata=metadata(hook), **config)), seed)
    folder = HERE / "saelens" / name
    sae.save_model(folder)
    expect(folder, **by_saelens(folder, x))
    return folder


def batchtopk(x):
    """A checkpoint in the midst of training, whose inputs are scaled by a factor beside it, and its inference form."""
    config = BatchTopKTrainingSAEConfig(
        d_in=WIDTH,
        d_sae=LATENTS,
        k=5,
        normalize_activations="expected_average_only_in",
        metadata=metadata("blocks.2.hook_mlp_out"),
    )
    sae = fill(BatchTopKTrainingSAE(config), 11)
    sae.topk_threshold = torch.tensor(0.7, dtype=torch.double)
    checkpoint, done = HERE / "saelens" / "batchtopk_checkpoint", HERE / "saelens" / "batchtopk"
    sae.save_model(checkpoint)
    scaler = ActivationScaler(scaling_factor=1.7)
    scaler.save(str(checkpoint / "activation_scaler.json"))
    sae.double()
    sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)  # as SAETrainer.fit does at its end
    scratch = HERE / "scratch"
    sae.save_inference_model(scratch)
    expect(checkpoint, **by_saelens(scratch, x))
    sae.float()
    sae.save_inference_model(done)
    expect(done, **by_saelens(done, x))
    shutil.rmtree(scratch)


def before_6(x):
    """A config in the words of SAELens before 6.0, which SAELens still reads, for weights of today."""
    folder = saelens("before_6_topk", "topk", "blocks.5.mlp.hook_post", 12, x, k=5)
    config = {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 5},
        "d_in": WIDTH,
        "d_sae": LATENTS,
        "dtype": "torch.float32",
        "device": "cpu",
        "model_name": "pythia-14m",
        "hook_name": "blocks.5.mlp.hook_post",
        "hook_layer": 5,
        "hook_head_index": None,
        "normalize_activations": False,
        "finetuning_scaling_factor": False,
        "sae_lens_training_version": "3.13.0",
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    expect(folder, **by_saelens(folder, x))


def sparsify(name, seed, x, dtype=torch.float32, **config):
    coder = fill(SparseCoder(WIDTH, SparseCoderConfig(num_latents=LATENTS, **config), dtype=dtype), seed)
    folder = HERE / "sparsify" / name
    coder.save_to_disk(folder)
    coder = SparseCoder.load_from_disk(folder).double()
    out = coder.encode(x)
    post = torch.zeros(len(x), LATENTS, dtype=x.dtype).scatter(-1, out.top_indices, out.top_acts)
    expect(folder, post=post, pre=coder.encoder(x - coder.b_dec), relu_pre=out.pre_acts)


def main():
    for made in ("saelens", "sparsify"):
        shutil.rmtree(HERE / made, ignore_errors=True)
    x = 1.5 * torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.double) + 0.3
    save_file({"x": x}, HERE / "inputs.safetensors")
    saelens("standard", "standard", "blocks.3.hook_resid_pre", 1, x)
    saelens("standard_uncentred", "standard", "blocks.3.hook_resid_post", 2, x, apply_b_dec_to_input=False)
    saelens("standard_bfloat16", "standard", "blocks.3.hook_attn_out", 3, x, dtype="bfloat16")
    saelens("gated", "gated", "blocks.4.attn.hook_z", 5, x)
    saelens("topk", "topk", "blocks.0.hook_mlp_out", 6, x, k=5)
    saelens("topk_rescaled", "topk", "blocks.1.hook_mlp_out", 7, x, k=5, rescale_acts_by_decoder_norm=True)
    saelens("jumprelu", "jumprelu", "blocks.5.hook_resid_post", 8, x)
    batchtopk(x)
    before_6(x)
    sparsify("layers.3", 13, x, k=5)
    sparsify("h.2.mlp", 14, x, k=3, dtype=torch.bfloat16)
    sparsify("layers.1.attention/seed1", 15, x, k=4)
    run = {"model": "EleutherAI/pythia-14m", "dataset": "EleutherAI/SmolLM2-135M-10B", "sae": {"k": 5}}
    (HERE / "sparsify" / "config.json").write_text(json.dumps(run))  # what the trainer of sparsify writes beside them


if __name__ == "__main__":
    main()
