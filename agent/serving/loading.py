"""What a worker is asked to load, and the reasons why it does not come to serve.

I/O: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.serving import providers
from shared.errors import RefusedError
from shared.manifest import Tensor


class LoadError(RefusedError):
    """The worker of this model does not become ready. `exit` is how it ended."""

    code = "E_LOAD"
    exit = "exit 1"
    default_remedy = "try the file with onnxruntime on such a device; publish a corrected version"


class EnginesMissingError(LoadError):
    """The version needs engines that were not made for the runtime which is installed now."""

    code = "E_ENGINES"
    default_remedy = "wait: they are made again while nothing else happens; or assign another release"


class ProviderError(LoadError):
    """The version does not come up on the provider that its self-test ran on."""

    code = "E_PROVIDER_CHANGED"
    default_remedy = "look at the GPU's driver; serving.cpu_fallback: true lets the CPU stand in"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a worker is asked to load: a verified, read-only file and what its manifest promises."""

    model: str
    version: str
    slot: Literal["a", "b"]
    path: Path
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    providers: tuple[str, ...]  # candidates, best first
    accepted: tuple[str, ...] = ()  # those that the release names
    provider: str | None = None  # that the self-test ran on
    stand_in: str | None = None  # why that is the CPU, where it should be an accelerator
    digest: str = ""  # of the file; empty: engines are not kept
    fp16: bool = False  # the release allows less exact arithmetic


def failed(file: ModelFile, why: str, *, no_provider: bool) -> LoadError:
    """What a worker's words mean: where the provider is missing that the self-test ran on, the file is not at fault."""
    if no_provider and file.provider is not None:
        return ProviderError(
            f"{file.model} {file.version} was tested on {file.provider} and does not come up there: {why}"
        )
    return LoadError(f"{file.model} {file.version} does not load: {why}")


def judged(file: ModelFile, provider: str, passed_over: Sequence[str], *, cpu_fallback: bool) -> str | None:
    """Why the CPU stands in, for a worker of `file` that came up on `provider`; None when it does not.

    Raises:
        ProviderError: it is not the provider that the self-test ran on, and may not stand in for it.
    """
    why = providers.stand_in(provider, passed_over=passed_over, accepted=file.accepted or file.providers)
    changed = file.provider is not None and provider != file.provider
    if changed and not (why and cpu_fallback):
        raise ProviderError(
            f"{file.model} {file.version} was tested on {file.provider} and comes up on {provider}"
            f" ({'; '.join(passed_over) or 'no reason is known'})"
        )
    return why or (file.stand_in if provider == providers.CPU else None)
