"""Weights of an ImageNet ResNet-50 v2 up to stage 3 to a Hugging Face folder that a model config takes as its tower.

    python benchmarks/imagenet_tower.py --weights WEIGHTS/resnet50v2_c4.safetensors -o weights/imagenet-resnet50

Then `vision: {path: weights/imagenet-resnet50}` in the `model` of a training config. With `--like FILE.py`, a script
whose `load()` gives the same network, both are asked about noise, and the run fails where they differ by more than
1e-4 of the largest feature. The paper's recipe starts from a pretrained tower, and this one stands in for it in
comparisons; the weights, and all that is trained from them, stay out of this project.

Without `--weights`, random ones are written, read back and compared, to show that it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from gastrovl.model.preactivation import PreactivationConfig, PreactivationTower
from gastrovl.model.vision import image_processor, load_tower, tower_shape, tower_tokens

# Names in the published file -> names here.
RENAMED = (
    (r"^bn0\.", "input_norm."),
    (r"^conv0\.", "stem."),
    (r"^bn1\.", "stem_norm."),
    (r"^bn_out\.", "norm."),
    (r"\.bn([123])\.", r".norm\1."),
    (r"\.downsample\.", ".shortcut."),
)
# Of red, green and blue in 0-1, as the weights were trained.
PREPROCESSING = {
    "do_resize": True,
    "resample": 2,  # bilinear
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "size": {"height": 224, "width": 224},
}
TOLERANCE = 1e-4


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names, in float32."""
    found = {}
    for name, value in weights.items():
        for pattern, ours in RENAMED:
            name = re.sub(pattern, ours, name)
        found[name] = value.float()
    return found


def write_tower(weights: dict[str, Tensor], output: Path) -> int:
    """Write config, weights and preprocessing; returns the number of parameters.

    Raises:
        RuntimeError: The weights are of another network.
    """
    tower = PreactivationTower(PreactivationConfig())
    missing, unknown = tower.load_state_dict(renamed(weights), strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unknown:
        raise RuntimeError(f"the weights are of another network: missing {missing[:3]}, unknown {unknown[:3]}")
    tower.save_pretrained(output)
    (output / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING, indent=2) + "\n", encoding="utf-8")
    return sum(one.numel() for one in tower.parameters())


@torch.no_grad()
def difference(folder: Path, other: torch.nn.Module, seed: int = 7) -> float:
    """Largest difference of the features of noise from those of `other`, as a share of its largest feature."""
    tower = load_tower(str(folder)).eval()
    shape = tower_shape(tower.config, 224)
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
    wanted = other.eval()(pixels).flatten(2).transpose(1, 2)
    return float((tower_tokens(tower, shape, pixels, -1) - wanted).abs().max() / wanted.abs().max())


def loaded(script: Path) -> torch.nn.Module:
    """What `load()` of a script gives."""
    spec = importlib.util.spec_from_file_location("other_tower", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: torch.nn.Module = module.load()
    return network


def main() -> None:
    """Write the folder, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="resnet50v2_c4.safetensors; left out, random weights")
    parser.add_argument("-o", "--output", type=Path, help="folder to write")
    parser.add_argument("--like", type=Path, help="script whose load() gives the network to compare with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = options.output or Path(folder)
        if options.weights:
            count = write_tower(load_file(options.weights), output)
        else:
            random = PreactivationTower(PreactivationConfig())
            count = write_tower(random.state_dict(), output)
        processor = image_processor(str(output), load_tower(str(output)).config, 224)
        print(f"{count:,} parameters, mean {processor.image_mean}, standard deviation {processor.image_std}")
        if options.like:
            found = difference(output, loaded(options.like))
            print(f"largest difference from {options.like.name}: {found:.2e} of the largest feature")
            if found > TOLERANCE:
                sys.exit(f"expected at most {TOLERANCE:g}")


if __name__ == "__main__":
    main()
