"""CUDA's error codes in words. What was being done when one came is the caller's to say."""

from __future__ import annotations

from ...errors import ErnieError, MissingError, ResourceError

#: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html: no GPU that this process may use, or a driver that is too old.
NO_GPU = {
    "cudaErrorNoDevice": "no NVIDIA GPU here",
    "cudaErrorInsufficientDriver": "no NVIDIA driver, or one that is too old for this CUDA",
    "cudaErrorInitializationError": "the NVIDIA driver could not be started",
    "cudaErrorStubLibrary": "the NVIDIA driver is a stub: this machine is made for compiling, not for running",
    "cudaErrorInvalidDevice": "there is no GPU of this number",
    "cudaErrorDevicesUnavailable": "every GPU is busy, or kept for another process",
    "cudaErrorSystemNotReady": "the NVIDIA driver is not ready yet",
    "cudaErrorSystemDriverMismatch": "the NVIDIA driver and its libraries are of different versions",
    "cudaErrorCompatNotSupportedOnDevice": "this GPU's driver is too old for this CUDA",
    "cudaErrorOperatingSystem": "the operating system refuses the GPU",
}
#: The code in the engine was made for other GPUs than this one.
OTHER_GPU = ("cudaErrorNoKernelImageForDevice", "cudaErrorInvalidKernelImage", "cudaErrorUnsupportedPtxVersion")
#: What calls answer that a capture does not allow, and what ending a broken capture answers.
_CAPTURE = ("cudaErrorStreamCapture", "cudaErrorCapturedEvent", "cudaErrorGraph")


class CaptureError(ErnieError):
    """This work cannot be captured in a CUDA graph. Caught by who captures: it goes on without."""


def translated(function: str, name: str, text: str) -> ErnieError:
    """The error that a code `name` of `function` stands for; text: what CUDA says to it."""
    if name == "cudaErrorMemoryAllocation":
        hint = "close what else uses the GPU (`nvidia-smi` lists it), or build with a smaller --context or --batch"
        return ResourceError(f"the GPU's memory is full ({function}: {text})", hint)
    if name in NO_GPU:
        hint = "`ernie doctor` says what is here; for drivers of CUDA 12: pip install 'cuda-python<13'"
        return MissingError(f"{NO_GPU[name]} ({function}: {text})", hint)
    if name in OTHER_GPU:
        return MissingError(f"the engine holds no code for this GPU ({function}: {text})", "build it again with --device auto")
    if name.startswith(_CAPTURE):
        return CaptureError(f"{function}: {text}")
    return ErnieError(f"the GPU failed: {function}: {name}: {text}", "run it again; if it stays, please report this line")
